// How many cores this process may use: by its affinity and by the CPU quota of its control groups.
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/** A file's text, undefined where it does not exist or cannot be read. */
export type ReadText = (path: string) => string | undefined;

/**
 * Affinity and the tightest quota, whole cores, at least 1. A quota of one and a half cores is one: a second thread would
 * get the whole group throttled, the thread that keeps the control channel included.
 */
export function coresAllowed(read: ReadText = readText, affinity: number = availableParallelism()): number {
  const quotas = controllersOf(read("/proc/self/cgroup") ?? "").flatMap(({ files, parse }) =>
    files.map((paths) => parse(...paths.map((path) => read(path) ?? ""))),
  );
  const cores = Math.min(affinity, ...quotas.filter((quota) => quota !== undefined));
  return Math.max(1, Math.floor(cores));
}

interface Controller {
  /** For each group from the process's own up to the root: the files that say its quota. */
  readonly files: readonly (readonly string[])[];
  readonly parse: (...texts: string[]) => number | undefined;
}

/**
 * The CPU controllers of a /proc/self/cgroup (cgroups(7)): `0::/path` for version 2, `N:cpu,cpuacct:/path` for version 1. In
 * a container the path may be one of the host's that does not exist here: the root then is the container's own group.
 */
function controllersOf(text: string): Controller[] {
  return text.split("\n").flatMap((line) => {
    const [, names, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined) return [];
    const groups = ancestorsOf(path);
    if (names === "") {
      const files = groups.map((group) => [`/sys/fs/cgroup${group}/cpu.max`]);
      return [{ files, parse: (max = "") => coresOfMax(max) }];
    }
    if (!names.split(",").includes("cpu")) return [];
    const files = [...new Set([names, "cpu"])].flatMap((mount) =>
      groups.map((group) =>
        ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map((name) => `/sys/fs/cgroup/${mount}${group}/${name}`),
      ),
    );
    return [{ files, parse: (quota = "", period = "") => coresOfQuota(quota, period) }];
  });
}

/** "/a/b" gives "/a/b", "/a" and "". */
function ancestorsOf(path: string): string[] {
  const parts = path.split("/").filter((part) => part !== "");
  return Array.from({ length: parts.length + 1 }, (_, k) =>
    parts
      .slice(0, parts.length - k)
      .map((part) => `/${part}`)
      .join(""),
  );
}

/** Cores of a version 2 cpu.max, "max 100000" or "150000 100000"; undefined for no limit or no such text. */
export function coresOfMax(text: string): number | undefined {
  const [quota = "", period = ""] = text.trim().split(/\s+/);
  return coresOfQuota(quota, period);
}

/** Cores of version 1's cpu.cfs_quota_us (-1: no limit) and cpu.cfs_period_us. */
export function coresOfQuota(quota: string, period: string): number | undefined {
  const [numerator, denominator] = [quota, period].map((text) => {
    const digits = text.trim();
    return /^\d{1,15}$/.test(digits) ? Number(digits) : 0;
  }) as [number, number];
  return numerator > 0 && denominator > 0 ? numerator / denominator : undefined;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined;
  }
}
