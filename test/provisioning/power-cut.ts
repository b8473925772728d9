// What a power cut may leave of a disk whose every write and flush is known, and whether a firmware would boot it.
import { groupBytes } from "../../protocol/groups.ts";
import type { Lots } from "../contract/mutations.ts";
import { bootFindings } from "./boot-findings.ts";
import type { DiskRequest } from "./recording-disk.ts";

const sectorBytes = 512;
/** The write that seals: the boot code, the partition table's header and its first entries. */
const headBytes = 4096;

export type Verdict = "boots nothing" | "old, untouched" | "new, whole";

/** Or what a firmware would find on a disk that is neither the old system nor the new one. */
export function judge(state: Buffer, old: Buffer, image: Uint8Array): Verdict | readonly string[] {
  const findings = bootFindings(state);
  if (findings.length === 0) return "boots nothing";
  const inside = [groupBytes, state.length - groupBytes] as const;
  // Marker and wiped tail come first: until both are durable nothing else of the old system is touched.
  if (state.subarray(...inside).equals(old.subarray(...inside)) && !old.equals(image))
    return "old, untouched";
  // Both ends cannot come in one write, and a power cut may tear each: the disk's end comes first, the head last.
  const begun = findings.some((finding) => !finding.includes("backup"));
  const whole = begun
    ? ([headBytes, image.length] as const)
    : ([groupBytes, Math.min(image.length, inside[1])] as const);
  if (state.subarray(...whole).equals(image.subarray(...whole))) return "new, whole";
  return findings;
}

export interface PowerCuts {
  readonly states: Readonly<Record<Verdict, number>>;
  readonly faults: readonly string[];
}

export interface CutOptions {
  readonly old: Buffer;
  readonly image: Uint8Array;
  readonly lots: Lots;
  /** States drawn between two flushes, beside those after each write. */
  readonly drawn: number;
  /** Told of every state; it is overwritten after. */
  readonly onState?: (state: Buffer, verdict: Verdict) => void;
}

/**
 * Every state after a write; and between two flushes any part of the writes in any order, each whole, torn or lost.
 * What was written before a flush is on the medium after it.
 */
export function cutPower(log: readonly DiskRequest[], options: CutOptions): PowerCuts {
  const { old, image, lots, drawn, onState } = options;
  const states = { "boots nothing": 0, "old, untouched": 0, "new, whole": 0 };
  const faults: string[] = [];
  const durable = Buffer.from(old);
  const state = Buffer.from(old);
  let pending: DiskRequest[] = [];
  const look = (how: string) => {
    const verdict = judge(state, old, image);
    if (typeof verdict !== "string") return void faults.push(`${how}: ${verdict.join(", ")}`);
    states[verdict]++;
    onState?.(state, verdict);
  };
  const write = ({ offset, data }: DiskRequest, to = state) => void to.set(data, offset);
  const undo = ({ offset, data }: DiskRequest) =>
    void durable.copy(state, offset, offset, offset + data.length);
  const endEpoch = (name: string) => {
    for (let k = 0; pending.length > 0 && k < drawn; k++) {
      for (const each of pending) undo(each);
      for (const each of shuffled(pending, lots)) {
        const lot = lots.below(3);
        if (lot === 0) write(each);
        if (lot === 1) write(torn(each, lots));
      }
      look(`${name}, some of ${pending.length} writes lost or torn`);
    }
    for (const each of pending) {
      write(each);
      write(each, durable);
    }
    pending = [];
  };
  look("at the beginning");
  for (const [index, request] of log.entries()) {
    if (request.kind === "flush") {
      endEpoch(`before flush ${index}`);
      continue;
    }
    pending.push(request);
    write(request);
    look(`after write ${index} at ${request.offset}`);
  }
  endEpoch("at the end");
  return { states, faults };
}

function torn({ kind, offset, data }: DiskRequest, lots: Lots): DiskRequest {
  const sectors = data.length / sectorBytes;
  const from = lots.below(sectors);
  const to = from + 1 + lots.below(sectors - from);
  return {
    kind,
    offset: offset + from * sectorBytes,
    data: data.subarray(from * sectorBytes, to * sectorBytes),
  };
}

function shuffled<T>(values: readonly T[], lots: Lots): T[] {
  return values
    .map((value) => ({ value, place: lots.fraction() }))
    .sort((a, b) => a.place - b.place)
    .map(({ value }) => value);
}
