// Loop devices that a deploy is tried on, full of another system's bytes, every group of which can be told from any other.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { makeBootable, type SectorBytes } from "./boot-findings.ts";

export interface LoopDisk extends Disposable {
  /** /dev/loopN */
  readonly path: string;
  readonly backing: string;
  readonly sizeBytes: number;
  readonly sectorBytes: SectorBytes;
  /** What it held when it was made. */
  readonly old: Buffer;
  /** What lies on it now. */
  bytes(): Buffer;
  /** Kernel requests that are under way. */
  inFlight(): number;
}

export interface LoopOptions {
  readonly backing: string;
  readonly sizeBytes: number;
  readonly sectorBytes?: SectorBytes;
  /** Default: {@link oldSystem}. */
  readonly content?: Buffer;
}

/** Why there are none here, or undefined. */
export function lackForLoops(): string | undefined {
  if (process.geteuid?.() !== 0) return "loop devices need root";
  if (!existsSync("/dev/loop-control")) return "there are no loop devices here";
  if (spawnSync("losetup", ["--version"]).status !== 0) return "losetup of util-linux is not here";
  return undefined;
}

/** Bytes that repeat nowhere, and a partition table with boot code and backup. */
export function oldSystem(sizeBytes: number, sectorBytes: SectorBytes = 512, name = "old system"): Buffer {
  const bytes = distinctBytes(sizeBytes, name);
  // Below that there is no room for a table at either end.
  if (sizeBytes >= 256 * sectorBytes) makeBootable(bytes, sectorBytes, name);
  return bytes;
}

/** The same for the same name: each 4 KiB begins with a digest of its own, and so does each group. */
export function distinctBytes(sizeBytes: number, name: string): Buffer {
  const bytes = Buffer.alloc(sizeBytes, createHash("sha256").update(name).digest());
  for (let at = 0; at < sizeBytes; at += 4096)
    createHash("sha256")
      .update(`${name} ${at}`)
      .digest()
      .copy(bytes, at, 0, Math.min(32, sizeBytes - at));
  return bytes;
}

export function openLoopDisk(options: LoopOptions): LoopDisk {
  const { backing, sizeBytes, sectorBytes = 512, content = oldSystem(sizeBytes, sectorBytes) } = options;
  writeFileSync(backing, content, { mode: 0o600 });
  return attachLoop({ backing, sizeBytes, sectorBytes, old: content });
}

export function attachLoop(
  { backing, sizeBytes, sectorBytes = 512, old }: Omit<LoopOptions, "content"> & { readonly old: Buffer },
  ...more: readonly string[]
): LoopDisk {
  const argv = ["--find", "--show", "--sector-size", `${sectorBytes}`, ...more, backing];
  const path = execFileSync("losetup", argv, { encoding: "utf8" }).trim();
  return {
    ...{ path, backing, sizeBytes, sectorBytes, old },
    bytes: () => readFileSync(backing),
    inFlight: () =>
      readFileSync(`/sys/class/block/${basename(path)}/inflight`, "utf8")
        .trim()
        .split(/\s+/)
        .reduce((sum, count) => sum + Number(count), 0),
    [Symbol.dispose]: () => void spawnSync("losetup", ["--detach", path]),
  };
}

/** Processes that have the device open for writing, those that only inherited it from one of them left out. */
export function writersOf(path: string): number[] {
  const parents = new Map<number, number>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const descriptors = readdirSync(`/proc/${pid}/fd`);
      if (!descriptors.some((fd) => opensForWriting(pid, fd, path))) continue;
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      parents.set(Number(pid), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // It ended meanwhile.
    }
  }
  return [...parents].filter(([, parent]) => !parents.has(parent)).map(([pid]) => pid);
}

function opensForWriting(pid: string, fd: string, path: string): boolean {
  if (readlinkSync(join("/proc", pid, "fd", fd)) !== path) return false;
  const flags = /^flags:\s+(\d+)$/m.exec(readFileSync(join("/proc", pid, "fdinfo", fd), "utf8"))?.[1];
  return (Number.parseInt(flags ?? "0", 8) & 3) !== 0;
}
