// The running kernel: its release, how it was started, what it has loaded, and whether it is what its maker built.
import type { Kernel } from "../../../protocol/inventory-machine.ts";
import { cleanLine } from "../facts.ts";
import { redactCommandLine } from "./redact.ts";
import { countOf, lineOf, type Source } from "./source.ts";

const lineMax = 4096;

export const kernel: Source<Kernel> = {
  sources: [
    "/proc/sys/kernel/{osrelease,version,tainted}",
    "/proc/{cmdline,modules}",
    "/sys/kernel/security/lockdown",
    "/sys/class/iommu",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
  ],
  collect({ facts }) {
    const commandLine = facts.text("/proc/cmdline");
    const modules = facts.optionalText("/proc/modules");
    const taint = countOf(facts, "/proc/sys/kernel/tainted");
    return {
      release: lineOf(facts, "/proc/sys/kernel/osrelease"),
      version: lineOf(facts, "/proc/sys/kernel/version"),
      commandLine: commandLine === null ? null : cleanLine(redactCommandLine(commandLine), lineMax),
      modules: modules === null ? null : modules.split("\n").filter((line) => line !== "").length,
      taint,
      taints: taint === null ? [] : taintsOf(taint),
      lockdown: /\[(\w+)\]/.exec(facts.optionalText("/sys/kernel/security/lockdown") ?? "")?.[1] ?? null,
      iommus: facts
        .list("/sys/class/iommu")
        .slice(0, 64)
        .map((name) => cleanLine(name, 64)),
      clocksource: lineOf(facts, "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    };
  },
  absent: {
    release: null,
    version: null,
    commandLine: null,
    modules: null,
    taint: null,
    taints: [],
    lockdown: null,
    iommus: [],
    clocksource: null,
  },
};

/** Documentation/admin-guide/tainted-kernels.rst, in the order of the bits. */
const taintNames = [
  "proprietary module",
  "module forced to load",
  "out of specification system",
  "module forced to unload",
  "machine check exception",
  "bad page",
  "taint requested by user",
  "kernel died recently",
  "ACPI table overridden",
  "warning issued",
  "staging driver",
  "firmware workaround",
  "externally built module",
  "unsigned module",
  "soft lockup",
  "live patched",
  "auxiliary taint",
  "randomised structures",
  "in-kernel test",
] as const;

export function taintsOf(taint: number): string[] {
  return taintNames.filter((_, bit) => Math.floor(taint / 2 ** bit) % 2 === 1);
}
