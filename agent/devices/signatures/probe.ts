// What lies on a disk, found by reading a few places of it: its partition table, and signatures on it and in each partition.
import type {
  DiskContent,
  PartitionContent,
  PartitionTable,
  Signature,
} from "../../../protocol/disk-content.ts";
import type { Detector } from "./detector.ts";
import { filesystems } from "./filesystems.ts";
import { type GptHeader, type GptPartition, readEntries, readHeader } from "./gpt.ts";
import { logicalMax, type MbrPartition, readLink, readMbr } from "./mbr.ts";
import { members } from "./members.ts";
import { protectiveType } from "./partition-types.ts";
import { sharedStorage } from "./shared.ts";
import { type Spot, type Spots, type Stretch, spotsOf, stretchesOf } from "./spots.ts";
import { zfs } from "./zfs.ts";

/** Every kind of thing that is looked for. A new one: a line in one of these lists, and a case in its test. */
export const detectors: readonly Detector[] = [...sharedStorage, ...zfs, ...members, ...filesystems];

export interface DiskToProbe {
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  /** Bytes of the disk. What it throws is noted; an abort is thrown on. */
  readonly read: (stretch: Stretch) => Promise<Uint8Array>;
  readonly signal: AbortSignal;
}

/** As many as a GUID partition table has place for, unless somebody made a larger one. */
const partitionsProbedMax = 128;
const errorsMax = 16;

/** @throws the signal's reason, nothing else: what cannot be read stands in `errors` and `unread` */
export async function probeDisk({ sizeBytes, sectorBytes, read, signal }: DiskToProbe): Promise<DiskContent> {
  const errors: string[] = [];
  const unread: string[] = [];
  const spots: Spot[] = [];
  const fetch = async (stretch: Stretch): Promise<void> => {
    signal.throwIfAborted();
    if (unread.length >= errorsMax || stretch.length <= 0) return;
    if (stretch.offset < 0 || stretch.offset + stretch.length > sizeBytes) {
      errors.push(`bytes ${stretch.offset} to ${stretch.offset + stretch.length} lie past the disk's end`);
      return;
    }
    try {
      spots.push({ offset: stretch.offset, bytes: await read(stretch) });
    } catch (error) {
      signal.throwIfAborted();
      unread.push(`bytes ${stretch.offset} to ${stretch.offset + stretch.length}: ${messageOf(error)}`);
    }
  };
  const whole = () => spotsOf(sizeBytes, spots);
  for (const stretch of stretchesOf(sizeBytes, "disk")) await fetch(stretch);

  const found = together(
    await gptOf(whole, { sizeBytes, sectorBytes, fetch, errors }),
    await mbrOf(whole, { sectorBytes, fetch, unread }),
  );
  const outside = found.partitions.filter((each) => each.startBytes + each.sizeBytes > sizeBytes).length;
  if (outside > 0) errors.push(`${outside} partitions end past the disk's end`);
  const partitions: PartitionContent[] = [];
  for (const [index, partition] of found.partitions.entries()) {
    // As the kernel does: what ends past the disk's end is there up to that end (block/partitions/core.c).
    const length = Math.min(partition.sizeBytes, sizeBytes - partition.startBytes);
    let signatures: readonly Signature[] = [];
    if (length > 0 && partition.typeName?.startsWith("extended") !== true) {
      if (index < partitionsProbedMax)
        signatures = await signaturesIn({ ...partition, sizeBytes: length }, { read, signal, unread });
      else if (index === partitionsProbedMax)
        unread.push(`only the first ${partitionsProbedMax} partitions were looked into`);
    }
    partitions.push({ uuid: null, name: null, ...partition, signatures: [...signatures] });
  }
  // The end of the last partition is often that of the disk: what a partition has is not told twice. But a RAID over the
  // whole disk leaves the table that was there before it, and lies then within what that says is a partition.
  const ofPartitions = new Set(
    partitions.flatMap(({ signatures }) => signatures.map(({ kind, offset }) => `${kind} ${offset}`)),
  );
  return {
    table: found.table,
    partitions,
    signatures: findSignatures(whole(), 0).filter(
      ({ kind, offset }) => !ofPartitions.has(`${kind} ${offset}`),
    ),
    errors: [...errors.slice(0, errorsMax), ...unread].slice(0, errorsMax),
    ...(unread.length === 0 ? {} : { unread }),
  };
}

/** Every signature in a region; `base` is where the region begins on its disk. */
export function findSignatures(spots: Spots, base: number): Signature[] {
  const signatures: Signature[] = [];
  for (const { kind, use, shared, detect } of detectors) {
    const found = detect(spots);
    if (found === null) continue;
    signatures.push({
      kind: found.kind ?? kind,
      use,
      shared: shared ?? false,
      offset: base + found.offset,
      uuid: found.uuid ?? null,
      label: found.label ?? null,
      version: found.version ?? null,
    });
  }
  return signatures.sort((a, b) => a.offset - b.offset);
}

type Partition = GptPartition | MbrPartition;

interface FoundTable {
  readonly table: PartitionTable;
  readonly partitions: readonly Partition[];
}

/**
 * The table that counts, and the partitions of both: a GUID partition table counts only behind a protective entry (UEFI
 * 2.10, section 5.2.3), and its backup outlives an image with an MBR; what either one leads to may be somebody's.
 */
function together(
  gpt: FoundTable | null,
  mbr: (FoundTable & { readonly protective: boolean }) | null,
): { readonly table: PartitionTable | null; readonly partitions: readonly Partition[] } {
  if (gpt === null || mbr === null) {
    const { table, partitions } = gpt ?? mbr ?? { table: null, partitions: [] };
    return { table, partitions };
  }
  const starts = new Set(gpt.partitions.map(({ startBytes }) => startBytes));
  const others = mbr.partitions.filter(
    ({ type, startBytes }) => type !== protectiveType && !starts.has(startBytes),
  );
  // Of one that is broken nobody knows whether it is only what an older system left.
  const broken = gpt.table.primary !== "good" && gpt.table.backup !== "good";
  return mbr.protective || broken
    ? { table: gpt.table, partitions: [...gpt.partitions, ...others] }
    : { table: mbr.table, partitions: [...mbr.partitions, ...gpt.partitions] };
}

interface TableSearch {
  readonly sizeBytes: number;
  readonly sectorBytes: number;
  readonly fetch: (stretch: Stretch) => Promise<void>;
  readonly errors: string[];
}

/** For the disk's own sectors first; then for the other kind, which the kernel does not see on this disk. */
async function gptOf(whole: () => Spots, search: TableSearch): Promise<FoundTable | null> {
  for (const sectorBytes of [search.sectorBytes, search.sectorBytes === 512 ? 4096 : 512]) {
    const copies = {
      primary: readHeader(whole(), sectorBytes, "primary"),
      backup: readHeader(whole(), sectorBytes, "backup"),
    };
    if (copies.primary === "missing" && copies.backup === "missing") continue;
    const state: Record<"primary" | "backup", PartitionTable["primary"]> = {
      primary: "missing",
      backup: "missing",
    };
    let header: GptHeader | undefined;
    let partitions: readonly GptPartition[] | undefined;
    for (const name of ["primary", "backup"] as const) {
      const copy = copies[name];
      if (copy === "missing") continue;
      state[name] = "bad";
      if ("bad" in copy) {
        search.errors.push(copy.bad);
        continue;
      }
      if (whole().bytes(copy.entries.offset, copy.entries.length) === null) await search.fetch(copy.entries);
      const entries = readEntries(whole(), copy);
      if (entries === null) {
        search.errors.push(`the checksum of the ${name} table's entries is wrong`);
        continue;
      }
      state[name] = "good";
      header ??= copy;
      partitions ??= entries;
    }
    if (sectorBytes !== search.sectorBytes)
      search.errors.push(
        `the table counts in sectors of ${sectorBytes} bytes; the disk's have ${search.sectorBytes}`,
      );
    return {
      table: { type: "gpt", sectorBytes, uuid: header?.uuid ?? null, ...state },
      partitions: partitions ?? [],
    };
  }
  return null;
}

async function mbrOf(
  whole: () => Spots,
  { sectorBytes, fetch, unread }: Pick<TableSearch, "sectorBytes" | "fetch"> & { readonly unread: string[] },
): Promise<(FoundTable & { readonly protective: boolean }) | null> {
  const mbr = readMbr(whole(), sectorBytes);
  if (mbr === null) return null;
  const partitions: Partition[] = [...mbr.partitions];
  const visited = new Set<number>();
  for (const first of mbr.extended) {
    for (let next: number | null = first; next !== null && !visited.has(next); ) {
      if (visited.size === logicalMax) {
        unread.push(`only the first ${logicalMax} logical partitions were looked into`);
        break;
      }
      visited.add(next);
      await fetch({ offset: next, length: sectorBytes });
      const link = readLink(whole(), { offset: next, first, number: 4 + visited.size, sectorBytes });
      if (link.partition !== null) partitions.push(link.partition);
      next = link.next;
    }
  }
  return {
    table: { type: "mbr", sectorBytes, uuid: mbr.uuid, primary: "good", backup: "missing" },
    partitions,
    protective: mbr.protective,
  };
}

async function signaturesIn(
  { startBytes, sizeBytes, number }: Partition,
  { read, signal, unread }: Pick<DiskToProbe, "read" | "signal"> & { readonly unread: string[] },
): Promise<Signature[]> {
  const spots: Spot[] = [];
  for (const { offset, length } of stretchesOf(sizeBytes, "part")) {
    signal.throwIfAborted();
    if (unread.length >= errorsMax) break;
    try {
      spots.push({ offset, bytes: await read({ offset: startBytes + offset, length }) });
    } catch (error) {
      signal.throwIfAborted();
      unread.push(`partition ${number}, bytes ${offset} to ${offset + length}: ${messageOf(error)}`);
    }
  }
  return findSignatures(spotsOf(sizeBytes, spots), startBytes);
}

function messageOf(error: unknown): string {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return (error instanceof Error ? error.message : String(error)).slice(0, 200);
}
