// The hot path's public side: hashing and metering in WebAssembly, for agent, controller and cli.
export { coresAllowed } from "./cores.ts";
export {
  compileKernel,
  createGroupKernel,
  type GroupKernel,
  type GroupOptions,
  type GroupPass,
  groupKernelOf,
  type PassOptions,
  zeroBlockCount,
} from "./group-kernel.ts";
export {
  createFileHasher,
  type FileDigest,
  type FileHasher,
  type HashAlgorithm,
  type HasherOptions,
  hashFile,
  hashStream,
} from "./hash-file.ts";
export type { CompiledKernel, Variant } from "./load.ts";
export { digestBytes, groupBytes, zeroBlockBytes } from "./memory-map.ts";
export { createMeter, type Deltas, type Meter, type Scan } from "./meter.ts";
export { createStreamHasher, mergeGroups, mergeOf, type StreamHasher, streamHasherOf } from "./tree.ts";
export { createTurns, type Turns } from "./turns.ts";
export type { WasmModule } from "./webassembly.ts";
