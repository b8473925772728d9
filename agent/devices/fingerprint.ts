// The fingerprint that ties an apply to its plan: who the disk is, and what its edges hold.
import { createStreamHasher } from "../../assembly/index.ts";
import { hex, utf8 } from "../../protocol/bytes.ts";
import type { DiskContent } from "../../protocol/disk-content.ts";
import type { Disk, Fingerprint } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { groupBytes } from "../../protocol/groups.ts";
import { type OpenDisk, readFully } from "./direct-file.ts";

/** Who the disk is: the same on every resume, also after a reboot. */
const stableFields = [
  "serial",
  "wwn",
  "backing",
  "model",
  "sizeBytes",
  "logicalSectorBytes",
  "physicalSectorBytes",
] as const;
/** The same only while nothing was unplugged, rebooted or written. */
const momentaryFields = ["diskSequence", "bootId", "edges"] as const;

/**
 * Reads the first and the last MiB of the open disk.
 * @param window an aligned view of a MiB; its contents are lost
 */
export async function fingerprintOf(
  disk: Disk,
  open: OpenDisk,
  bootId: string,
  window: Uint8Array,
): Promise<Fingerprint> {
  const length = Math.min(groupBytes, disk.sizeBytes);
  const hasher = await createStreamHasher();
  for (const position of [0, disk.sizeBytes - length]) {
    await readFully(open, window.subarray(0, length), position);
    hasher.update(window.subarray(0, length));
  }
  return { ...identityOf(disk), diskSequence: disk.diskSequence, bootId, edges: hex(hasher.digest()) };
}

/**
 * What the guards judged by: most of it lies further in than the edges, and whoever overrides a guard overrides what was
 * found then, not what comes after.
 */
export async function contentDigest(content: DiskContent): Promise<string> {
  const hasher = await createStreamHasher();
  hasher.update(utf8(JSON.stringify(content)));
  return hex(hasher.digest());
}

/**
 * @param overridden whether guards are overridden: only for what the plan says was found
 * @throws `plan.changed`
 */
export async function requireSameContent(
  planned: Fingerprint,
  content: DiskContent,
  overridden: boolean,
): Promise<void> {
  if (planned.content === undefined && !overridden) return;
  refuseChanges<"content">(planned as Required<Fingerprint>, { content: await contentDigest(content) }, [
    "content",
  ]);
}

export type StableFingerprint = Pick<Fingerprint, (typeof stableFields)[number]>;

export function identityOf(disk: Disk): StableFingerprint {
  const { serial, wwn, backing, model, sizeBytes, logicalSectorBytes, physicalSectorBytes } = disk;
  return { serial, wwn, backing, model, sizeBytes, logicalSectorBytes, physicalSectorBytes };
}

/** @throws `plan.changed` naming each field with what was planned and what is found */
export function requireSameDisk(planned: Fingerprint, found: StableFingerprint): void {
  refuseChanges(planned, found, stableFields);
}

/** @throws `plan.changed` */
export function requireSameFingerprint(planned: Fingerprint, found: Fingerprint): void {
  refuseChanges(planned, found, [...stableFields, ...momentaryFields]);
}

function refuseChanges<F extends keyof Fingerprint>(
  planned: Pick<Fingerprint, F>,
  found: Pick<Fingerprint, F>,
  fields: readonly F[],
): void {
  const changed = fields.filter((field) => planned[field] !== found[field]);
  if (changed.length === 0) return;
  const said = changed.map(
    (field) => `${field} was ${planned[field] ?? "none"} and is ${found[field] ?? "none"}`,
  );
  throw new BedplateError("plan.changed", `The disk is not as it was planned: ${said.join("; ")}.`, {
    hint: "Make a new plan, look at it, and apply that one.",
    details: { changed: changed.map((field) => ({ field, planned: planned[field], found: found[field] })) },
  });
}
