// Bundles the programs and the workers that are started by name, each as one file with the chunks that they share.
import { chmod } from "node:fs/promises";
import { isBuiltin } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "esbuild";

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

/**
 * Node's own modules without the face that `import` gives them: for that, node reads all that they export, and so loads
 * what nobody asked for, undici for http, the web's cryptography for crypto. 15 ms and 6 MB of an executor.
 */
const builtinsAsTheyAre: Plugin = {
  name: "builtins as they are",
  setup({ onResolve, onLoad }) {
    // What is imported by a call gets all that the module exports by name, which only node itself can give.
    onResolve({ filter: /^[a-z_:/]+$/ }, ({ path, kind }) =>
      isBuiltin(path) && kind !== "dynamic-import" ? { path, namespace: "builtin" } : undefined,
    );
    onLoad({ filter: /./, namespace: "builtin" }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
    }));
  },
};

/** Into a directory that exists, beside the WebAssembly modules and below this package's node_modules or beside it. */
export async function bundlePrograms(directory: string, { sourcemap }: { readonly sourcemap: boolean }) {
  await build({
    absWorkingDir: fileURLToPath(new URL("..", import.meta.url)),
    entryPoints: entries,
    outdir: directory,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node24",
    // Node has it. Lowered by esbuild, an error of one turn of a loop is thrown again by every later one: a source that
    // was given up took the next one with it.
    supported: { using: true },
    external,
    plugins: [builtinsAsTheyAre],
    chunkNames: "chunk-[hash]",
    legalComments: "none",
    sourcemap: sourcemap ? "linked" : false,
    logLevel: "warning",
    banner: {
      js: 'const require = process.getBuiltinModule("node:module").createRequire(import.meta.url);',
    },
  });
  await chmod(join(directory, "bedplate.js"), 0o755);
}
