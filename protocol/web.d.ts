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
      algorithm: "Ed25519",
      extractable: boolean,
      usages: readonly ["verify"],
    ): Promise<unknown>;
    verify(algorithm: "Ed25519", key: unknown, signature: Uint8Array, data: Uint8Array): Promise<boolean>;
  };
};
