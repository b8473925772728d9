// Reading and writing SSH's wire format (RFC 4251, section 5) and base64, strictly: one encoding for each value.
import { textOf } from "./bytes.ts";
import type { BedplateError } from "./errors.ts";

/** Makes the error for what is wrong with the bytes; the sentence completes "The key …" or "The signature …". */
export type Malformed = (why: string) => BedplateError;

/** Takes SSH values off the front of bytes that are not trusted; whatever does not fit throws `malformed`. */
export class SshReader {
  readonly #bytes: Uint8Array;
  readonly #malformed: Malformed;
  #at = 0;

  constructor(bytes: Uint8Array, malformed: Malformed) {
    this.#bytes = bytes;
    this.#malformed = malformed;
  }

  /** A copy of the next `count` bytes: who passed the bytes in may change them later. */
  take(count: number): Uint8Array<ArrayBuffer> {
    if (count > this.#bytes.length - this.#at) throw this.#malformed("ends too early");
    this.#at += count;
    return new Uint8Array(this.#bytes.slice(this.#at - count, this.#at));
  }

  byte(): number {
    return this.take(1)[0]!;
  }

  uint32(): number {
    return new DataView(this.take(4).buffer).getUint32(0);
  }

  string(): Uint8Array<ArrayBuffer> {
    return this.take(this.uint32());
  }

  /** A string of 1 to 256 printable ASCII characters: names, namespaces, algorithms. */
  name(): string {
    const bytes = this.string();
    if (bytes.length === 0 || bytes.length > 256 || bytes.some((byte) => byte < 0x20 || byte > 0x7e)) {
      throw this.#malformed("has a name in it that is empty, too long or not printable");
    }
    return textOf(bytes);
  }

  /** A positive `mpint`, as its bytes without leading zeroes. */
  positive(bytesMax: number): Uint8Array<ArrayBuffer> {
    const bytes = this.string();
    const padded = bytes[0] === 0;
    // RFC 4251: unnecessary leading zeroes must not be there; a first bit that is set means a negative number.
    const canonical = bytes.length > 0 && (padded ? (bytes[1] ?? 0) >= 0x80 : bytes[0]! < 0x80);
    if (!canonical)
      throw this.#malformed("has a number in it that is zero, negative or not in shortest form");
    const magnitude = padded ? bytes.slice(1) : bytes;
    if (magnitude.length > bytesMax) throw this.#malformed("has a number in it that is too large");
    return magnitude;
  }

  end(): void {
    const left = this.#bytes.length - this.#at;
    if (left > 0) throw this.#malformed(`has ${left} bytes after its end`);
  }
}

/** Big-endian bytes as a number. */
export function bigintOf(bytes: Uint8Array): bigint {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return value;
}

export function base64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** Undefined unless `text` is base64 (RFC 4648, section 4) with its padding and no stray bits, so that each value has one text. */
export function bytesOfBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return base64(bytes) === text ? bytes : undefined;
}
