// Recognising formats and partition tables, finding the ends of zstd frames, names, redirects and the expansion bound.
import { constants, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import { checkExpansion } from "../../controller/images/decode.ts";
import { refuseNested, resolveFormat } from "../../controller/images/format.ts";
import { nextLocation } from "../../controller/images/http-input.ts";
import { nameFrom } from "../../controller/images/import.ts";
import { expansionDefaults } from "../../controller/images/limits.ts";
import { createFrameScanner } from "../../controller/images/zstd-frames.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { sectorBytesOf } from "../../protocol/image-sectors.ts";
import { codeOf, content } from "./support.ts";

const headOf = (...bytes: number[]) => Uint8Array.from([...bytes, ...new Array(600).fill(0)]);

test("formats are recognised by their first bytes", () => {
  expect(resolveFormat(headOf(0x1f, 0x8b, 8), undefined)).toBe("gzip");
  expect(resolveFormat(headOf(0x28, 0xb5, 0x2f, 0xfd), undefined)).toBe("zstd");
  expect(resolveFormat(headOf(0x5f, 0x2a, 0x4d, 0x18), undefined)).toBe("zstd");
  expect(resolveFormat(headOf(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0), undefined)).toBe("xz");
  expect(resolveFormat(headOf(0x51, 0x46, 0x49, 0xfb), undefined)).toBe("qcow2");
  expect(resolveFormat(headOf(0xeb, 0x63, 0x90), undefined)).toBe("raw");
  expect(resolveFormat(Uint8Array.of(0x1f), undefined)).toBe("raw");
});

test("what is known and not taken is refused by name, unless it is declared raw", async () => {
  const vhdx = Uint8Array.from(Buffer.from("vhdxfile and so on"));
  expect(await codeOf(() => resolveFormat(vhdx, undefined))).toBe("image.unsupported");
  expect(resolveFormat(vhdx, "raw")).toBe("raw");
  expect(resolveFormat(headOf(0x1f, 0x8b, 8), "raw")).toBe("raw");
});

test("a declared format must be the content's", async () => {
  expect(resolveFormat(headOf(0x1f, 0x8b, 8), "gzip")).toBe("gzip");
  expect(await codeOf(() => resolveFormat(headOf(0x1f, 0x8b, 8), "xz"))).toBe("image.unsupported");
  expect(await codeOf(() => resolveFormat(headOf(0), "qcow2"))).toBe("image.unsupported");
});

test("packed content within packed content is refused", async () => {
  expect(await codeOf(() => refuseNested(headOf(0x51, 0x46, 0x49, 0xfb), "gzip"))).toBe("image.unsupported");
  refuseNested(headOf(0xeb), "gzip");
});

test("the sector size is where the partition table stands", () => {
  const head = new Uint8Array(8192);
  expect(sectorBytesOf(head)).toBe(null);
  head.set([0x55, 0xaa], 510);
  expect(sectorBytesOf(head)).toBe(512);
  head.set(Buffer.from("EFI PART"), 4096);
  expect(sectorBytesOf(head)).toBe(4096);
  head.set(Buffer.from("EFI PART"), 512);
  expect(sectorBytesOf(head)).toBe(512);
  expect(sectorBytesOf(Uint8Array.of(1))).toBe(null);
});

test("an image's name comes from its file or address", () => {
  expect(nameFrom("/srv/debian-12.raw.xz")).toBe("debian-12");
  expect(nameFrom("https://example.org/a/Disk_1.QCOW2?token=x#y")).toBe("Disk_1");
  expect(nameFrom("weird name (1).img.gz")).toBe("weird-name-1-");
  expect(nameFrom("...")).toBe("image");
  expect(nameFrom(".raw")).toBe("image");
  expect(nameFrom(`${"x".repeat(300)}.raw`)).toHaveLength(128);
});

test("redirects: relative and up to https are followed; down to http, elsewhere and a sixth one are not", async () => {
  const from = new URL("https://a.example/dir/file");
  expect(nextLocation(from, "other", 0).href).toBe("https://a.example/dir/other");
  expect(nextLocation(new URL("http://a.example/"), "https://b.example/x", 4).href).toBe(
    "https://b.example/x",
  );
  expect(await codeOf(() => nextLocation(from, "http://a.example/dir/file", 0))).toBe("source.refused");
  expect(await codeOf(() => nextLocation(from, "file:///etc/passwd", 0))).toBe("source.refused");
  expect(await codeOf(() => nextLocation(from, "/x", 5))).toBe("source.refused");
});

test("the expansion bound", async () => {
  const gib = 2 ** 30;
  checkExpansion(gib, 10, expansionDefaults);
  checkExpansion(1000 * gib, gib, expansionDefaults);
  expect(await codeOf(() => checkExpansion(gib + 1, 10, expansionDefaults))).toBe("image.expansion");
  expect(await codeOf(() => checkExpansion(1793 * gib, 1793 * gib, expansionDefaults))).toBe(
    "image.expansion",
  );
});

const frame = (bytes: Uint8Array, checksum: number) =>
  zstdCompressSync(bytes, { params: { [constants.ZSTD_c_checksumFlag]: checksum } });
const skippable = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);

/** The ends of all frames, scanned in pieces of the given length. */
function endsOf(bytes: Uint8Array, pieceBytes: number): number[] {
  const scanner = createFrameScanner();
  const ends: number[] = [];
  for (let start = 0; start < bytes.length; start += pieceBytes) {
    const piece = bytes.subarray(start, start + pieceBytes);
    for (let at = 0; at < piece.length; ) {
      const { end, ended } = scanner.scan(piece, at);
      if (ended) ends.push(start + end);
      at = end;
    }
  }
  return ends;
}

test("the ends of zstd frames are found in pieces of any length", () => {
  const frames = [
    frame(content(300_000), 1),
    skippable,
    frame(new Uint8Array(), 0),
    frame(new Uint8Array(200_000), 1),
    frame(content(77), 0),
  ];
  const expected = frames.map((_, i) => frames.slice(0, i + 1).reduce((sum, one) => sum + one.length, 0));
  for (const pieceBytes of [1, 2, 3, 7, 4096, 1 << 20])
    expect(endsOf(Buffer.concat(frames), pieceBytes)).toEqual(expected);
});

test("a frame's window is known from its header", () => {
  const scanner = createFrameScanner();
  scanner.scan(frame(content(300_000), 0), 0);
  expect(scanner.windowBytes).toBe(300_000);
  // Descriptor 0: no single segment; window byte 0x88: exponent 17.
  scanner.scan(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 0x88, 1, 0, 0), 0);
  expect(scanner.windowBytes).toBe(2 ** 27);
});

test("scanning garbage ends or throws image.corrupt", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, framed) => {
      const scanner = createFrameScanner();
      const input = framed ? Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), bytes]) : bytes;
      try {
        for (let at = 0; at < input.length; ) {
          const { end } = scanner.scan(input, at);
          expect(end).toBeGreaterThan(at);
          at = end;
        }
      } catch (error) {
        expect((error as BedplateError).code).toBe("image.corrupt");
        expect(error).toBeInstanceOf(BedplateError);
      }
    }),
    { numRuns: 2000 },
  );
});
