// Where an image's frames lie: one after the other in a file of its own, or in segments of files that images share.
//
// An image's directory has its own name (a hard link) for each file that it uses, so none that is in use can go away:
// the file system counts. Without `segments` the file `frames` is all of it, in order.
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import Type from "typebox";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import { Bytes, checker } from "../../protocol/schema.ts";

export interface Segment {
  /** Index into `packs`. */
  readonly pack: number;
  /** Where it begins in that file. */
  readonly offset: number;
  readonly length: number;
}

export interface Layout {
  /** Names within the image's directory. */
  readonly packs: readonly string[];
  /** In the order of the groups; none is empty. */
  readonly segments: readonly Segment[];
  /** Where each segment begins among the image's frames, and the end. */
  readonly starts: Float64Array;
}

export const ownPack = "frames";
export const segmentsFile = "segments";
/** Files that one image may use: each is open while it is sent. */
export const packsMax = 32;

export const isPackName = (name: string): boolean => /^(frames|pack-[0-9a-f]{16})$/.test(name);

const Wire = Type.Object({
  bedplate: Type.Literal("segments/1"),
  packs: Type.Array(Type.String({ pattern: "^(frames|pack-[0-9a-f]{16})$" }), { maxItems: packsMax }),
  /** Of each segment the pack as u32, offset and length as f64, little-endian. */
  segments: Bytes,
});
const check = checker(Wire, "image.corrupt", "image's list of segments");
const segmentBytes = 20;

export function layoutOf(packs: readonly string[], segments: readonly Segment[]): Layout {
  const starts = new Float64Array(segments.length + 1);
  for (const [i, { length }] of segments.entries()) starts[i + 1] = starts[i]! + length;
  return { packs, segments, starts };
}

export function encodeLayout({ packs, segments }: Layout): Uint8Array {
  const bytes = new Uint8Array(segments.length * segmentBytes);
  const view = new DataView(bytes.buffer);
  for (const [i, { pack, offset, length }] of segments.entries()) {
    view.setUint32(i * segmentBytes, pack, true);
    view.setFloat64(i * segmentBytes + 4, offset, true);
    view.setFloat64(i * segmentBytes + 12, length, true);
  }
  return encodeFrame({ bedplate: "segments/1", packs: [...packs], segments: bytes });
}

/** @throws `image.corrupt` */
export function decodeLayout(bytes: Uint8Array): Layout {
  const { packs, segments: wire } = check(decodeFrame(bytes, limits.manifestBytesMax));
  const view = new DataView(wire.buffer, wire.byteOffset, wire.length);
  const segments = Array.from(
    { length: Math.floor(wire.length / segmentBytes) },
    (_, i): Segment => ({
      pack: view.getUint32(i * segmentBytes, true),
      offset: view.getFloat64(i * segmentBytes + 4, true),
      length: view.getFloat64(i * segmentBytes + 12, true),
    }),
  );
  const isCount = (value: number) => Number.isSafeInteger(value) && value >= 0;
  const good = segments.every(
    ({ pack, offset, length }) =>
      pack < packs.length && isCount(offset) && isCount(length) && length > 0 && isCount(offset + length),
  );
  if (!good || wire.length % segmentBytes !== 0)
    throw new BedplateError("image.corrupt", "The image's list of segments does not add up.");
  return layoutOf(packs, segments);
}

/**
 * The layout of the image in `directory`, whose files are there and long enough.
 * @param storedBytes of all frames, as the manifest says
 * @throws `image.truncated`, `image.corrupt`, and what reading throws
 */
export async function readLayout(directory: string, storedBytes: number): Promise<Layout> {
  const shared = await listed(directory);
  const layout = shared ?? plain(storedBytes);
  const sizes = await Promise.all(layout.packs.map(async (name) => (await stat(join(directory, name))).size));
  const whole =
    layout.starts.at(-1) === storedBytes &&
    layout.segments.every(({ pack, offset, length }) => offset + length <= sizes[pack]!) &&
    // A file of its own ends with the last frame; one that is shared may go on.
    (shared !== undefined || sizes[0] === storedBytes);
  if (whole) return layout;
  throw new BedplateError(
    "image.truncated",
    `The frames in ${directory} have ${sizes.join(" + ")} bytes, which do not hold the image's ${storedBytes}.`,
  );
}

/** The files that the image in `directory` uses. @throws as `readLayout` */
export async function packsIn(directory: string): Promise<readonly string[]> {
  return ((await listed(directory)) ?? plain(0)).packs;
}

function plain(storedBytes: number): Layout {
  return layoutOf([ownPack], storedBytes === 0 ? [] : [{ pack: 0, offset: 0, length: storedBytes }]);
}

async function listed(directory: string): Promise<Layout | undefined> {
  try {
    return decodeLayout(await readFile(join(directory, segmentsFile)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** The stretches of files that hold bytes `start` up to, not including, `end` of the image's frames. */
export function stretchesOf(
  { packs, segments, starts }: Layout,
  { start, end }: { readonly start: number; readonly end: number },
): { readonly name: string; readonly start: number; readonly end: number }[] {
  assert(start >= 0 && end <= starts.at(-1)!, "the stretch is within the frames");
  const stretches: { name: string; start: number; end: number }[] = [];
  for (let i = segmentAt(starts, start); i < segments.length && starts[i]! < end; i++) {
    const { pack, offset } = segments[i]!;
    const from = Math.max(start, starts[i]!) - starts[i]!;
    const to = Math.min(end, starts[i + 1]!) - starts[i]!;
    stretches.push({ name: packs[pack]!, start: offset + from, end: offset + to });
  }
  return stretches;
}

/** The segment that holds the byte: the last that begins at it or before. */
function segmentAt(starts: Float64Array, position: number): number {
  let [low, high] = [0, starts.length - 2];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (starts[middle]! <= position) low = middle;
    else high = middle - 1;
  }
  return Math.max(0, low);
}
