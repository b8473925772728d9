// What the running kernel offers to telemetry and to the service.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { type Check, essentialMissing, missing, ok, reasonOf } from "./check.ts";

export function kernelChecks(): Check[] {
  return [
    readable("/proc/stat", "no telemetry"),
    probe(
      "pressure (PSI)",
      "/proc/pressure/cpu",
      "no pressure series: CONFIG_PSI, or psi=1 on the kernel's command line",
    ),
    cgroupCheck(),
    processCheck(),
    probe("SMBIOS", "/sys/class/dmi/id/product_uuid", "the machine's serial and UUID stay unknown"),
    existsSync("/run/systemd/system")
      ? ok("systemd", "runs this machine")
      : missing(
          "systemd",
          "does not run this machine",
          "no units: start agent and controller yourself; executors are children of the agent",
        ),
  ];
}

function readable(path: string, costs: string): Check {
  try {
    readFileSync(path);
    return ok(path, "readable");
  } catch (error) {
    return essentialMissing(path, reasonOf(error), costs);
  }
}

function probe(name: string, path: string, costs: string): Check {
  try {
    readFileSync(path);
    return ok(name, path);
  } catch (error) {
    return missing(name, `${path}: ${reasonOf(error)}`, costs);
  }
}

function cgroupCheck(): Check {
  const name = "cgroup v2";
  const costs = "usage by tenant or service cannot be metered there";
  for (const directory of ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]) {
    try {
      const controllers = readFileSync(`${directory}/cgroup.controllers`, "utf8").trim();
      const absent = ["cpu", "memory", "io"].filter(
        (controller) => !controllers.split(" ").includes(controller),
      );
      if (absent.length === 0) return ok(name, `${directory}: ${controllers}`);
      return missing(name, `${directory} lacks ${absent.join(", ")}`, costs);
    } catch {
      // The other place, then.
    }
  }
  return missing(name, "not mounted", costs);
}

/** With hidepid a user sees only its own processes. */
function processCheck(): Check {
  const others = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry) && entry !== String(process.pid));
  return existsSync("/proc/1/stat")
    ? ok("processes", `${others.length} others visible`)
    : missing("processes", "those of others are hidden (hidepid)", "what holds a disk cannot be named");
}
