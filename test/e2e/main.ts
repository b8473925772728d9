// `npm run e2e [-- NAME…] [--budget SECONDS]`: what needs root or Debian packages. A suite that cannot run here says what
// it lacks. A name stands for all suites that begin with it and a hyphen, too: `contract` for `contract-faults` and others.
// One suite after the other, each in directories of its own; one that leaves anything on the machine has failed.
import { spawnSync } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { seed } from "../support/budget.ts";
import { openGrounds } from "./leftovers.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const all = globSync("test/e2e/*.e2e.ts", { cwd: root })
  .map((path) => path.replace(/^.*\/|\.e2e\.ts$/g, ""))
  .sort();
const { values: options, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: { budget: { type: "string" } },
});
const meant = (suite: string, name: string) => suite === name || suite.startsWith(`${name}-`);
const unknown = wanted.filter((name) => !all.some((suite) => meant(suite, name)));
if (unknown.length > 0) {
  console.error(`There is no end-to-end suite ${unknown.join(", ")}. There are: ${all.join(", ")}.`);
  process.exit(2);
}
if (options.budget !== undefined && !(Number(options.budget) > 0)) {
  console.error("--budget takes a number of seconds: how long each suite that draws lots goes on.");
  process.exit(2);
}
if (!existsSync(`${root}dist/bedplate.js`)) {
  console.error("dist/ is not built: run `npm run build` first.");
  process.exit(2);
}
const chosen = wanted.length === 0 ? all : all.filter((suite) => wanted.some((name) => meant(suite, name)));
/** Far beyond what any suite takes: one that hangs. */
const suiteMs = 20 * 60_000;
const logLines = 20;

const failures: string[] = [];
const began = performance.now();
for (const suite of chosen) failures.push(...(await run(suite)).map((what) => `${suite}: ${what}`));
const seconds = Math.round((performance.now() - began) / 1000);
console.log(
  failures.length === 0
    ? `\n${chosen.length} suites passed in ${seconds} s`
    : `\n${chosen.length} suites in ${seconds} s with BEDPLATE_SEED=${seed}; failed:\n  ${failures.join("\n  ")}`,
);
process.exit(failures.length === 0 ? 0 : 1);

/** What has failed of it, if anything. */
async function run(suite: string): Promise<string[]> {
  const grounds = openGrounds();
  const argv = ["run", "--config", "test/e2e/vitest.config.ts", `test/e2e/${suite}.e2e.ts`];
  const { status, signal } = spawnSync("vitest", argv, {
    ...{ cwd: root, stdio: "inherit", timeout: suiteMs, killSignal: "SIGKILL" },
    env: {
      ...process.env,
      ...grounds.environment,
      BEDPLATE_SEED: `${seed}`,
      ...(options.budget === undefined ? {} : { BEDPLATE_BUDGET_SECONDS: options.budget }),
    },
  });
  if (status !== 0) showLogs(grounds.logs);
  const left = await grounds.clear();
  return [
    ...(status === 0 ? [] : [`its tests (${signal ?? `exit code ${status}`}), see above`]),
    ...left.map((what) => `it left ${what}`),
  ];
}

/** The last lines of every program that the suite ran. */
function showLogs(directory: string): void {
  for (const path of globSync("**/*.log", { cwd: directory }).sort()) {
    const lines = readFileSync(join(directory, path), "utf8").trim().split("\n").slice(-logLines);
    console.log(`\n--- ${path}, its last lines\n${lines.join("\n")}`);
  }
}
