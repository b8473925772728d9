// Node, the processor, and which WebAssembly kernels this V8 can run.
import { readFileSync } from "node:fs";
import { wasmUrl } from "../../assembly/built.ts";
import { type Check, essentialMissing, missing, ok, reasonOf } from "./check.ts";

export function runtimeChecks(): Check[] {
  const major = Number(process.versions.node.split(".")[0]);
  return [
    major >= 24
      ? ok("node", process.version)
      : essentialMissing("node", process.version, "bedplate needs Node 24 or newer"),
    ["x64", "arm64"].includes(process.arch)
      ? ok("architecture", process.arch)
      : missing("architecture", process.arch, "not tested; Node must be brought by yourself"),
    ...kernels(),
  ];
}

const meaning = {
  relaxed: "hashing at about 0.8 of the full speed",
  simd: "hashing at a quarter of the full speed, by the scalar kernel",
} as const;

function kernels(): Check[] {
  const found = (["relaxed", "simd", "scalar"] as const).map((variant) => ({
    variant,
    state: validate(`blake3-${variant}`),
  }));
  const scalar = found.at(-1)!;
  return found.map(({ variant, state }) => {
    const name = `wasm ${variant}`;
    if (state === "ok") return ok(name, "this V8 runs it");
    if (variant === "scalar")
      return essentialMissing(name, state, "no kernel: neither hashing nor telemetry");
    return scalar.state === "ok"
      ? missing(name, state, meaning[variant])
      : missing(name, state, "run `npm run build`");
  });
}

function validate(name: string): string {
  try {
    return WebAssembly.validate(readFileSync(wasmUrl(name))) ? "ok" : "this V8 does not run it";
  } catch (error) {
    return `${name}.wasm: ${reasonOf(error)}`;
  }
}
