// A thousand faults and more, drawn from a seed: mirrors that break off and lie, disks that fail, a journal without room.
// No bad byte is ever found on a disk, no deploy says that it succeeded when it did not, each has one result.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { isCode } from "../../protocol/codes.ts";
import type { Command, Result } from "../../protocol/commands.ts";
import { createLots, type Lots } from "../contract/mutations.ts";
import { bootFindings } from "../provisioning/boot-findings.ts";
import {
  faultsOfFinished,
  faultsOfUnfinished,
  type Host,
  journalOf,
  onLoop,
  openHost,
  planned,
  plannedAnew,
  runCommand,
  strangeGroups,
} from "../provisioning/deploys.ts";
import { createTally, liar } from "../provisioning/lies.ts";
import { type LoopDisk, lackForLoops } from "../provisioning/loop-disk.ts";
import { type Mirror, mirrorAuthority, openMirror } from "../provisioning/mirror.ts";
import { judge } from "../provisioning/power-cut.ts";
import { type DiskRule, lackForRecording, openRecordingDisk } from "../provisioning/recording-disk.ts";
import { makeSystem } from "../provisioning/systems.ts";
import { budgetSeconds, seed, timeoutMs } from "../support/budget.ts";
import { runRequest } from "../support/executor-host.ts";
import type { TestImage } from "../support/test-image.ts";

const mib = 1 << 20;
const lack = lackForLoops();
if (lack !== undefined) console.warn(`skipped: ${lack}`);
const recordingLack = lackForRecording();
if (recordingLack !== undefined) console.warn(`skipped: ${recordingLack}`);
const traces = spawnSync("strace", ["-o", "/dev/null", "true"]).status === 0;
if (!traces) console.warn("skipped: a journal without room needs strace");

const tally = createTally();
const unmarked: string[] = [];
const outcomes = new Map<string, number>();
/** What the mirrors must bring about, whatever the budget. */
const mirrorFaultsLeast = 1000;

interface Bench {
  readonly host: Host;
  readonly disk: LoopDisk;
  readonly images: readonly TestImage[];
  /** A deploy of what lies on the disk now. */
  next(image: TestImage, limits?: Command["limits"]): Promise<Command>;
}

/** Three systems that take turns, so that there is always something to write. */
async function openBench(host: Host, disk: LoopDisk, sizeBytes: number, ca: string): Promise<Bench> {
  const images: TestImage[] = [];
  for (let k = 0; k < 3; k++)
    images.push(await makeSystem({ sizeBytes, seed: k + 1, zeroGroups: [2 + k, 9, 10] }));
  await using honest = await openMirror(images[0]!, { layout: "frames", scheme: "https" });
  const offer = { ca, sources: [honest.source] };
  const first = await planned(host, { image: images[0]!, disk: onLoop(disk), offer });
  return {
    ...{ host, disk, images },
    next: async (image, limits = {}) => ({ ...(await plannedAnew(first, image, disk)), limits }) as Command,
  };
}

/** What must hold after any deploy. @param device whether the disk itself did wrong: then its groups may be torn */
function requireTruth(
  { host, disk }: Bench,
  { command, result, image, before }: { command: Command; result: Result; image: TestImage; before: Buffer },
  device: "sound" | "failing" | "lying" = "sound",
): void {
  const after = disk.bytes();
  const told = `seed ${seed}, ${command.id}: ${JSON.stringify(result.error ?? result.outcome)}`;
  outcomes.set(
    result.error?.code ?? result.outcome,
    (outcomes.get(result.error?.code ?? result.outcome) ?? 0) + 1,
  );
  expect(journalOf(host, command).results, told).toEqual([result]);
  if (result.outcome === "succeeded") {
    expect(faultsOfFinished(after, image.bytes, before), told).toEqual([]);
    return;
  }
  expect(isCode(result.error!.code), told).toBe(true);
  expect(result.error!.code, told).not.toBe("internal");
  const left = result.error!.details?.left as { readonly marker: boolean } | undefined;
  if (left === undefined) expect(after.equals(before), told).toBe(true);
  else if (device === "sound") expect(faultsOfUnfinished(after, image.bytes, before), told).toEqual([]);
  // A disk that fails may not even take the marker: but then nobody says that it did.
  else if (left.marker)
    expect(judge(after, before, image.bytes), told).toMatch(/boots nothing|old, untouched/);
  else unmarked.push(told);
  // Its own: that of an earlier deploy may still be there.
  const marker = `BEDPLATE DEPLOY IN PROGRESS\noperation ${command.id}\n`;
  if (left !== undefined)
    expect(after.toString("latin1", 0, marker.length) === marker, told).toBe(left.marker);
}

afterAll(() => {
  const list = (counts: ReadonlyMap<string, number>) =>
    [...counts]
      .sort(([, a], [, b]) => b - a)
      .map(([name, count]) => `${count} ${name}`)
      .join(", ");
  console.log(
    `${tally.total} faults: ${list(tally.counts)}\noutcomes: ${list(outcomes)}; ${unmarked.length} disks that could not be marked\nBEDPLATE_SEED=${seed}`,
  );
});

describe.skipIf(lack !== undefined)("mirrors", () => {
  test(
    "that break off and lie: what is on the disk is the image or what was there",
    async () => {
      const ca = await mirrorAuthority();
      const until = performance.now() + budgetSeconds * 1000;
      let deploys = 0;
      // Beside them, as it waits most of the time.
      const stalled = stallOnce(ca);
      stalled.catch(() => {});
      // As many hosts as keep this machine busy.
      let over = false;
      const lanes = await Promise.allSettled(
        [0, 1].map(async (lane) => {
          // What goes wrong in one ends the other, too: nothing is left behind.
          using ending = new DisposableStack();
          ending.defer(() => {
            over = true;
          });
          const lots = createLots(seed + lane);
          await using host = await openHost();
          const disk = await host.makeDisk({ sizeBytes: 22 * mib });
          const bench = await openBench(host, disk, 20 * mib, ca);
          const enough = () => performance.now() >= until && tally.total >= mirrorFaultsLeast;
          for (let turn = 0; !over && !enough(); turn++) {
            const image = bench.images[turn % 3]!;
            const before = disk.bytes();
            await using stack = new AsyncDisposableStack();
            const others = bench.images.filter((other) => other !== image);
            const mirrors = await liars(image, others, lots);
            for (const mirror of mirrors) stack.use(mirror);
            // Now and then nobody has the whole image.
            const honest = lots.chance(0.8);
            if (honest)
              mirrors.push(stack.use(await openMirror(image, { layout: "frames", scheme: "https" })));
            await host.listSources(mirrors.map(({ origin }) => origin));
            const command = await bench.next(image);
            const offer = { ca, sources: mirrors.map(({ source }) => source) };
            const { result, executor } = await runCommand(host, command, offer);
            requireTruth(bench, { command, result, image, before });
            const told = `seed ${seed}: ${JSON.stringify(result.error)} from ${JSON.stringify(offer.sources)}: ${executor.log()}`;
            if (honest) expect(result.outcome, told).toBe("succeeded");
            deploys++;
          }
        }),
      );
      await stalled;
      for (const lane of lanes) if (lane.status === "rejected") throw lane.reason;
      console.log(`${deploys} deploys from bad mirrors`);
      expect(tally.total).toBeGreaterThanOrEqual(mirrorFaultsLeast);
    },
    timeoutMs,
  );

  /** By the product's own limit: broken off, asked again, and not given up. */
  async function stallOnce(ca: string): Promise<void> {
    await using host = await openHost();
    const disk = await host.makeDisk({ sizeBytes: 22 * mib });
    const bench = await openBench(host, disk, 20 * mib, ca);
    const image = bench.images[1]!;
    let [asked, stalls] = [0, 0];
    await using mirror = await openMirror(image, {
      ...{ layout: "frames", scheme: "https" },
      answer({ what }, { begin, right, serve }) {
        // The first group comes before the write phase.
        if (what === "manifest" || asked++ === 0 || stalls > 0) return serve();
        stalls++;
        tally.count("stalled");
        return begin(right.length >> 1, "nothing");
      },
    });
    const before = disk.bytes();
    const command = await bench.next(image);
    const { result, output } = await runCommand(host, command, { ca, sources: [mirror.source] });
    requireTruth(bench, { command, result, image, before });
    expect(result.outcome).toBe("succeeded");
    expect(output.sources![0]).not.toHaveProperty("gaveUp");
    expect(output.seconds.write).toBeGreaterThan(10);
  }

  /** Seven of them: some have faults by lot, one is another image's. */
  async function liars(image: TestImage, others: readonly TestImage[], lots: Lots): Promise<Mirror[]> {
    const mirrors: Mirror[] = [];
    for (let k = 0; k < 7; k++) {
      const layout = lots.chance(0.5) ? "raw" : "frames";
      const scheme = lots.chance(0.5) ? "http" : "https";
      const other = lots.chance(0.1) ? lots.pick(others) : image;
      // Of its own, so that what it answers hangs on fewer things that nobody can repeat.
      const answer = liar({
        lots: createLots(lots.below(2 ** 31)),
        tally,
        breaking: lots.pick([0, 0.2, 0.4]),
        lying: lots.pick([0.2, 0.7, 1]),
      });
      mirrors.push(
        await openMirror(other, {
          ...{ layout, scheme },
          answer(asked, answering) {
            if (other !== image) tally.count(`another image's ${asked.what}`);
            answer(asked, answering);
          },
        }),
      );
    }
    return mirrors;
  }

  test(
    "that send nothing more: the operation's own limit ends it, or the next mirror has it",
    async () => {
      const ca = await mirrorAuthority();
      await using host = await openHost();
      const disk = await host.makeDisk({ sizeBytes: 22 * mib });
      const bench = await openBench(host, disk, 20 * mib, ca);
      const image = bench.images[0]!;
      await using honest = await openMirror(image, { layout: "frames", scheme: "https" });
      let asked = 0;
      await using stalling = await openMirror(image, {
        ...{ layout: "frames", scheme: "https" },
        answer({ what }, { begin, right, serve }) {
          // The first group comes before anything is written.
          if (what === "manifest" || asked++ === 0) return serve();
          tally.count("stalled");
          return begin(right.length >> 1, "nothing");
        },
      });
      const deploy = async (sources: readonly Mirror[], limits: Command["limits"]) => {
        const before = disk.bytes();
        const command = await bench.next(image, limits);
        const offer = { ca, sources: sources.map(({ source }) => source) };
        const { result } = await runCommand(host, command, offer);
        requireTruth(bench, { command, result, image, before });
        return result;
      };
      expect(await deploy([stalling], { stallAfterSeconds: 4 })).toMatchObject({
        outcome: "timed-out",
        error: { code: "command.stalled", details: { left: { marker: true } } },
      });
      expect(await deploy([honest], { stallAfterSeconds: 60 })).toMatchObject({ outcome: "succeeded" });
    },
    timeoutMs,
  );
});

describe.skipIf(recordingLack !== undefined)("disks", () => {
  const imageBytes = 12 * mib;
  const diskBytes = 14 * mib;

  test(
    "that fail, lose and spoil: what is told is what is there",
    async () => {
      const lots = createLots(seed + 10);
      const ca = await mirrorAuthority();
      await using host = await openHost();
      const directory = join(host.directory, "recording");
      mkdirSync(directory);
      await using recording = await openRecordingDisk(directory, { sizeBytes: diskBytes });
      const { disk } = recording;
      await host.allow(disk);
      const bench = await openBench(host, disk, imageBytes, ca);
      const until = performance.now() + budgetSeconds * 1000;
      const missed: string[] = [];
      for (let turn = 0; performance.now() < until; turn++) {
        const image = bench.images[turn % 3]!;
        await using from = await openMirror(image, { layout: "frames", scheme: "https" });
        const offer = { ca, sources: [from.source] };
        const rule = ruleByLot(lots);
        const before = disk.bytes();
        const command = await bench.next(image);
        await recording.setRules(rule);
        const { result } = await runCommand(host, command, offer);
        const delivered = await recording.delivered();
        await recording.setRules();
        for (let k = 0; k < delivered; k++) tally.count(`the disk: ${rule.what} on ${rule.on}`);
        const lying = rule.what === "lose" || rule.what === "flip";
        const told = `seed ${seed}, ${JSON.stringify(rule)}: ${JSON.stringify(result.error ?? result.outcome)}`;
        requireTruth(bench, { command, result, image, before }, lying ? "lying" : "failing");
        // An error that the disk told is not passed over; that of a single reading of what lay there before may be.
        const heard = rule.on !== "read" || rule.times === 100;
        if (delivered > 0 && !lying && heard && result.outcome === "succeeded") missed.push(told);
        if (delivered === 0) expect(result.outcome, told).toBe("succeeded");
      }
      expect(missed).toEqual([]);
    },
    timeoutMs,
  );

  /** One thing that goes wrong, somewhere on the disk. */
  function ruleByLot(lots: Lots): DiskRule {
    const on = lots.pick(["write", "write", "read", "flush"] as const);
    const what =
      on === "write"
        ? lots.pick(["EIO", "ENOSPC", "lose", "flip"] as const)
        : on === "read"
          ? lots.pick(["EIO", "flip"] as const)
          : "EIO";
    const where = lots.pick(["head", "tail", "anywhere", "anywhere"] as const);
    const from =
      where === "head" ? 0 : where === "tail" ? diskBytes - mib : mib * lots.below(imageBytes / mib);
    const to = from + (where === "head" && lots.chance(0.5) ? 4096 : mib);
    return { on, what, from, to, skip: lots.below(on === "flush" ? 6 : 2), times: lots.pick([1, 1, 2, 100]) };
  }
});

describe.skipIf(lack !== undefined || !traces)("a journal", () => {
  test(
    "without room, or that fails: nothing is begun that it does not know, and it ends when there is room",
    async () => {
      const lots = createLots(seed + 20);
      const ca = await mirrorAuthority();
      await using host = await openHost();
      const disk = await host.makeDisk({ sizeBytes: 14 * mib });
      const bench = await openBench(host, disk, 12 * mib, ca);
      const until = performance.now() + (budgetSeconds / 2) * 1000;
      for (let turn = 0; performance.now() < until; turn++) {
        const image = bench.images[turn % 3]!;
        await using from = await openMirror(image, { layout: "frames", scheme: "https" });
        const offer = { ca, sources: [from.source] };
        const before = disk.bytes();
        const command = await bench.next(image);
        const request = runRequest(command, offer);
        const trace = join(host.directory, `trace-${turn}`);
        const error = lots.pick(["ENOSPC", "EIO"]);
        const call = lots.pick(["pwrite64", "fsync"]);
        const files = ["journal.db", "journal.db-wal"].flatMap((name) => [
          "-P",
          `/var/lib/bedplate/executor/${name}`,
        ]);
        const inject = `inject=${call}:error=${error}:when=${1 + lots.below(call === "pwrite64" ? 40 : 8)}+`;
        const strace = ["strace", "-f", "-qq", "-o", trace, ...files, "-e", `trace=${call}`, "-e", inject];
        const executor = host.executors.start(request, strace);
        await executor.ended;
        const delivered = readFileSync(trace, "utf8").split("(INJECTED)").length - 1;
        for (let k = 0; k < delivered; k++) tally.count(`the journal: ${error} on ${call}`);
        const [first] = journalOf(host, command).results;
        const left = disk.bytes();
        if (first === undefined) {
          expect(strangeGroups(left, image.bytes, before), `seed ${seed}`).toEqual([]);
          if (!left.equals(before)) expect(bootFindings(left)).toEqual([]);
        } else requireTruth(bench, { command, result: first, image, before });
        // As the agent does, when its executor is gone: the very same again.
        const { result } = await runCommand(host, command, offer);
        if (first !== undefined) expect(result).toEqual(first);
        requireTruth(bench, { command, result, image, before });
      }
    },
    timeoutMs,
  );
});
