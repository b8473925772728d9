// Before any test runs: bundles the programs that tests start, unless that was done for these very sources already.
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundlePrograms } from "../../packaging/bundle.ts";
import { bundleDirectory, bundlesDirectory } from "./programs.ts";

const kept = 20;
const dist = fileURLToPath(new URL("../../dist", import.meta.url));

export default async function setup(): Promise<void> {
  const target = bundleDirectory();
  if (existsSync(target)) return;
  await mkdir(bundlesDirectory, { recursive: true });
  const made = await mkdtemp(join(bundlesDirectory, "new-"));
  for (const name of await readdir(dist))
    if (name.endsWith(".wasm")) await copyFile(join(dist, name), join(made, name));
  await bundlePrograms(made, { sourcemap: false });
  // Another run of the tests may have been faster.
  await rename(made, target).catch(() => rm(made, { recursive: true, force: true }));
  await removeOld();
}

async function removeOld(): Promise<void> {
  const found: { readonly path: string; readonly at: number }[] = [];
  for (const name of await readdir(bundlesDirectory)) {
    const path = join(bundlesDirectory, name);
    const at = await stat(path).then(
      ({ mtimeMs }) => mtimeMs,
      () => undefined,
    );
    if (at !== undefined) found.push({ path, at });
  }
  found.sort((a, b) => b.at - a.at);
  for (const { path } of found.slice(kept)) await rm(path, { recursive: true, force: true });
}
