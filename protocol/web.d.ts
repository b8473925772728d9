// The web platform's globals that protocol/ uses, so that it needs neither node's types nor the DOM's.
declare class TextEncoder {
  encode(text: string): Uint8Array<ArrayBuffer>;
}
declare class TextDecoder {
  constructor(label: string, options: { fatal: boolean });
  decode(bytes: Uint8Array): string;
}
declare const crypto: {
  readonly subtle: {
    digest(algorithm: "SHA-256" | "SHA-512", data: Uint8Array): Promise<ArrayBuffer>;
    importKey(
      format: "raw",
      key: Uint8Array,
      algorithm: "Ed25519" | { readonly name: "ECDSA"; readonly namedCurve: "P-256" },
      extractable: boolean,
      usages: readonly ["verify"],
    ): Promise<unknown>;
    importKey(
      format: "jwk",
      key: { readonly kty: "RSA"; readonly n: string; readonly e: string },
      algorithm: { readonly name: "RSASSA-PKCS1-v1_5"; readonly hash: "SHA-256" | "SHA-512" },
      extractable: boolean,
      usages: readonly ["verify"],
    ): Promise<unknown>;
    verify(
      algorithm: "Ed25519" | "RSASSA-PKCS1-v1_5" | { readonly name: "ECDSA"; readonly hash: "SHA-256" },
      key: unknown,
      signature: Uint8Array,
      data: Uint8Array,
    ): Promise<boolean>;
  };
};
/** Latin-1 text to base64 and back. */
declare function btoa(text: string): string;
declare function atob(base64: string): string;
