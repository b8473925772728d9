// `npm run e2e [-- NAME…] [--budget SECONDS]`: what needs root or Debian packages. A suite that cannot run here says what
// it lacks. A name stands for all suites that begin with it and a hyphen, too: `contract` for `contract-faults` and others.
import { spawnSync } from "node:child_process";
import { existsSync, globSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

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
const files = chosen.map((name) => `test/e2e/${name}.e2e.ts`);
const { status } = spawnSync("vitest", ["run", "--config", "test/e2e/vitest.config.ts", ...files], {
  cwd: root,
  stdio: "inherit",
  env: {
    ...process.env,
    ...(options.budget === undefined ? {} : { BEDPLATE_BUDGET_SECONDS: options.budget }),
  },
});
process.exit(status ?? 1);
