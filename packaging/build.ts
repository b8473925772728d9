// Builds dist/: the WebAssembly modules, then one bundle for each program and worker that is started by name.
import { chmod, mkdir, readdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { buildKernels } from "../assembly/build.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const out = fileURLToPath(new URL("../dist/", import.meta.url));

/** Bundle name to source. `entryUrl` in assembly/built.ts finds each by the base name of its source. */
const entries = {
  bedplate: "cli/bedplate.ts",
  executor: "agent/executor/executor.ts",
  "image-worker": "agent/devices/image-worker.ts",
  "sampler-worker": "agent/telemetry/sampler-worker.ts",
  "hash-worker": "assembly/hash-worker.ts",
  "import-worker": "controller/images/import-worker.ts",
} as const;

// Only what locates files of its own at run time, or belongs to the controller alone, stays outside the bundles.
const external = ["piscina", "fastify", "@fastify/*", "@peculiar/x509", "bufferutil", "utf-8-validate"];

const kernelsOnly = process.argv.includes("--kernels");
await mkdir(out, { recursive: true });
await buildKernels(out);
if (!kernelsOnly) {
  // Chunks of an earlier build have other names and would stay.
  for (const name of await readdir(out)) if (/\.js(\.map)?$/.test(name)) await rm(`${out}${name}`);
  await build({
    absWorkingDir: root,
    entryPoints: entries,
    outdir: out,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node24",
    // Node has it. Lowered by esbuild, an error of one turn of a loop is thrown again by every later one: a source that
    // was given up took the next one with it.
    supported: { using: true },
    external,
    chunkNames: "chunk-[hash]",
    legalComments: "none",
    sourcemap: "linked",
    logLevel: "warning",
    banner: {
      js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
    },
  });
  await chmod(`${out}bedplate.js`, 0o755);
}
