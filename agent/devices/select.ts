// From a selector to exactly one disk: none and several are both refused, with every candidate and why it was not taken.
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
  if (only === undefined) throw notFound(listing, selector);
  throw new BedplateError(
    "disk.ambiguous",
    `${matching.length} disks match ${formatDiskSelector(selector)}: ${matching.map(({ disk }) => disk.path).join(", ")}.`,
    {
      hint: samePlace(matching)
        ? "They have the same wwn: paths to one disk. Set up multipath on the host; its device is then the one that matches."
        : "Add what tells them apart: wwn, byId, hctl or sizeBytes.",
      details: {
        selector,
        matching: matching.map(({ disk }) => candidate(disk, [])),
        candidates: candidates(listing, selector),
      },
    },
  );
}

export function matches(disk: Disk, selector: DiskSelector): boolean {
  return mismatches(disk, selector).length === 0;
}

/** Every member of the selector that this disk does not fulfil, in words; none when it matches. */
export function mismatches(disk: Disk, selector: DiskSelector): readonly string[] {
  const wrong: string[] = [];
  const compare = (what: string, wanted: string | number | undefined, found: string | number | null) => {
    if (wanted !== undefined && wanted !== found)
      wrong.push(found === null ? `it has no ${what}` : `its ${what} is ${found}`);
  };
  compare("serial", selector.serial?.trim(), disk.serial);
  compare(
    "wwn",
    selector.wwn === undefined ? undefined : (normalWwn(selector.wwn) ?? selector.wwn),
    disk.wwn,
  );
  if (selector.byId !== undefined && !disk.byId.includes(selector.byId.replace(/^\/dev\/disk\/by-id\//, "")))
    wrong.push(disk.byId.length === 0 ? "it has no by-id names" : "its by-id names are others");
  compare("hctl", selector.hctl, disk.hctl);
  if (selector.loop !== undefined && (disk.type !== "loop" || disk.backing !== selector.loop))
    wrong.push(disk.type === "loop" ? `it is a loop device of ${disk.backing}` : "it is no loop device");
  compare("file", selector.file, disk.fileDisk);
  compare("size", selector.sizeBytes, disk.sizeBytes);
  compare("type", selector.type, disk.type);
  return wrong;
}

function notFound(listing: DiskListing, selector: DiskSelector): BedplateError {
  const left = listing.excluded.find(({ serial }) => serial !== null && serial === selector.serial?.trim());
  return new BedplateError(
    "disk.not-found",
    `No disk of this host matches ${formatDiskSelector(selector)}.${left === undefined ? "" : ` ${left.path} has that serial, but is ${left.reason}.`}`,
    {
      hint: "The candidates are in the details; `bedplate host show HOST` lists them too.",
      details: { selector, candidates: candidates(listing, selector) },
    },
  );
}

/** Several names of one thing, not several disks. */
function samePlace(matching: readonly ListedDisk[]): boolean {
  const names = new Set(matching.map(({ disk }) => disk.wwn));
  return names.size === 1 && !names.has(null);
}

/** Those that matched first, then those that did not, then what is no disk at all: each with why. */
function candidates(listing: DiskListing, selector: DiskSelector): readonly Record<string, unknown>[] {
  const listed = listing.disks
    .map(({ disk }) => ({ disk, wrong: mismatches(disk, selector) }))
    .sort((a, b) => a.wrong.length - b.wrong.length)
    .map(({ disk, wrong }) => candidate(disk, wrong));
  const left = listing.excluded.map(({ path, serial, model, sizeBytes, reason }) => ({
    path,
    serial,
    model,
    sizeBytes,
    state: null,
    excluded: reason,
  }));
  return [...listed, ...left].slice(0, candidatesMax);
}

function candidate(disk: Disk, wrong: readonly string[]): Record<string, unknown> {
  const { path, type, serial, wwn, model, sizeBytes, backing, fileDisk, hctl, allowed, state = null } = disk;
  return {
    path,
    type,
    serial,
    wwn,
    model,
    sizeBytes,
    backing,
    fileDisk,
    hctl,
    state,
    allowed,
    excluded: wrong.length === 0 ? null : wrong.join("; "),
  };
}
