// `npm run bench -- [NAME…] [--check] [--update-baseline]`: runs benches, prints their tables, writes bench/results/.
import { copyFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { wasmUrl } from "../assembly/built.ts";
import { variants } from "../assembly/load.ts";
import { deploy } from "./deploy.ts";
import { files } from "./files.ts";
import { footprint } from "./footprint.ts";
import { frames } from "./frames.ts";
import { type Bench, type BenchResult, measureSuite } from "./harness.ts";
import { kernels } from "./kernels.ts";
import { link } from "./link.ts";
import { describeMachine } from "./machine.ts";
import { native } from "./native.ts";
import { redeploy } from "./redeploy.ts";
import { printMachine, printResult, writeResult } from "./report.ts";
import { telemetry } from "./telemetry.ts";

/** To add a bench: write its file, put it here. */
const benches: readonly Bench[] = [
  kernels,
  files,
  frames,
  native,
  deploy,
  redeploy,
  link,
  telemetry,
  footprint,
];

/** A floor must hold once in so many attempts: a real regression fails all, a noisy neighbour does not. */
const attemptsMax = 3;

const { values: flags, positionals: names } = parseArgs({
  allowPositionals: true,
  options: {
    check: { type: "boolean", default: false },
    "update-baseline": { type: "boolean", default: false },
  },
});

if (flags["update-baseline"]) await updateBaseline();
else process.exitCode = await runBenches(names, flags.check);

async function runBenches(names: readonly string[], check: boolean): Promise<number> {
  const chosen = (bench: Bench, name: string) => name === bench.name || name === bench.group;
  const unknown = names.filter((name) => !benches.some((bench) => chosen(bench, name)));
  if (unknown.length > 0) {
    console.error(
      `There is no bench ${unknown.join(", ")}; there are ${benches.map(({ name }) => name).join(", ")}.`,
    );
    return 2;
  }
  const machine = describeMachine();
  printMachine(machine);
  let failed = false;
  for (const bench of benches.filter(
    (bench) => names.length === 0 || names.some((name) => chosen(bench, name)),
  )) {
    const result = await runBench(bench, check ? attemptsMax : 1);
    printResult(bench.title, result);
    await writeResult(result, machine);
    failed ||= result.rows.some(({ state }) => state === "below");
  }
  return check && failed ? 1 : 0;
}

/** Measures again the rows that fail, and takes each row's best attempt. */
async function runBench(bench: Bench, attempts: number): Promise<BenchResult> {
  await using suite = await bench.prepare();
  let result = await measureSuite(bench.name, suite);
  for (let attempt = 1; attempt < attempts; attempt++) {
    const below = new Set(result.rows.filter(({ state }) => state === "below").map(({ name }) => name));
    if (below.size === 0) break;
    const again = await measureSuite(bench.name, suite, below);
    const better = new Map(again.rows.filter(({ state }) => state === "ok").map((row) => [row.name, row]));
    result = { ...result, rows: result.rows.map((row) => better.get(row.name) ?? row) };
  }
  return result;
}

/** On purpose only: from now on the modules in dist/ are what later builds are timed against. */
async function updateBaseline(): Promise<void> {
  for (const name of [...variants.map((variant) => `blake3-${variant}`), "meter"]) {
    await copyFile(wasmUrl(name), new URL(`./baseline/${name}.wasm`, import.meta.url));
  }
}
