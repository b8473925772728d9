// Loads kernel modules: chooses the BLAKE3 variant this V8 can run, and refuses a module that disagrees on the memory map.
import { readFileSync } from "node:fs";
import { assert, BedplateError } from "../protocol/errors.ts";
import { wasmUrl } from "./built.ts";
import { assertLayout, type Layout } from "./layout.ts";
import type { WasmModule } from "./webassembly.ts";

export type Variant = "relaxed" | "simd" | "scalar";
export const variants: readonly Variant[] = ["relaxed", "simd", "scalar"];

/** A compiled BLAKE3 module; both fields can be posted to workers. */
export interface CompiledKernel {
  readonly module: WasmModule;
  readonly variant: Variant;
}

/** The fastest variant that this V8 accepts, or the named one. Some 14 KiB and 1 ms. */
export function loadBlake3(variant?: Variant): CompiledKernel {
  for (const candidate of variant === undefined ? variants : [variant]) {
    const bytes = readModule(`blake3-${candidate}`);
    if (WebAssembly.validate(bytes)) return { module: new WebAssembly.Module(bytes), variant: candidate };
  }
  throw new BedplateError(
    "kernel.trap",
    `This V8 cannot run the BLAKE3 kernel ${variant ?? "in any variant"}.`,
  );
}

export function loadMeter(): WasmModule {
  return new WebAssembly.Module(readModule("meter"));
}

function readModule(name: string): Uint8Array {
  try {
    return readFileSync(wasmUrl(name));
  } catch (cause) {
    throw new BedplateError("file.unreadable", `The kernel module ${name}.wasm cannot be read.`, {
      hint: "Run `npm run build`.",
      cause,
    });
  }
}

/** An instance with its own memory; `Exports` are the functions of its entry in assembly/kernels. */
export function instantiate<Exports>(
  module: WasmModule,
  layout: Layout,
): { exports: Exports; memory: ArrayBuffer } {
  const { exports } = new WebAssembly.Instance(module);
  const { memory } = exports;
  assert(memory instanceof WebAssembly.Memory, "a kernel module exports its memory");
  assertLayout(layout, exports, memory.buffer);
  return { exports: exports as Exports, memory: memory.buffer };
}

/** Runs a kernel; its trap is an error like others, and the instance stays usable. */
export function guarded<T>(kernel: () => T): T {
  try {
    return kernel();
  } catch (cause) {
    if (!(cause instanceof WebAssembly.RuntimeError)) throw cause;
    throw new BedplateError("kernel.trap", `A kernel trapped: ${cause.message}.`, { cause });
  }
}

/** @throws `kernel.bad-range` unless `value` is an integer in [least, most] */
export function checkRange(
  value: number,
  { least, most, what }: { least: number; most: number; what: string },
): void {
  if (Number.isInteger(value) && value >= least && value <= most) return;
  throw new BedplateError(
    "kernel.bad-range",
    `${what} is ${value}; it must be a whole number from ${least} to ${most}.`,
  );
}
