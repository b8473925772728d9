// Prints results as tables and keeps them as JSON.
import { mkdir, writeFile } from "node:fs/promises";
import type { BenchResult, RowResult } from "./harness.ts";
import type { Machine } from "./machine.ts";

const results = new URL("./results/", import.meta.url);

export function printMachine({ processor, cores, features, kernelVariant, node, load }: Machine): void {
  console.log(
    `${processor}, ${cores} cores (${features.join(" ")}), node ${node}, BLAKE3 variant ${kernelVariant}, load ${load.toFixed(2)}`,
  );
}

export function printResult(title: string, { rows, rates }: BenchResult): void {
  console.log(`\n${title}`);
  printTable(
    rows.map((row) => [
      row.name,
      figure(row),
      bound(row),
      [row.state === "below" ? "FAILS" : row.state, ...(row.note === undefined ? [] : [row.note])].join(": "),
    ]),
  );
  const entries = Object.entries(rates);
  if (entries.length > 0)
    console.log(`  ${entries.map(([name, rate]) => `${name} ${rate.toPrecision(3)} GB/s`).join(" · ")}`);
}

function figure({ value, unit }: RowResult): string {
  return value === undefined ? "–" : `${value.toPrecision(3)} ${unit}`;
}

function bound({ unit, bound }: RowResult): string {
  if (bound === undefined) return "";
  return `${unit === "×" ? "≥" : "≤"} ${Number(bound.toPrecision(3))} ${unit}`;
}

function printTable(lines: readonly (readonly string[])[]): void {
  const widths = [0, 1, 2].map((column) => Math.max(...lines.map((line) => line[column]!.length)));
  for (const [name, value, limit, state] of lines) {
    console.log(
      `  ${name!.padEnd(widths[0]!)}  ${value!.padStart(widths[1]!)}  ${limit!.padEnd(widths[2]!)}  ${state}`,
    );
  }
}

/** Writes results/NAME.json; returns its path. */
export async function writeResult(result: BenchResult, machine: Machine): Promise<string> {
  await mkdir(results, { recursive: true });
  const url = new URL(`${result.name}.json`, results);
  await writeFile(
    url,
    `${JSON.stringify({ date: new Date().toISOString(), machine, ...result }, null, 2)}\n`,
  );
  return url.pathname;
}
