// Measures candidates that alternate within one run and judges rows by the median of their rounds' ratios: what a busy
// neighbour or a turbo window does to one candidate it does to all.
import { execFile } from "node:child_process";
import { pbkdf2 } from "node:crypto";
import { promisify } from "node:util";

/** Something to measure: does its work `repeat` times and returns the seconds it took by its own clock. */
export interface Candidate {
  readonly measure: (repeat: number) => number | Promise<number>;
  /** Bytes of one repetition, for the table's GB/s. */
  readonly bytes?: number;
}

/** Why a candidate cannot be measured here. */
export interface Skipped {
  readonly skipped: string;
}

/** How many times faster the subject is than the peer. */
export interface RatioRow {
  readonly name: string;
  readonly subject: string;
  readonly peer: string;
  /** `--check` fails below it; without one the row only tells. */
  readonly floor?: number;
  /**
   * Where the peer is faster than on the machine that the floor is from: the floor is at most `ratio` times what `than`
   * reaches here, so that the row asks for no more than the one against `than`.
   */
  readonly atMost?: { readonly ratio: number; readonly than: string };
  /** The subject's threads: a row below its floor is skipped when the machine could not give them so many cores. */
  readonly cores?: number;
}

/** A figure that the suite measures by itself; without a bound the row only tells. */
export interface FigureRow {
  readonly name: string;
  /** "×" for a ratio to a peer. */
  readonly unit: string;
  readonly measure: () => number | Promise<number>;
  /** `--check` fails above it. */
  readonly most?: number;
  /** Of a ratio: `--check` fails below it. */
  readonly least?: number;
}

export interface Suite extends AsyncDisposable {
  readonly candidates: Readonly<Record<string, Candidate | Skipped>>;
  readonly rows: readonly (RatioRow | FigureRow)[];
  readonly rounds: number;
  /** A candidate repeats its work until a slice takes about so long. */
  readonly sliceSeconds: number;
}

/** One file of bench/: prepares what it measures. Limits its own time: all of them share 90 seconds. */
export interface Bench {
  readonly name: string;
  /** Another name, which runs several. */
  readonly group?: string;
  readonly title: string;
  prepare(): Promise<Suite>;
}

export type RowResult = {
  readonly name: string;
  readonly subject?: string;
  readonly peer?: string;
  /** The ratio, or the figure in `unit`; undefined when it could not be measured. */
  readonly value: number | undefined;
  readonly unit: string;
  readonly bound: number | undefined;
  readonly state: "ok" | "below" | "skipped";
  readonly note?: string;
};

export interface BenchResult {
  readonly name: string;
  readonly rows: readonly RowResult[];
  /** GB/s of candidates that have bytes, else repetitions a second: medians. */
  readonly rates: Readonly<Record<string, number>>;
}

/** Processor time: for kernels in memory. Of the process, as a thread's own is only counted in ticks. */
export function cpuTimed(work: () => void, bytes?: number): Candidate {
  const measure = (repeat: number) => {
    const before = process.cpuUsage();
    for (let k = 0; k < repeat; k++) work();
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1e6;
  };
  return bytes === undefined ? { measure } : { measure, bytes };
}

/** Wall time: for what involves other threads, processes or the disk. */
export function wallTimed(work: () => Promise<unknown>, bytes?: number): Candidate {
  const measure = async (repeat: number) => {
    const before = performance.now();
    for (let k = 0; k < repeat; k++) await work();
    return (performance.now() - before) / 1e3;
  };
  return bytes === undefined ? { measure } : { measure, bytes };
}

/** Measures the suite once. `only`: the rows to judge, all when undefined. */
export async function measureSuite(
  name: string,
  suite: Suite,
  only?: ReadonlySet<string>,
): Promise<BenchResult> {
  const rows = suite.rows.filter((row) => only === undefined || only.has(row.name));
  const needed = new Set(
    rows.flatMap((row) =>
      "peer" in row ? [row.subject, row.peer, ...(row.atMost ? [row.atMost.than] : [])] : [],
    ),
  );
  const coresNeeded = Math.max(1, ...rows.map((row) => ("peer" in row ? (row.cores ?? 1) : 1)));
  const { rounds, cores } = await measureRounds(suite, needed, coresNeeded);
  const results: RowResult[] = [];
  for (const row of rows)
    results.push("peer" in row ? judgeRatio(row, suite, { rounds, cores }) : await judgeFigure(row));
  const rates: Record<string, number> = {};
  for (const [candidate, seconds] of rounds) {
    const { bytes } = suite.candidates[candidate] as Candidate;
    rates[candidate] = bytes === undefined ? 1 / median(seconds) : bytes / median(seconds) / 1e9;
  }
  return { name, rows: results, rates };
}

interface Rounds {
  /** Seconds of one repetition, for each candidate and round. */
  readonly rounds: ReadonlyMap<string, number[]>;
  /** How many cores' work was really to be had meanwhile. */
  readonly cores: number;
}

async function measureRounds(
  suite: Suite,
  needed: ReadonlySet<string>,
  coresNeeded: number,
): Promise<Rounds> {
  const free: number[] = [];
  const runs: { name: string; candidate: Candidate; repeat: number; seconds: number[] }[] = [];
  for (const name of needed) {
    const candidate = suite.candidates[name];
    if (candidate === undefined) throw new Error(`no candidate ${name}`);
    if ("skipped" in candidate) continue;
    // Twice: the first warms up code and caches.
    await candidate.measure(1);
    const seconds = await candidate.measure(1);
    const repeat = Math.max(1, Math.round(suite.sliceSeconds / Math.max(seconds, 1e-5)));
    await candidate.measure(repeat);
    runs.push({ name, candidate, repeat, seconds: [] });
  }
  for (let round = 0; round < suite.rounds; round++) {
    if (coresNeeded > 1) free.push(await freeCores(coresNeeded));
    // Every other round backwards, so that none always follows the same neighbour.
    for (const run of round % 2 === 0 ? runs : runs.toReversed()) {
      run.seconds.push((await run.candidate.measure(run.repeat)) / run.repeat);
    }
  }
  return {
    rounds: new Map(runs.map(({ name, seconds }) => [name, seconds])),
    cores: free.length > 0 ? median(free) : 1,
  };
}

/** How much faster `cores` threads of libuv's pool get the same work done than one. */
async function freeCores(cores: number): Promise<number> {
  const derive = () => promisify(pbkdf2)("", "", 40_000, 32, "sha256");
  const start = performance.now();
  await derive();
  const middle = performance.now();
  await Promise.all(Array.from({ length: cores }, derive));
  return (cores * (middle - start)) / (performance.now() - middle);
}

function judgeRatio(row: RatioRow, suite: Suite, { rounds, cores }: Rounds): RowResult {
  const { name, subject, peer, floor } = row;
  const base = { name, subject, peer, unit: "×", bound: floor };
  for (const side of [subject, peer]) {
    const candidate = suite.candidates[side]!;
    if ("skipped" in candidate)
      return { ...base, value: undefined, state: "skipped", note: candidate.skipped };
  }
  const value = ratioOf(rounds, subject, peer);
  const eased = floor === undefined ? undefined : easedFloor(row, floor, rounds);
  const bound = eased?.floor ?? floor;
  const below = bound !== undefined && value < bound;
  if (below && row.cores !== undefined && cores < 0.85 * row.cores) {
    return { ...base, value, bound, state: "skipped", note: `only ${cores.toFixed(1)} cores were free` };
  }
  const state = below ? "below" : "ok";
  return { ...base, value, bound, state, ...(eased === undefined ? {} : { note: eased.note }) };
}

/** Median of the rounds' ratios: how many times faster the subject is. */
function ratioOf(rounds: Rounds["rounds"], subject: string, peer: string): number {
  const subjectSeconds = rounds.get(subject)!;
  return median(rounds.get(peer)!.map((seconds, round) => seconds / subjectSeconds[round]!));
}

/** The floor that holds here, when {@link RatioRow.atMost} makes it another. */
function easedFloor(
  { peer, atMost }: RatioRow,
  floor: number,
  rounds: Rounds["rounds"],
): { readonly floor: number; readonly note: string } | undefined {
  if (atMost === undefined || !rounds.has(atMost.than)) return undefined;
  const reached = ratioOf(rounds, atMost.than, peer);
  if (atMost.ratio * reached >= floor) return undefined;
  return {
    floor: atMost.ratio * reached,
    note: `the floor is ${floor} where ${atMost.than} reaches ${(floor / atMost.ratio).toFixed(1)} × ${peer}; here it reaches ${reached.toFixed(1)}`,
  };
}

async function judgeFigure({ name, unit, measure, most, least }: FigureRow): Promise<RowResult> {
  const value = await measure();
  const within = value <= (most ?? Infinity) && value >= (least ?? 0);
  return { name, value, unit, bound: most ?? least, state: within ? "ok" : "below" };
}

/** Figures that come of one measurement, which serves all rows; a row that is judged again gets one of its own. */
export function figuresOf<Name extends string>(
  measure: () => Promise<Readonly<Record<Name, number>>>,
): (name: Name) => Promise<number> {
  const fresh = new Map<string, number>();
  return async (name) => {
    if (!fresh.has(name))
      for (const [each, value] of Object.entries<number>(await measure())) fresh.set(each, value);
    const value = fresh.get(name)!;
    fresh.delete(name);
    return value;
  };
}

/** Whether a program cannot be started, asked for its version. */
export async function programMissing(name: string): Promise<boolean> {
  const run = promisify(execFile);
  try {
    await run(name, ["--version"]).catch(() => run(name, ["version"]));
    return false;
  } catch {
    return true;
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
