// Compiles assembly/kernels to WebAssembly modules; one whose inputs did not change is taken from the cache.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { histogramBoundsSource } from "./histogram-sources.ts";
import { blake3CompressSource } from "./kernel-sources.ts";
import { blake3Pages, meterPages, staticOffset } from "./memory-map.ts";

const here = fileURLToPath(new URL("./", import.meta.url));
const compiler = fileURLToPath(new URL("../node_modules/assemblyscript/", import.meta.url));
// Outside dist/, which the build removes first.
const cache = fileURLToPath(new URL("../node_modules/.cache/bedplate/", import.meta.url));

interface KernelModule {
  readonly name: string;
  readonly source: string;
  readonly pages: number;
  readonly features: readonly string[];
}

const modules: readonly KernelModule[] = [
  {
    name: "blake3-relaxed",
    source: "kernels/blake3.ts",
    pages: blake3Pages,
    features: ["simd", "relaxed-simd"],
  },
  { name: "blake3-simd", source: "kernels/blake3.ts", pages: blake3Pages, features: ["simd"] },
  { name: "blake3-scalar", source: "kernels/blake3.ts", pages: blake3Pages, features: [] },
  { name: "meter", source: "kernels/meter.ts", pages: meterPages, features: [] },
];

/** Puts every module of assembly/kernels into `outDir` as `<name>.wasm`. */
export async function buildKernels(outDir: string): Promise<void> {
  await mkdir(outDir, { recursive: true });
  await mkdir(cache, { recursive: true });
  await mkdir(`${here}kernels/generated`, { recursive: true });
  await replaceFile(`${here}kernels/generated/blake3-compress.ts`, blake3CompressSource());
  await replaceFile(`${here}kernels/generated/histogram-bounds.ts`, histogramBoundsSource());
  const inputs = await hashInputs();
  // One compiler process each: asc keeps one core busy for some seconds, and there are few modules.
  await Promise.all(modules.map((module) => buildModule(module, inputs, outDir)));
}

async function buildModule(module: KernelModule, inputs: string, outDir: string): Promise<void> {
  const flags = flagsOf(module);
  const key = createHash("sha256").update(inputs).update(JSON.stringify(flags)).digest("hex").slice(0, 24);
  const cached = `${cache}${module.name}-${key}.wasm`;
  const names = await readdir(cache);
  if (!names.includes(`${module.name}-${key}.wasm`)) {
    const temporary = `${cache}${module.name}-${process.pid}.tmp.wasm`;
    await compile([`${here}${module.source}`, "--outFile", temporary, ...flags]);
    await rename(temporary, cached);
    const old = names.filter((name) => name.startsWith(`${module.name}-`) && !name.includes(".tmp"));
    await Promise.all(old.map((name) => rm(`${cache}${name}`, { force: true })));
  }
  const target = `${outDir}/${module.name}.wasm`;
  await copyFile(cached, `${target}.${process.pid}.tmp`);
  await rename(`${target}.${process.pid}.tmp`, target);
}

function flagsOf({ pages, features }: KernelModule): string[] {
  const flags = ["-O3", "--noAssert", "--runtime", "stub", "--uncheckedBehavior", "always"];
  flags.push("--initialMemory", `${pages}`, "--maximumMemory", `${pages}`, "--memoryBase", `${staticOffset}`);
  // An abort hook would be an import: kernels trap instead.
  flags.push("--use", "abort=");
  for (const feature of features) flags.push("--enable", feature);
  return flags;
}

async function compile(args: string[]): Promise<void> {
  try {
    await promisify(execFile)(process.execPath, [`${compiler}bin/asc.js`, ...args], { cwd: here });
  } catch (cause) {
    const { stderr } = cause as { stderr?: string };
    throw new Error(`asc refused ${args[0]}:\n${stderr ?? ""}`, { cause });
  }
}

/** Digest of everything a module depends on except its flags. */
async function hashInputs(): Promise<string> {
  const hash = createHash("sha256");
  const sources = (await readdir(`${here}kernels`, { recursive: true }))
    .filter((name) => name.endsWith(".ts"))
    .sort();
  for (const path of [
    `${here}memory-map.ts`,
    ...sources.map((name) => `${here}kernels/${name}`),
    `${compiler}package.json`,
  ]) {
    const text = await readFile(path);
    hash.update(`${path.startsWith(here) ? path.slice(here.length) : "asc"}\0${text.length}\0`).update(text);
  }
  return hash.digest("hex");
}

/** Never half-written: another build may be reading it. */
async function replaceFile(path: string, text: string): Promise<void> {
  await writeFile(`${path}.${process.pid}.tmp`, text);
  await rename(`${path}.${process.pid}.tmp`, path);
}
