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

  const found =
    (await gptOf(whole, { sizeBytes, sectorBytes, fetch, errors })) ??
    (await mbrOf(whole, { sectorBytes, fetch }));
  const inside = (found?.partitions ?? []).filter(
    ({ startBytes, sizeBytes: length }) => startBytes + length <= sizeBytes && length > 0,
  );
  const outside = (found?.partitions.length ?? 0) - inside.length;
  if (outside > 0) errors.push(`${outside} partitions end past the disk's end`);
  const partitions: PartitionContent[] = [];
  for (const [index, partition] of (found?.partitions ?? []).entries()) {
    let signatures: readonly Signature[] = [];
    if (inside.includes(partition) && partition.typeName?.startsWith("extended") !== true) {
      if (index < partitionsProbedMax) signatures = await signaturesIn(partition, { read, signal, unread });
      else if (index === partitionsProbedMax)
        unread.push(`only the first ${partitionsProbedMax} partitions were looked into`);
    }
    partitions.push({ uuid: null, name: null, ...partition, signatures: [...signatures] });
  }
  return {
    table: found?.table ?? null,
    partitions,
    // The end of the last partition is often that of the disk: what lies in a partition is the partition's.
    signatures: findSignatures(whole(), 0).filter(
      ({ offset }) =>
        !inside.some(
          ({ startBytes, sizeBytes: length }) => offset >= startBytes && offset < startBytes + length,
        ),
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
  { sectorBytes, fetch }: Pick<TableSearch, "sectorBytes" | "fetch">,
): Promise<FoundTable | null> {
  const mbr = readMbr(whole(), sectorBytes);
  if (mbr === null) return null;
  const partitions: Partition[] = [...mbr.partitions];
  const visited = new Set<number>();
  let next = mbr.extended?.offset ?? null;
  while (mbr.extended !== null && next !== null && visited.size < logicalMax && !visited.has(next)) {
    visited.add(next);
    await fetch({ offset: next, length: sectorBytes });
    const link = readLink(whole(), {
      offset: next,
      first: mbr.extended.offset,
      number: 5 + visited.size - 1,
      sectorBytes,
    });
    if (link.partition !== null) partitions.push(link.partition);
    next = link.next;
  }
  return {
    table: { type: "mbr", sectorBytes, uuid: mbr.uuid, primary: "good", backup: "missing" },
    partitions,
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
