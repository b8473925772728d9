// Identifiers: UUID version 7 (RFC 9562), sortable by the time of minting, and the short form of a host's key.

import { hex } from "./bytes.ts";
import { assert } from "./errors.ts";

/** A new id from the time in milliseconds and 10 random bytes. */
export function uuidV7(unixMs: number, random: Uint8Array): string {
  assert(random.length === 10, "a UUIDv7 takes 10 random bytes");
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(unixMs) << 16n);
  bytes.set(random, 6);
  bytes[6] = 0x70 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  const text = hex(bytes);
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join(
    "-",
  );
}

/** What people compare before they approve a host: the first 16 digits of its id, as `6D2A-91F0-33C4-0B7E`. */
export function fingerprintOf(hostId: string): string {
  return hostId.slice(0, 16).toUpperCase().match(/.{4}/g)!.join("-");
}
