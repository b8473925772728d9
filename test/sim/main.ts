// npm run sim: runs seeds of the simulated world, or one of them with its history, or shows that deliberate bugs are found.
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { type BugName, bugs } from "./bugs.ts";
import { type Finding, promises } from "./checker.ts";
import { render, short } from "./history.ts";
import { type Plan, planOf } from "./plan.ts";
import { type Broken, rulesOf, runSeeds, type Tally } from "./seeds.ts";
import { shrink } from "./shrink.ts";
import { simulate } from "./simulate.ts";
import type { Job } from "./worker.ts";

const usage = `npm run sim -- [--seed N [--all] | --seeds A..B] [--budget SECONDS] [--bug NAME | --bugs] [--workers N]

  --seed N      one seed: its history, the same each time; of a broken promise the part that matters, made small
  --all         the whole history
  --seeds A..B  all of these; 1..2000 if nothing is said
  --budget S    as many as go in so many seconds, from A on
  --bug NAME    with a deliberate bug: ${Object.keys(bugs).join(", ")}
  --bugs        how many seeds each deliberate bug takes to be found
  --workers N   threads, at most 2`;

const shrinkRunsMax = 400;
const chunk = 25;
const shownMax = 10;

process.exitCode = await main();

async function main(): Promise<number> {
  const number = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  const { values } = parseArgs({
    options: {
      ...{ seed: number, seeds: number, budget: number, bug: number, workers: number },
      ...{ all: flag, bugs: flag, help: flag },
    },
  });
  const bug = values.bug as BugName | undefined;
  const [from, to] = (values.seeds ?? (values.budget === undefined ? "1..2000" : "1..1000000000"))
    .split("..")
    .map(Number);
  const wrong = bug !== undefined && !Object.hasOwn(bugs, bug);
  if (values.help || wrong || from === undefined || !(from <= (to ?? from))) {
    process.stdout.write(`${usage}\n`);
    return values.help ? 0 : 2;
  }
  if (values.bugs) return showBugs(Number(values.budget ?? 60));
  if (values.seed !== undefined) return showSeed(Number(values.seed), bug, values.all ?? false);
  const workers = Math.min(2, availableParallelism(), Number(values.workers ?? 2));
  return runMany({ from, to: to ?? from, bug }, workers, Number(values.budget ?? Number.POSITIVE_INFINITY));
}

function showSeed(seed: number, bug: BugName | undefined, all: boolean): number {
  const run = simulate(planOf(seed), rulesOf(bug), true);
  const commands = new Set(all ? [] : run.findings.flatMap(({ commands }) => commands));
  if (run.findings.length === 0 || all) process.stdout.write(`${render(run.history, commands)}\n`);
  if (run.findings.length === 0) {
    const minutes = (run.endedAt / 60_000).toFixed(0);
    process.stdout.write(
      `\nSeed ${seed}: all promises hold; ${run.happened} events in ${minutes} simulated minutes.\n`,
    );
    return 0;
  }
  explain({ ...run.findings[0]!, seed }, bug);
  return 1;
}

/** Prints a finding with the shortest history that shows it. */
function explain({ seed, ...finding }: Broken, bug: BugName | undefined): void {
  const plan = planOf(seed);
  const small = shrink(plan, rulesOf(bug), finding.promise, shrinkRunsMax);
  const findings = small.run.findings.filter(({ promise }) => promise === finding.promise);
  const shown = findings[0] ?? finding;
  const lines = [
    ``,
    `Seed ${seed} breaks a promise: ${sentence(finding)}`,
    `  ${shown.what}${shown.commands.length === 0 ? "" : ` [${shown.commands.map(short).join(", ")}]`}`,
    `Left of the plan: ${countOf(small.plan)}, of ${countOf(plan)}.`,
    render(small.run.history, new Set(findings.flatMap(({ commands }) => commands))),
    `Again: npm run sim -- --seed ${seed}${bug === undefined ? "" : ` --bug ${bug}`}`,
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

function sentence({ promise, what }: Finding): string {
  return promise === "no-assertion-fails" ? what : promises[promise];
}

function countOf({ commands, faults }: Plan): string {
  return `${commands.length} commands, ${faults.length} faults`;
}

async function runMany(range: Job, workers: number, budgetSeconds: number): Promise<number> {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const total = { seeds: 0, happened: 0, broken: [] as Broken[] };
  let next = range.from;
  await Promise.all(
    Array.from({ length: workers }, async () => {
      const worker = new Worker(new URL("./worker.ts", import.meta.url));
      try {
        while (next <= range.to && seconds() < budgetSeconds && total.broken.length < shownMax) {
          const job: Job = { ...range, from: next, to: Math.min(range.to, next + chunk - 1) };
          next = job.to + 1;
          const tally = await ask(worker, job);
          total.seeds += tally.seeds;
          total.happened += tally.happened;
          total.broken.push(...tally.broken);
        }
      } finally {
        await worker.terminate();
      }
    }),
  );
  const broken = total.broken.sort((a, b) => a.seed - b.seed);
  for (const each of broken.slice(0, 1)) explain(each, range.bug);
  for (const each of broken.slice(1, shownMax))
    process.stdout.write(`Seed ${each.seed} too: ${each.promise}, ${each.what}\n`);
  process.stdout.write(
    `${total.seeds} seeds from ${range.from} on, ${broken.length} broke a promise; ${total.happened} events in ${seconds().toFixed(1)} s.\n`,
  );
  return broken.length === 0 ? 0 : 1;
}

function ask(worker: Worker, job: Job): Promise<Tally> {
  return new Promise((resolve, reject) => {
    worker.once("error", reject);
    worker.once("message", (tally: Tally) => {
      worker.off("error", reject);
      resolve(tally);
    });
    worker.postMessage(job);
  });
}

/** For each deliberate bug, the first seed that finds it. */
function showBugs(budgetSeconds: number): number {
  let missed = 0;
  for (const name of Object.keys(bugs) as BugName[]) {
    const started = performance.now();
    const late = () => performance.now() - started > budgetSeconds * 1000;
    const { seeds, broken } = runSeeds(
      { from: 1, to: Number.MAX_SAFE_INTEGER, bug: name },
      (tally) => tally.broken.length === 0 && !late(),
    );
    const [found] = broken;
    if (found === undefined) missed += 1;
    const verdict = found === undefined ? `not found in ${seeds} seeds` : `${seeds} seeds: ${found.promise}`;
    process.stdout.write(`${name.padEnd(30)} ${verdict}\n${" ".repeat(31)}${bugs[name].what}\n`);
  }
  return missed === 0 ? 0 : 1;
}
