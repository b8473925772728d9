// The programs that tests start: bundled from these very sources, as packaging bundles them, once for all tests. They start
// in a fifth of the processor time that the sources take, whose types are stripped anew in each process.
import { createHash } from "node:crypto";
import { existsSync, globSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
export const programSources = {
  bedplate: join(root, "cli/bedplate.ts"),
  executor: join(root, "agent/executor/executor.ts"),
} as const;

/** Where bundles of all states of the sources lie. Below node_modules: what stays outside of them is found from there. */
export const bundlesDirectory = join(root, "node_modules/.cache/bedplate-test");

/** Of the sources as they are now. */
export function bundleDirectory(): string {
  const hash = createHash("sha256");
  const patterns = ["protocol", "assembly", "agent", "controller", "cli", "packaging"].map(
    (part) => `${part}/**/*.ts`,
  );
  for (const path of globSync([...patterns, "dist/*.wasm", "package-lock.json"], { cwd: root }).sort()) {
    const { size, mtimeMs } = statSync(join(root, path));
    hash.update(`${path}\0${size}\0${mtimeMs}\n`);
  }
  return join(bundlesDirectory, hash.digest("hex").slice(0, 24));
}

let directory: string | undefined;

/** The bundle, or where the sources were changed since the tests began, the sources. */
export function programPath(name: keyof typeof programSources): string {
  directory ??= bundleDirectory();
  const path = join(directory, `${name}.js`);
  return existsSync(path) ? path : programSources[name];
}
