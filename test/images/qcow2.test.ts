// The qcow2 header parser: what it takes, what it refuses, and that garbage gets nothing but an answer.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseQcow2 } from "../../controller/images/qcow2.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { codeOf, errorOf, makeQcow2, mib } from "./support.ts";

const u32 = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
const u64 = (value: number) => [...u32(Math.floor(value / 2 ** 32)), ...u32(value >>> 0)];
const text = (value: string) => [...Buffer.from(value)];
const patched = (...patches: { at: number; bytes: number[] }[]) => makeQcow2({ patches });

test("a plain file of version 3", () => {
  const file = makeQcow2();
  expect(parseQcow2(file, file.length)).toEqual({
    version: 3,
    clusterBytes: 65536,
    sizeBytes: mib,
    compression: "deflate",
    extendedL2: false,
    snapshots: 0,
  });
});

test("version 2 has no feature bits and a shorter header", () => {
  const file = makeQcow2({ version: 2 });
  expect(parseQcow2(file, file.length)).toMatchObject({ version: 2, sizeBytes: mib });
});

test("zstd compression, extended L2 entries, snapshots and unknown extensions are read", () => {
  const file = patched(
    { at: 60, bytes: u32(3) },
    { at: 72, bytes: u64(8 + 16) },
    { at: 100, bytes: [...u32(112), 1] },
    { at: 112, bytes: [...u32(0x6803f857), ...u32(5), ...text("name!"), 0, 0, 0, ...u32(0), ...u32(0)] },
  );
  expect(parseQcow2(file, file.length)).toMatchObject({
    compression: "zstd",
    extendedL2: true,
    snapshots: 3,
  });
});

describe("refused before any program opens the file", () => {
  const extension = (type: number, value: string) =>
    patched({ at: 104, bytes: [...u32(type), ...u32(value.length), ...text(value)] });
  test.each<[string, Uint8Array]>([
    [
      "a backing file",
      patched(
        { at: 8, bytes: u64(1024) },
        { at: 16, bytes: u32(11) },
        { at: 1024, bytes: text("/etc/shadow") },
      ),
    ],
    ["a backing file's offset alone", patched({ at: 8, bytes: u64(1024) })],
    ["a backing file's length alone", patched({ at: 16, bytes: u32(11) })],
    [
      "a backing file in version 2",
      makeQcow2({
        version: 2,
        patches: [
          { at: 8, bytes: u64(72) },
          { at: 16, bytes: u32(3) },
        ],
      }),
    ],
    ["the format of a backing file", extension(0xe2792aca, "raw")],
    ["AES encryption", patched({ at: 32, bytes: u32(1) })],
    ["LUKS encryption", patched({ at: 32, bytes: u32(2) })],
    ["an encryption header", extension(0x0537be77, "0123456789abcdef")],
    ["the feature bit of an external data file", patched({ at: 72, bytes: u64(4) })],
    ["the autoclear bit of a raw external data file", patched({ at: 88, bytes: u64(2) })],
    ["the name of an external data file", extension(0x44415441, "/dev/sda")],
    [
      "the same behind another extension",
      patched({
        at: 104,
        bytes: [
          ...u32(0x6803f857),
          ...u32(9),
          ...text("123456789"),
          0,
          0,
          0,
          0,
          0,
          0,
          0,
          ...u32(0x44415441),
          ...u32(1),
          65,
        ],
      }),
    ],
  ])("%s", async (_, file) => {
    expect(await codeOf(() => parseQcow2(file, file.length))).toBe("image.unsafe");
    // Also while the rest of the file is not there yet.
    expect(await codeOf(() => parseQcow2(file.subarray(0, 65536)))).toBe("image.unsafe");
  });
});

test.each<[string, string, Uint8Array]>([
  ["another magic", "image.corrupt", patched({ at: 0, bytes: [0] })],
  ["version 1", "image.unsupported", patched({ at: 4, bytes: u32(1) })],
  ["version 4", "image.unsupported", patched({ at: 4, bytes: u32(4) })],
  ["clusters of 256 bytes", "image.corrupt", patched({ at: 20, bytes: u32(8) })],
  ["clusters of 4 MiB", "image.corrupt", patched({ at: 20, bytes: u32(22) })],
  ["a disk of size 0", "image.unsupported", patched({ at: 24, bytes: u64(0) })],
  ["a disk of 2 TiB", "image.expansion", patched({ at: 24, bytes: u64(2 ** 41) })],
  [
    "a disk of 2^64-512",
    "image.expansion",
    patched({ at: 24, bytes: [255, 255, 255, 255, 255, 255, 254, 0] }),
  ],
  ["half a sector", "image.corrupt", patched({ at: 24, bytes: u64(mib + 256) })],
  ["too small an L1 table", "image.corrupt", patched({ at: 24, bytes: u64(1024 * mib) })],
  ["an L1 table of 2^32 entries", "image.corrupt", patched({ at: 36, bytes: u32(0xffffffff) })],
  ["an L1 table between clusters", "image.corrupt", patched({ at: 40, bytes: u64(65537) })],
  ["an L1 table past the end", "image.truncated", patched({ at: 40, bytes: u64(65536 * 5) })],
  ["a refcount table past the end", "image.truncated", patched({ at: 48, bytes: u64(65536 * 999) })],
  ["the corrupt bit", "image.corrupt", patched({ at: 72, bytes: u64(2) })],
  ["an unknown incompatible feature", "image.unsupported", patched({ at: 72, bytes: u64(32) })],
  ["refcount order 7", "image.corrupt", patched({ at: 96, bytes: u32(7) })],
  ["a header length of 100", "image.corrupt", patched({ at: 100, bytes: u32(100) })],
  [
    "compression type 2",
    "image.unsupported",
    patched({ at: 72, bytes: u64(8) }, { at: 100, bytes: [...u32(112), 2] }),
  ],
  ["a compression type without its bit", "image.corrupt", patched({ at: 100, bytes: [...u32(112), 1] })],
  [
    "an extension that leaves the cluster",
    "image.corrupt",
    patched({ at: 104, bytes: [...u32(7), ...u32(0xfffffff0)] }),
  ],
  [
    "extended L2 entries in small clusters",
    "image.corrupt",
    patched({ at: 20, bytes: u32(13) }, { at: 72, bytes: u64(16) }),
  ],
  ["70,000 snapshots", "image.corrupt", patched({ at: 60, bytes: u32(70_000) })],
])("%s is %s", async (_, code, file) => {
  expect(await codeOf(() => parseQcow2(file, file.length))).toBe(code);
});

test("a header cut anywhere is truncated", async () => {
  const file = makeQcow2();
  for (const length of [0, 1, 71, 72, 103])
    expect((await errorOf(() => parseQcow2(file.subarray(0, length)))).code).toBe("image.truncated");
});

test("garbage and damaged headers give a header or a BedplateError, nothing else", () => {
  const outcome = (bytes: Uint8Array) => {
    try {
      return parseQcow2(bytes, bytes.length);
    } catch (error) {
      return error;
    }
  };
  const headers = makeQcow2().subarray(0, 2048);
  let parsed = 0;
  const damage = fc.array(fc.tuple(fc.nat({ max: 255 }), fc.nat({ max: 255 })), { maxLength: 6 });
  fc.assert(
    fc.property(
      fc.oneof(fc.uint8Array({ maxLength: 512 }), damage, fc.tuple(damage, fc.nat({ max: 2048 }))),
      (input) => {
        let bytes: Uint8Array;
        if (input instanceof Uint8Array) bytes = input;
        else {
          const [changes, length] =
            typeof input[1] === "number"
              ? (input as [[number, number][], number])
              : [input as [number, number][], 2048];
          bytes = headers.slice(0, length);
          for (const [at, value] of changes) bytes[at] = value;
        }
        const result = outcome(bytes);
        if (result instanceof Error) expect(result).toBeInstanceOf(BedplateError);
        else parsed++;
      },
    ),
    { numRuns: 3000 },
  );
  expect(parsed).toBeLessThan(3000);
});
