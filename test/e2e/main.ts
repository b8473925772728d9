// `npm run e2e [-- NAME…]`: what needs root or Debian packages. A suite that cannot run here says what it lacks.
import { spawnSync } from "node:child_process";
import { existsSync, globSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const all = globSync("test/e2e/*.e2e.ts", { cwd: root })
  .map((path) => path.replace(/^.*\/|\.e2e\.ts$/g, ""))
  .sort();
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  console.error(`There is no end-to-end suite ${unknown.join(", ")}. There are: ${all.join(", ")}.`);
  process.exit(2);
}
if (!existsSync(`${root}dist/bedplate.js`)) {
  console.error("dist/ is not built: run `npm run build` first.");
  process.exit(2);
}
const files = (wanted.length > 0 ? wanted : all).map((name) => `test/e2e/${name}.e2e.ts`);
const { status } = spawnSync("vitest", ["run", "--config", "test/e2e/vitest.config.ts", ...files], {
  cwd: root,
  stdio: "inherit",
});
process.exit(status ?? 1);
