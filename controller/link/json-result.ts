// A result as JSON can say it: the API serves JSON, and a host may send what JSON has no word for.

import { hex } from "../../protocol/bytes.ts";
import type { Result } from "../../protocol/commands.ts";

/** Bytes become hexadecimal, integers beyond 2^53 decimal text, infinities and NaN null. */
export function jsonResult(result: Result): Result {
  return jsonValue(result) as Result;
}

function jsonValue(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(jsonValue);
  if (value === null || typeof value !== "object") return value ?? null;
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, jsonValue(member)]));
}
