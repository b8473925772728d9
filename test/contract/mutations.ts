// Bytes and values that nobody asked for: drawn from a seed, so that a find can be drawn again.
import fc from "fast-check";
import { encodeFrame } from "../../protocol/frames.ts";

export interface Lots {
  /** Uniform in [0, 1). */
  fraction(): number;
  /** A whole number below `bound`. */
  below(bound: number): number;
  pick<T>(values: readonly T[]): T;
  bytes(count: number): Uint8Array;
  chance(probability: number): boolean;
}

/** Mulberry32: small, and the same everywhere. */
export function createLots(seed: number): Lots {
  let state = seed >>> 0;
  const fraction = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (bound: number) => Math.floor(fraction() * bound);
  return {
    fraction,
    below,
    pick: (values) => values[below(values.length)]!,
    bytes: (count) => Uint8Array.from({ length: count }, () => below(256)),
    chance: (probability) => fraction() < probability,
  };
}

/** First bytes of every MessagePack type, and lengths at their edges. */
const edgeBytes = [
  0x00, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x91, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xc4, 0xc5, 0xc6, 0xc7, 0xc9,
  0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd3, 0xd4, 0xd6, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
  0xe0, 0xff,
];

/** One to four small wounds; `other` is another frame to graft from. */
export function mutateBytes(frame: Uint8Array, other: Uint8Array, lots: Lots): Uint8Array {
  let bytes: Uint8Array = Uint8Array.from(frame);
  for (let wounds = 1 + lots.below(4); wounds > 0; wounds--) bytes = wound(bytes, other, lots);
  return bytes;
}

function wound(bytes: Uint8Array, other: Uint8Array, lots: Lots): Uint8Array {
  const at = lots.below(bytes.length + 1);
  const end = Math.min(bytes.length, at + 1 + lots.below(16));
  const from = lots.below(other.length);
  const graft = other.subarray(from, from + 1 + lots.below(32));
  switch (lots.below(8)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << lots.below(8);
      return bytes;
    case 1:
      if (at < bytes.length) bytes[at] = lots.pick(edgeBytes);
      return bytes;
    case 2:
      return Buffer.concat([bytes.subarray(0, at), lots.bytes(1 + lots.below(8)), bytes.subarray(at)]);
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    case 4:
      return bytes.slice(0, at);
    case 5:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
    case 6:
      return Buffer.concat([bytes.subarray(0, at), graft, bytes.subarray(at)]);
    default:
      return Buffer.concat([bytes.subarray(0, at), graft, bytes.subarray(end)]);
  }
}

/** Values of every shape, drawn by fast-check: what a schema must refuse, or code behind it must bear. */
export function oddValues(seed: number, count: number): readonly unknown[] {
  const value = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, withCrossShrink: false },
      fc.constantFrom<unknown>(null, true, false, 0, -1, 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, -0),
      fc.constantFrom<unknown>(
        2 ** 31,
        2 ** 32,
        2 ** 53 - 1,
        2n ** 53n,
        2n ** 63n,
        2n ** 64n - 1n,
        -(2n ** 63n),
      ),
      fc.constantFrom<unknown>(
        "",
        "__proto__",
        "constructor",
        "\0",
        "\ud800",
        "x".repeat(5000),
        "é".repeat(300),
      ),
      fc.maxSafeInteger(),
      fc.double(),
      fc.string({ unit: "binary", maxLength: 64 }),
      fc.uint8Array({ maxLength: 64 }),
      fc.array(tie("value"), { maxLength: 4 }),
      fc.dictionary(fc.string({ maxLength: 12 }), tie("value"), { maxKeys: 4 }),
    ),
  })).value;
  const encodable = value.filter((candidate) => {
    try {
      return encodeFrame({ candidate }).length < 1 << 16;
    } catch {
      return false;
    }
  });
  return fc.sample(encodable, { numRuns: count, seed });
}

/** The message with one or two members replaced, taken away or added, at any depth. */
export function mutateValue(message: unknown, odd: readonly unknown[], lots: Lots): unknown {
  let changed = message;
  for (let times = 1 + lots.below(2); times > 0; times--) changed = change(changed, odd, lots, true);
  return changed;
}

function change(value: unknown, odd: readonly unknown[], lots: Lots, top: boolean): unknown {
  if (!top && (lots.chance(0.5) || !isBranch(value))) return lots.pick(odd);
  if (Array.isArray(value)) {
    const copy: unknown[] = [...value];
    const at = lots.below(copy.length + 1);
    if (lots.chance(0.3)) copy.splice(at, 1);
    else copy[at] = at < value.length ? change(copy[at], odd, lots, false) : lots.pick(odd);
    return copy;
  }
  if (!isBranch(value)) return lots.pick(odd);
  const names = Object.keys(value);
  const name = lots.chance(0.1) || names.length === 0 ? `added-${lots.below(10)}` : lots.pick(names);
  const { [name]: member, ...rest } = value;
  if (lots.chance(0.15)) return rest;
  return { ...value, [name]: change(member, odd, lots, false) };
}

function isBranch(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !(value instanceof Uint8Array);
}
