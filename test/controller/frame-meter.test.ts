// The frame meter against hand-made RFC 6455 frames, in pieces of every size.
import { expect, test } from "vitest";
import { FrameMeter } from "../../controller/link/frame-meter.ts";

function frame(length: number, { opcode = 2, final = true, masked = true } = {}): Uint8Array {
  const head = [(final ? 0x80 : 0) | opcode];
  const mask = masked ? 0x80 : 0;
  if (length < 126) head.push(mask | length);
  else if (length < 65_536) head.push(mask | 126, length >> 8, length & 0xff);
  else
    head.push(
      mask | 127,
      0,
      0,
      0,
      0,
      (length >>> 24) & 0xff,
      (length >>> 16) & 0xff,
      (length >>> 8) & 0xff,
      length & 0xff,
    );
  if (masked) head.push(0x81, 0x82, 0xff, 0x7f);
  return Uint8Array.from([...head, ...new Uint8Array(length).fill(0x82)]);
}

function measure(bytesMax: number, frames: Uint8Array[], pieceBytes: number): number[] {
  const told: number[] = [];
  const meter = new FrameMeter(bytesMax, (bytes) => told.push(bytes));
  const all = Buffer.concat(frames);
  for (let at = 0; at < all.length; at += pieceBytes) meter.push(all.subarray(at, at + pieceBytes));
  return told;
}

test("messages up to the bound pass, one byte more is told once, however the bytes are cut", () => {
  for (const bytesMax of [100, 125, 126, 1000, 65_535, 65_536, 70_000]) {
    for (const pieceBytes of [1, 2, 3, 7, 13, 1000, 1 << 20]) {
      const fits = [frame(0), frame(bytesMax), frame(1), frame(bytesMax)];
      expect([bytesMax, pieceBytes, measure(bytesMax, fits, pieceBytes)]).toEqual([bytesMax, pieceBytes, []]);
      const tooLarge = [frame(bytesMax), frame(bytesMax + 1), frame(bytesMax + 1)];
      expect([bytesMax, pieceBytes, measure(bytesMax, tooLarge, pieceBytes)]).toEqual([
        bytesMax,
        pieceBytes,
        [bytesMax + 1],
      ]);
    }
  }
});

test("fragments add up, control frames between them do not count, and the next message starts anew", () => {
  const fragments = [
    frame(60, { final: false }),
    frame(125, { opcode: 9 }),
    frame(40, { opcode: 0 }),
    frame(100),
  ];
  expect(measure(100, fragments, 5)).toEqual([]);
  expect(measure(99, fragments, 5)).toEqual([100]);
  expect(measure(100, [frame(60, { final: false }), frame(41, { opcode: 0, final: false })], 1)).toEqual([
    101,
  ]);
});

test("a header that claims 2^63 bytes is told before any of them comes", () => {
  expect(
    measure(
      100,
      [Uint8Array.from([0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4])],
      1,
    ),
  ).toEqual([2 ** 63]);
});

test("unmasked frames, which the library refuses, are followed too", () => {
  expect(measure(10, [frame(10, { masked: false }), frame(11, { masked: false })], 3)).toEqual([11]);
});
