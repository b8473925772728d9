// What the machine is, as far as the figures depend on it.
import { readFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { loadBlake3 } from "../assembly/load.ts";

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  /** Of the features that decide hashing speed: those the processor has. */
  readonly features: readonly string[];
  readonly kernelVariant: string;
  readonly node: string;
  readonly load: number;
}

const decisive = ["sse4_1", "avx2", "avx512f", "sha_ni", "sha2", "asimd"];

export function describeMachine(): Machine {
  const text = readFileSync("/proc/cpuinfo", "latin1");
  const flags = new Set(/^(?:flags|Features)\s*:(.*)$/m.exec(text)?.[1]?.trim().split(" "));
  return {
    processor: /^model name\s*:\s*(.*)$/m.exec(text)?.[1] ?? process.arch,
    cores: availableParallelism(),
    features: decisive.filter((name) => flags.has(name)),
    kernelVariant: loadBlake3().variant,
    node: process.version,
    load: loadavg()[0]!,
  };
}
