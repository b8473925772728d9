// Verifies an image wherever its bytes come from: the manifest's own sums, and every group, decoded in worker threads.
import { mergeGroups } from "../../assembly/index.ts";
import { hex } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeManifest, groupCount, type Manifest } from "../../protocol/manifest.ts";
import { checkFrames, checkRoot } from "./catalog.ts";
import { cutFrames } from "./frame-cutter.ts";
import { createGroupPool, createGroupWindow, type GroupWindow } from "./group-pool.ts";
import { groupOf } from "./receive.ts";
import { storeError } from "./store-error.ts";
import { verifyZeroes } from "./zero-groups.ts";

export interface VerifyOptions {
  readonly manifest: Manifest;
  /** Whole, in order. */
  readonly frames: AsyncIterable<Uint8Array>;
  /** Default: as many as there are processors, at most 8. */
  readonly threads?: number | undefined;
  readonly signal: AbortSignal;
  /** Told the bytes of frames that are verified. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

/** Bad groups that are named one by one. */
const namedMax = 64;

/** @throws `image.bad-manifest` unless the bytes are a manifest whose groups add up to `root` */
export function readManifest(bytes: Uint8Array, root: string): Manifest {
  const manifest = decodeManifest(bytes);
  checkFrames(manifest);
  checkRoot(root, mergeGroups(manifest.groups, groupCount(manifest.sizeBytes)), manifest);
  return manifest;
}

/**
 * Goes on after a group that is bad, so that all are known.
 * @throws `image.corrupt` naming each bad group with its offset, at most 64; `image.truncated`, `image.aborted`
 */
export async function verifyFrames(options: VerifyOptions): Promise<void> {
  const { manifest, frames, threads, signal, onProgress } = options;
  const bad: BedplateError[] = [];
  let [badCount, done] = [0, 0];
  const note = (error: BedplateError | undefined) => {
    if (error === undefined) return;
    badCount++;
    if (bad.length < namedMax) bad.push(error);
  };
  try {
    await using pool = createGroupPool(threads);
    // Settled in the order of the groups: so are they named.
    await using window: GroupWindow<Verdict> = createGroupWindow(pool, async ({ error, frameBytes }) => {
      signal.throwIfAborted();
      note(error);
      done += frameBytes;
      onProgress?.(done);
    });
    await cutFrames(
      frames,
      manifest,
      {
        slot: window.slot,
        settle: window.finish,
        async take(group, slot, frameBytes) {
          const verified = pool.run("verify", { slot, frameBytes, ...groupOf(manifest, group) });
          window.start(
            slot,
            verified.then(() => undefined, corruption).then((error) => ({ error, frameBytes })),
          );
        },
      },
      signal,
    );
    note(await verifyZeroes(manifest, { pool, signal }).then(() => undefined, corruption));
  } catch (error) {
    if (badCount > 0) throw corrupt(manifest, bad, badCount);
    // Nothing is written here: what else failed, the frames' source failed with.
    throw signal.aborted ? storeError(error, signal) : error;
  }
  if (badCount > 0) throw corrupt(manifest, bad, badCount);
}

interface Verdict {
  readonly error: BedplateError | undefined;
  readonly frameBytes: number;
}

/** A group that is bad is a finding; what else goes wrong ends it all. */
function corruption(error: unknown): BedplateError {
  if (error instanceof BedplateError && error.code === "image.corrupt") return error;
  throw error;
}

function corrupt(manifest: Manifest, bad: readonly BedplateError[], count: number): BedplateError {
  const [first] = bad;
  const more = count === 1 ? "" : ` ${count - 1} more ${count === 2 ? "group is" : "groups are"} bad too.`;
  return new BedplateError("image.corrupt", `${first!.message}${more}`, {
    hint: "Add the image anew: remove it first.",
    details: {
      root: hex(manifest.root),
      badGroupCount: count,
      badGroups: bad.map(({ details }) => ({ group: details?.group, offset: details?.offset })),
    },
  });
}
