// Every bound of image import and upload, in one place.

import { groupBytes } from "../../assembly/index.ts";
import { assert } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";

const mib = 1024 * 1024;
const gib = 1024 * mib;

export const imageLimits = {
  /** The largest raw image: what a manifest within its own bound can describe. */
  imageBytesMax: 1792 * gib,
  /** The largest zstd frame of one group; bytes that do not compress grow by less than 100 bytes. */
  frameBytesMax: groupBytes + 8192,
  /** The largest window that a stored frame may ask its reader for. */
  frameWindowBytesMax: 8 * mib,
  /** Memory that the xz program may use: its highest preset needs 65 MiB. */
  xzBytesMax: 256 * mib,
  /** Address space and processor time of qemu-img. */
  convertBytesMax: 2 * gib,
  convertSecondsMax: 4 * 3600,
  /** Output that may follow the header of a failing program. */
  toolMessageBytesMax: 4096,
  /** Uploads whose manifest is there and whose frames are not; beyond, the oldest is dropped. */
  uploadsWaitingMax: 16,
  uploadsWaitingBytesMax: 128 * mib,
  redirectsMax: 5,
  /** An HTTP server that sends nothing for this long is given up. */
  stallMs: 60_000,
  /** Groups in work for each worker thread: one worked on, one waiting, so that no thread starves. */
  slotsPerThread: 2,
  /** Groups of images that a new one may share frames with: 36 bytes of memory each. */
  baseGroupsMax: 1 << 20,
  /** A file of frames is written anew once so much of it is in no image: that costs three bytes of writing a byte freed. */
  deadShareMin: 0.25,
  /** Zero groups verified in one task: some 60 ms. */
  zeroGroupsPerTask: 64,
} as const;

/**
 * How far compressed input may expand: to `bytes` in all, and, past the first `freeBytes`, to `ratio` times the input
 * read so far. 1100 is just above what deflate can reach (1032), so only zstd and xz of almost nothing but zeroes need more.
 */
export interface ExpansionBound {
  readonly bytes: number;
  readonly ratio: number;
  readonly freeBytes: number;
}
export const expansionDefaults: ExpansionBound = {
  bytes: imageLimits.imageBytesMax,
  ratio: 1100,
  freeBytes: gib,
};

assert(imageLimits.uploadsWaitingBytesMax >= limits.manifestBytesMax, "one manifest of any size can wait");
assert(
  (imageLimits.imageBytesMax / groupBytes) * 36 + 4096 <= limits.manifestBytesMax,
  "the largest image has a manifest",
);
