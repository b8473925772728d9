// What a host sent, as JSON can say it: the store and the API speak JSON, and MessagePack says more.
import { hex } from "../../protocol/bytes.ts";

/** Bytes become hexadecimal, integers beyond 2^53 decimal text, infinities and NaN null. The value must be a tree. */
export function jsonSafe<T>(value: T): T {
  return convert(value) as T;
}

function convert(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(convert);
  if (value === null || typeof value !== "object") return value ?? null;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, convert(member)]));
}
