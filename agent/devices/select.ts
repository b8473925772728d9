// From a selector to exactly one disk: none and several are both refused, with all candidates.
import { type Disk, type DiskSelector, formatDiskSelector } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { normalWwn } from "./disk-identity.ts";
import type { DiskListing, ListedDisk } from "./disks.ts";

const candidatesMax = 64;

/** @throws `disk.not-found`, `disk.ambiguous`, with `candidates` in the details */
export function selectDisk(listing: DiskListing, selector: DiskSelector): ListedDisk {
  const matching = listing.disks.filter(({ disk }) => matches(disk, selector));
  const [only] = matching;
  if (only !== undefined && matching.length === 1) return only;
  const wanted = formatDiskSelector(selector);
  if (only === undefined) {
    throw new BedplateError("disk.not-found", `No disk of this host matches ${wanted}.`, {
      hint: "The candidates are in the details; `bedplate host show HOST` lists them too.",
      details: { selector, candidates: candidates(listing) },
    });
  }
  throw new BedplateError(
    "disk.ambiguous",
    `${matching.length} disks match ${wanted}: ${matching.map(({ disk }) => disk.path).join(", ")}.`,
    {
      hint: "Add what tells them apart: wwn, byId, hctl or sizeBytes.",
      details: {
        selector,
        matching: matching.map(({ disk }) => candidate(disk)),
        candidates: candidates(listing),
      },
    },
  );
}

export function matches(disk: Disk, selector: DiskSelector): boolean {
  return (
    same(selector.serial?.trim(), disk.serial) &&
    same(selector.wwn === undefined ? undefined : (normalWwn(selector.wwn) ?? selector.wwn), disk.wwn) &&
    (selector.byId === undefined || disk.byId.includes(selector.byId.replace(/^\/dev\/disk\/by-id\//, ""))) &&
    same(selector.hctl, disk.hctl) &&
    (selector.loop === undefined || (disk.type === "loop" && disk.backing === selector.loop)) &&
    same(selector.file, disk.fileDisk) &&
    same(selector.sizeBytes, disk.sizeBytes) &&
    same(selector.type, disk.type)
  );
}

function same<T>(wanted: T | undefined, found: T | null): boolean {
  return wanted === undefined || wanted === found;
}

/** Why each other disk was not taken stands in `excluded`. */
function candidates(listing: DiskListing): readonly Record<string, unknown>[] {
  const taken = listing.disks.map(({ disk }) => candidate(disk));
  const left = listing.excluded.map(({ path, serial, model, sizeBytes, reason }) => ({
    path,
    serial,
    model,
    sizeBytes,
    excluded: reason,
  }));
  return [...taken, ...left].slice(0, candidatesMax);
}

function candidate({
  path,
  type,
  serial,
  wwn,
  model,
  sizeBytes,
  backing,
  fileDisk,
  hctl,
  allowed,
}: Disk): Record<string, unknown> {
  return { path, type, serial, wwn, model, sizeBytes, backing, fileDisk, hctl, allowed, excluded: null };
}
