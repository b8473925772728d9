// Where WebAssembly does not win: what each kernel would give against the native call that is used instead. No floors.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { createCRC32, createSHA256 } from "hash-wasm";
import { createGroupKernel, createMeter, groupBytes } from "../assembly/index.ts";
import { meterSeriesMax } from "../assembly/memory-map.ts";
import { type Bench, cpuTimed } from "./harness.ts";

const bytes = groupBytes;

export const native: Bench = {
  name: "native",
  group: "kernels",
  title: "Where WebAssembly does not win: WASM against the native call, 1 MiB, processor time",
  async prepare() {
    const kernel = await createGroupKernel();
    const [a, b] = kernel.windows.map((window) => Buffer.from(window.buffer, window.byteOffset, bytes)) as [
      Buffer,
      Buffer,
    ];
    const zeroes = Buffer.alloc(bytes);
    const random = Buffer.from(zeroes.map((_, k) => (k * 2654435761) >>> 13));
    const [wasmSha256, wasmCrc32] = await Promise.all([createSHA256(), createCRC32()]);
    return {
      rounds: 15,
      sliceSeconds: 0.006,
      candidates: {
        "SHA-256 in WASM (hash-wasm)": cpuTimed(
          () => wasmSha256.init().update(random).digest("binary"),
          bytes,
        ),
        "node:crypto sha256": cpuTimed(() => createHash("sha256").update(random).digest(), bytes),
        "CRC-32 in WASM (hash-wasm)": cpuTimed(() => wasmCrc32.init().update(random).digest(), bytes),
        "node:zlib crc32": cpuTimed(() => crc32(random), bytes),
        "equality in WASM (ours)": cpuTimed(() => kernel.equal(0, 1, bytes), bytes),
        "Buffer.equals": cpuTimed(() => a.equals(b), bytes),
        "zero test in WASM (ours)": cpuTimed(() => kernel.isZero(0, bytes), bytes),
        "Buffer.equals with zeroes": cpuTimed(() => a.equals(zeroes), bytes),
        ...(await deltaCandidates()),
      },
      rows: [
        { name: "SHA-256", subject: "SHA-256 in WASM (hash-wasm)", peer: "node:crypto sha256" },
        { name: "CRC-32", subject: "CRC-32 in WASM (hash-wasm)", peer: "node:zlib crc32" },
        { name: "equality", subject: "equality in WASM (ours)", peer: "Buffer.equals" },
        { name: "test for zero", subject: "zero test in WASM (ours)", peer: "Buffer.equals with zeroes" },
        {
          name: "deltas of values that JavaScript stores one by one",
          subject: "deltas in WASM, values stored by JavaScript",
          peer: "deltas in JavaScript",
        },
      ],
      async [Symbol.asyncDispose]() {},
    };
  },
};

/** Counters that a program has as numbers: put into WASM memory as halves of u64, or kept in a Float64Array. */
async function deltaCandidates() {
  const meter = await createMeter();
  const halves = new Uint32Array(meter.values.buffer, meter.values.byteOffset, 2 * meterSeriesMax);
  const [current, previous, deltas] = [0, 0, 0].map(() => new Float64Array(meterSeriesMax)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  let tick = 0;
  const counterAt = (k: number) => k * 7919 * 2 ** 20 + tick * (k & 15);
  const count = 8 * meterSeriesMax;
  return {
    "deltas in WASM, values stored by JavaScript": cpuTimed(() => {
      tick++;
      for (let k = 0; k < meterSeriesMax; k++) {
        const value = counterAt(k);
        halves[2 * k] = value;
        halves[2 * k + 1] = value / 2 ** 32;
      }
      meter.deltas(meterSeriesMax, { first: false });
    }, count),
    "deltas in JavaScript": cpuTimed(() => {
      tick++;
      for (let k = 0; k < meterSeriesMax; k++) {
        const value = counterAt(k);
        current[k] = value;
        deltas[k] = value >= previous[k]! ? value - previous[k]! : 0;
        previous[k] = value;
      }
    }, count),
  };
}
