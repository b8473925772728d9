// Builds and drives the peer of native/blake3-slice.c from the sources of Debian's librust-blake3-dev, where present.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Candidate, Skipped } from "./harness.ts";

export interface NativeBlake3 {
  readonly candidate: Candidate | Skipped;
  stop(): Promise<void>;
}

const registry = "/usr/share/cargo/registry";
const source = fileURLToPath(new URL("./native/blake3-slice.c", import.meta.url));

/** BEDPLATE_BLAKE3_C may name another folder with the C sources. */
export async function startNativeBlake3(): Promise<NativeBlake3> {
  if (process.arch !== "x64") return skip("only on x86-64");
  const sources = process.env.BEDPLATE_BLAKE3_C ?? (await installedSources());
  if (sources === undefined) return skip("librust-blake3-dev is not installed");
  const directory = await mkdtemp(join(tmpdir(), "bedplate-bench-"));
  const program = join(directory, "blake3-slice");
  const parts = [
    "blake3.c",
    "blake3_dispatch.c",
    "blake3_portable.c",
    "blake3_sse2_x86-64_unix.S",
    "blake3_sse41_x86-64_unix.S",
  ];
  const disabled = ["-DBLAKE3_NO_AVX2", "-DBLAKE3_NO_AVX512"];
  try {
    await promisify(execFile)("cc", [
      "-O3",
      ...disabled,
      `-I${sources}`,
      "-o",
      program,
      source,
      ...parts.map((part) => join(sources, part)),
    ]);
  } catch (error) {
    await rm(directory, { recursive: true });
    return skip(`the C sources do not compile here: ${(error as Error).message.split("\n")[0]}`);
  }
  const child = spawn(program, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const answers = lines[Symbol.asyncIterator]();
  const measure = async (repeat: number) => {
    child.stdin.write(`${repeat}\n`);
    const { value } = await answers.next();
    return Number(value) / 1e9;
  };
  return {
    candidate: { measure, bytes: 1 << 20 },
    async stop() {
      const exited = once(child, "exit");
      child.stdin.end();
      await exited;
      lines.close();
      await rm(directory, { recursive: true });
    },
  };
}

async function installedSources(): Promise<string | undefined> {
  const names = await readdir(registry).catch(() => []);
  const crate = names.find((name) => /^blake3-\d/.test(name));
  return crate && join(registry, crate, "c");
}

function skip(skipped: string): NativeBlake3 {
  return { candidate: { skipped }, stop: async () => {} };
}
