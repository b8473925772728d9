// The kernels in memory, one thread, processor time: BLAKE3 of 1 MiB and the meter against peers and the committed baseline.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { blake3 as nobleBlake3 } from "@noble/hashes/blake3.js";
import { createBLAKE3 } from "hash-wasm";
import { wasmUrl } from "../assembly/built.ts";
import { groupKernelOf } from "../assembly/group-kernel.ts";
import { loadBlake3, variants } from "../assembly/load.ts";
import { groupBytes } from "../assembly/memory-map.ts";
import { type Bench, type Candidate, cpuTimed, median, type Skipped } from "./harness.ts";
import { startNativeBlake3 } from "./native-blake3.ts";

const bytes = groupBytes;

export const kernels: Bench = {
  name: "memory",
  group: "kernels",
  title: "Kernels in memory, 1 MiB, one thread, processor time",
  async prepare() {
    const { variant } = loadBlake3();
    const current = await Promise.all(
      variants.map(async (name) => [`ours ${name}`, await blake3Candidate(wasmUrl(`blake3-${name}`))]),
    );
    const input = groupKernelOf(loadBlake3()).windows[0]!;
    fillWindow(input);
    const hashWasm = await createBLAKE3();
    const native = await startNativeBlake3();
    return {
      rounds: 21,
      sliceSeconds: 0.006,
      candidates: {
        ...(Object.fromEntries(current) as Record<string, Candidate>),
        baseline: await blake3Candidate(new URL(`./baseline/blake3-${variant}.wasm`, import.meta.url)),
        "hash-wasm": cpuTimed(() => hashWasm.init().update(input).digest("binary"), bytes),
        "@noble/hashes": cpuTimed(() => nobleBlake3(input), bytes),
        "node sha256": cpuTimed(() => createHash("sha256").update(input).digest(), bytes),
        "C sse4.1": native.candidate,
        meter: await meterCandidate(wasmUrl("meter")),
        "meter baseline": await meterCandidate(new URL("./baseline/meter.wasm", import.meta.url)),
      },
      rows: [
        {
          name: "BLAKE3 against the baseline build",
          subject: `ours ${variant}`,
          peer: "baseline",
          floor: 0.92,
        },
        {
          name: "BLAKE3 against hash-wasm",
          subject: `ours ${variant}`,
          peer: "hash-wasm",
          floor: 2.5,
          // hash-wasm is scalar code: 0.29 of the SSE4.1 assembly on Xeon, 0.45 on EPYC with its four or more integer ports.
          atMost: { ratio: 1.05, than: "C sse4.1" },
        },
        {
          name: "BLAKE3 against @noble/hashes",
          subject: `ours ${variant}`,
          peer: "@noble/hashes",
          floor: 20,
        },
        {
          name: "BLAKE3 against node:crypto sha256",
          subject: `ours ${variant}`,
          peer: "node sha256",
          floor: 0.9,
        },
        {
          name: "BLAKE3 against the official SSE4.1 assembly",
          subject: `ours ${variant}`,
          peer: "C sse4.1",
          floor: 0.9,
        },
        { name: "relaxed against plain SIMD", subject: "ours relaxed", peer: "ours simd", floor: 0.95 },
        { name: "plain SIMD against scalar", subject: "ours simd", peer: "ours scalar", floor: 1.2 },
        {
          name: "meter scan against the baseline build",
          subject: "meter",
          peer: "meter baseline",
          floor: 0.92,
        },
        { name: "first verified MiB after load", unit: "ms", measure: firstGroupMs, most: 15 },
        {
          name: "largest BLAKE3 module",
          unit: "KiB",
          measure: async () => Math.max(...(await moduleKiB()).slice(0, 3)),
          most: 24,
        },
        {
          name: "all modules",
          unit: "KiB",
          measure: async () => (await moduleKiB()).reduce((sum, size) => sum + size),
          most: 96,
        },
      ],
      async [Symbol.asyncDispose]() {
        await native.stop();
      },
    };
  },
};

/** By the module's own exported addresses, so that a baseline with another memory map can be measured. */
async function blake3Candidate(url: URL): Promise<Candidate | Skipped> {
  const instance = await instanceOf(url);
  if ("skipped" in instance) return instance;
  const { chainingValue, memory, windowsOffset } = instance.exports as unknown as {
    chainingValue(input: number, length: number, counter: bigint, root: number): void;
    memory: WebAssembly.Memory;
    windowsOffset: WebAssembly.Global;
  };
  fillWindow(new Uint8Array(memory.buffer, windowsOffset.value, groupBytes));
  return cpuTimed(() => chainingValue(windowsOffset.value, groupBytes, 0n, 0), bytes);
}

async function meterCandidate(url: URL): Promise<Candidate | Skipped> {
  const instance = await instanceOf(url);
  if ("skipped" in instance) return instance;
  const { scan, memory, inputOffset } = instance.exports as unknown as {
    scan(length: number): number;
    memory: WebAssembly.Memory;
    inputOffset: WebAssembly.Global;
  };
  const lines = Array.from(
    { length: 500 },
    (_, k) => `cpu${k} ${k * 7919} 0 ${k ** 4} avg10=${k}.25 total=${k * 1e9}\n`,
  );
  const text = Buffer.from(lines.join(""));
  new Uint8Array(memory.buffer, inputOffset.value).set(text);
  return cpuTimed(() => scan(text.length), text.length);
}

async function instanceOf(url: URL): Promise<WebAssembly.Instance | Skipped> {
  let module: Uint8Array;
  try {
    module = await readFile(url);
  } catch {
    return { skipped: `${url.pathname.split("/").at(-1)} is absent` };
  }
  if (!WebAssembly.validate(module)) return { skipped: "this V8 cannot run it" };
  return new WebAssembly.Instance(new WebAssembly.Module(module));
}

function fillWindow(window: Uint8Array): void {
  for (let k = 0; k < window.length; k++) window[k] = (k * 2654435761) >>> 13;
}

/** Median of five cold processes. */
async function firstGroupMs(): Promise<number> {
  const program = fileURLToPath(new URL("./first-group.ts", import.meta.url));
  const times: number[] = [];
  for (let k = 0; k < 5; k++) {
    const { stdout } = await promisify(execFile)(process.execPath, [program]);
    times.push((JSON.parse(stdout) as { firstGroupMs: number }).firstGroupMs);
  }
  return median(times);
}

async function moduleKiB(): Promise<number[]> {
  const names = [...variants.map((name) => `blake3-${name}`), "meter"];
  return Promise.all(names.map(async (name) => (await stat(wasmUrl(name))).size / 1024));
}
