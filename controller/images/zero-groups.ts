// The groups of a manifest that have no frame: they stand for zeroes only if their digests say so.
import { groupDigest, groupLength, type Manifest } from "../../protocol/manifest.ts";
import type { GroupPool } from "./group-pool.ts";
import { imageLimits } from "./limits.ts";

/** @throws `image.corrupt` naming the first that is none */
export async function verifyZeroes(
  manifest: Manifest,
  { pool, signal }: { readonly pool: GroupPool; readonly signal: AbortSignal },
): Promise<void> {
  const { frameBytes, sizeBytes } = manifest;
  const zeroes = [...frameBytes.keys()].filter((group) => frameBytes[group] === 0);
  const { zeroGroupsPerTask } = imageLimits;
  for (let at = 0; at < zeroes.length; at += zeroGroupsPerTask * pool.threads) {
    signal.throwIfAborted();
    const tasks = Array.from({ length: pool.threads }, (_, k) => {
      const start = at + k * zeroGroupsPerTask;
      const groups = zeroes.slice(start, start + zeroGroupsPerTask).map((group) => ({
        group,
        length: groupLength(sizeBytes, group),
        digest: groupDigest(manifest, group).slice(),
      }));
      return pool.run("verifyZeroes", { groups, root: frameBytes.length === 1 });
    });
    await Promise.all(tasks);
  }
}
