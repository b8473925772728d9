// What an end-to-end suite has left on the machine: processes, mounts, loop devices, files in its directories, and the
// directories of an installed Bedplate. Only what is its own: others may be at work on the machine, too.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { killIfAlive, mountedUnder } from "../contract/programs.ts";
import { fastDirectory } from "../support/fast-directory.ts";

/** A suite's own directories, known by names that nothing else on the machine has. */
export interface Grounds {
  readonly environment: Readonly<Record<string, string>>;
  /** Logs of programs whose directories are gone. */
  readonly logs: string;
  /** What is left there once all has had time to end; it is then taken away. */
  clear(): Promise<readonly string[]>;
}

interface Leftover {
  readonly what: string;
  remove(): void;
}

const settleMs = 10_000;
/** No test may make them on the machine itself; but as mount points, for as long as somebody holds the lock on /run. */
const installed = ["/etc/bedplate", "/var/lib/bedplate", "/run/bedplate"] as const;

export function openGrounds(): Grounds {
  // Short: a socket's path has at most 107 characters.
  const temporary = mkdtempSync(join(tmpdir(), "e2e-"));
  const fast = mkdtempSync(join(fastDirectory, "e2e-"));
  const logs = join(temporary, "logs");
  mkdirSync(logs);
  // As /tmp itself: some suites run programs as another user.
  spawnSync("chmod", ["1777", temporary, fast]);
  const directories = [temporary, fast];
  const before = installed.filter((path) => existsSync(path));
  const look = () => [
    ...directories.flatMap((directory) => [
      ...processesOf(directory),
      ...mountsOf(directory),
      ...loopsOf(directory),
      ...filesOf(directory),
    ]),
    ...installed
      .filter((path) => !before.includes(path) && existsSync(path) && !mountPointsInUse())
      .map((path) => ({ what: `${path} on the machine itself: remove it`, remove: () => {} })),
  ];
  return {
    environment: { TMPDIR: temporary, BEDPLATE_FAST_DIRECTORY: fast, BEDPLATE_LOGS: logs },
    logs,
    async clear() {
      let left = look();
      for (const until = performance.now() + settleMs; left.length > 0 && performance.now() < until; ) {
        await sleep(200);
        left = look();
      }
      for (const { remove } of left) remove();
      for (const directory of directories) rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
      return [...new Set(left.map(({ what }) => what))];
    },
  };
}

function processesOf(directory: string): Leftover[] {
  const pids = new Set(mountedUnder(directory));
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    try {
      const told = [readFileSync(`/proc/${pid}/environ`, "latin1"), readlinkSync(`/proc/${pid}/cwd`)];
      if (told.some((text) => text.includes(basename(directory)))) pids.add(Number(pid));
    } catch {
      // It has ended, or is not ours.
    }
  return [...pids].map((pid) => ({
    what: `process ${pid}: ${commandOf(pid)}`,
    remove: () => killIfAlive(pid),
  }));
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ").trim().slice(0, 300);
  } catch {
    return "it has ended";
  }
}

function mountsOf(directory: string): Leftover[] {
  return (
    readFileSync("/proc/self/mountinfo", "utf8")
      .split("\n")
      .filter((line) => line.includes(basename(directory)))
      // proc(5): the fifth word is where.
      .map((line) => line.split(" ")[4]!)
      .reverse()
      .map((path) => ({ what: `mount ${path}`, remove: () => void spawnSync("umount", ["--lazy", path]) }))
  );
}

function loopsOf(directory: string): Leftover[] {
  return readdirSync("/sys/block")
    .filter((name) => name.startsWith("loop"))
    .flatMap((name) => {
      const file = `/sys/block/${name}/loop/backing_file`;
      const backing = existsSync(file) ? readFileSync(file, "utf8").trim() : "";
      if (!backing.includes(basename(directory))) return [];
      const remove = () => void spawnSync("losetup", ["--detach", `/dev/${name}`]);
      return [{ what: `loop device /dev/${name} over ${backing}`, remove }];
    });
}

function filesOf(directory: string): Leftover[] {
  return readdirSync(directory)
    .filter((name) => name !== "logs" && name !== "node-compile-cache")
    .map((name) => ({ what: `${directory}/${name}`, remove: () => {} }));
}

/** By another suite that has not ended, or by a process that is left itself. */
function mountPointsInUse(): boolean {
  return spawnSync("flock", ["--exclusive", "--nonblock", "/run", "true"]).status === 1;
}
