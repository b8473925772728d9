// An image read by its block map: only what is mapped is read, each range against its sum; the rest is zeroes.
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { BedplateError } from "../../protocol/errors.ts";
import type { BlockMap, MappedRange } from "./bmap.ts";

const zeroes = new Uint8Array(256 * 1024);
const readBytes = 1 << 20;

/** From a raw image of any length that holds all ranges; nothing else of it is read. @throws as `mappedOf`, `file.changed` */
export async function* readMapped(file: FileHandle, map: BlockMap, signal: AbortSignal) {
  let at = 0;
  for (const range of map.ranges) {
    yield* zeroBytes(range.start - at);
    const check = checkOf(range, map);
    for (let position = range.start; position < range.end; ) {
      signal.throwIfAborted();
      const buffer = Buffer.allocUnsafeSlow(Math.min(readBytes, range.end - position));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) throw tooShort(position, range);
      const piece = buffer.subarray(0, bytesRead);
      check.update(piece);
      yield piece;
      position += bytesRead;
    }
    check.end();
    at = range.end;
  }
  yield* zeroBytes(map.imageBytes - at);
}

/**
 * From the image's bytes in order: what is not mapped is passed over.
 * @param whole somebody vouches for all of the input: a map that takes anything of it away, or adds to it, is refused
 * @throws `image.digest-mismatch` naming the range; `image.truncated`; `image.bad-bmap` when there is more than the image
 */
export async function* mappedOf(bytes: AsyncIterable<Uint8Array>, map: BlockMap, whole: boolean) {
  const { ranges, imageBytes } = map;
  let [at, next] = [0, 0];
  let check: ReturnType<typeof checkOf> | undefined;
  for await (const chunk of bytes) {
    if (at + chunk.length > imageBytes) {
      throw new BedplateError(
        "image.bad-bmap",
        `The input has more than the ${imageBytes} bytes that its block map says.`,
        { hint: "Is the block map that of this image?" },
      );
    }
    for (let used = 0; used < chunk.length; ) {
      const range = ranges[next];
      const mapped = range !== undefined && at >= range.start;
      const until = range === undefined ? imageBytes : mapped ? range.end : range.start;
      const piece = chunk.subarray(used, used + until - at);
      if (mapped) {
        check ??= checkOf(range, map);
        check.update(piece);
        yield piece;
      } else {
        if (whole && !isZero(piece))
          throw altered(`holds data from byte ${at} on that its block map leaves out`);
        yield* zeroBytes(piece.length);
      }
      used += piece.length;
      at += piece.length;
      if (mapped && at === range.end) {
        check!.end();
        check = undefined;
        next++;
      }
    }
  }
  const missing = ranges[next];
  if (missing !== undefined) throw tooShort(at, missing);
  if (whole && at < imageBytes) throw altered(`has ${at} bytes, its block map says ${imageBytes}`);
  yield* zeroBytes(imageBytes - at);
}

function isZero(piece: Uint8Array): boolean {
  for (let at = 0; at < piece.length; at += zeroes.length) {
    const part = piece.subarray(at, at + zeroes.length);
    if (Buffer.compare(part, zeroes.subarray(0, part.length)) !== 0) return false;
  }
  return true;
}

function altered(why: string): BedplateError {
  return new BedplateError(
    "image.bad-bmap",
    `The input ${why}: the image would not be what the sum vouches for.`,
    {
      hint: "Import it without the block map.",
    },
  );
}

function* zeroBytes(count: number): Generator<Uint8Array> {
  for (let left = count; left > 0; left -= zeroes.length)
    yield left >= zeroes.length ? zeroes : zeroes.subarray(0, left);
}

function checkOf({ start, end, digest }: MappedRange, { algorithm }: BlockMap) {
  const hash = createHash(algorithm);
  return {
    update: (piece: Uint8Array) => void hash.update(piece),
    end() {
      const found = hash.digest("hex");
      if (found === digest) return;
      throw new BedplateError(
        "image.digest-mismatch",
        `Bytes ${start} to ${end - 1} hash to ${found}, not to the ${digest} of the block map; nothing is kept.`,
        { hint: "Get image and block map again.", details: { start, end, found, expected: digest } },
      );
    },
  };
}

function tooShort(at: number, { start, end }: MappedRange): BedplateError {
  return new BedplateError(
    "image.truncated",
    `The input ends at byte ${at}; its block map has data from ${start} to ${end - 1}.`,
    { details: { at, start, end } },
  );
}
