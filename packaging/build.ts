// Builds dist/: the WebAssembly modules, then one bundle for each program and worker that is started by name.
import { mkdir, readdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { buildKernels } from "../assembly/build.ts";
import { bundlePrograms } from "./bundle.ts";

const out = fileURLToPath(new URL("../dist/", import.meta.url));

const kernelsOnly = process.argv.includes("--kernels");
await mkdir(out, { recursive: true });
await buildKernels(out);
if (!kernelsOnly) {
  // Chunks of an earlier build have other names and would stay.
  for (const name of await readdir(out)) if (/\.js(\.map)?$/.test(name)) await rm(`${out}${name}`);
  await bundlePrograms(out, { sourcemap: true });
}
