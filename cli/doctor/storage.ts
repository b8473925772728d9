// The state directory, whether direct I/O works there, and the block devices.

import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createGroupKernel } from "../../assembly/index.ts";
import { formatBytes } from "../output.ts";
import { type Check, essentialMissing, missing, ok, reasonOf } from "./check.ts";

const freeBytesWanted = 2 ** 30;

export async function storageChecks(stateDirectory: string): Promise<Check[]> {
  const existing = nearestExisting(stateDirectory);
  const writable = probe(existing);
  const { bavail, bsize } = await statfs(existing);
  const free = bavail * bsize;
  const where =
    existing === stateDirectory ? stateDirectory : `${stateDirectory} (would be made in ${existing})`;
  return [
    writable === undefined
      ? ok("state directory", where)
      : essentialMissing(
          "state directory",
          `${where}: ${writable}`,
          "agent and controller can keep nothing: use another one or other rights",
        ),
    writable === undefined
      ? await directCheck(existing)
      : missing("direct I/O", `${existing} cannot be written`, "not known"),
    free >= freeBytesWanted
      ? ok("free disk", `${formatBytes(free)} in ${existing}`)
      : missing(
          "free disk",
          `${formatBytes(free)} in ${existing}`,
          "images and telemetry of a controller may not fit",
        ),
    ...blockDevices(),
  ];
}

/** Undefined when a file can be made there, else why not: root may be allowed everything and still not be able to. */
function probe(directory: string): string | undefined {
  const path = probePath(directory);
  try {
    closeSync(openSync(path, "wx", 0o600));
    unlinkSync(path);
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

function probePath(directory: string): string {
  return join(directory, `.bedplate-doctor-${randomUUID()}`);
}

function nearestExisting(path: string): string {
  for (let at = path; ; at = dirname(at)) {
    try {
      if (statSync(at).isDirectory()) return at;
    } catch {
      // Further up, then; the root directory exists.
    }
    if (at === dirname(at)) return at;
  }
}

/** Writes and reads 4 KiB past the page cache, from WebAssembly memory as the deploy does. */
async function directCheck(directory: string): Promise<Check> {
  const name = "direct I/O";
  const costs =
    "disks that are files there are written and read back through the page cache: the proof is of the cache";
  const path = probePath(directory);
  let fd: number | undefined;
  try {
    const page = (await createGroupKernel()).windows[0]!.subarray(0, 4096);
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_DIRECT, 0o600);
    page.fill(0xa5);
    writeSync(fd, page, 0, 4096, 0);
    page.fill(0);
    readSync(fd, page, 0, 4096, 0);
    return page.every((byte) => byte === 0xa5)
      ? ok(name, `works in ${directory}`)
      : missing(name, "gives back other bytes", costs);
  } catch (error) {
    return missing(name, `${directory}: ${reasonOf(error)}`, costs);
  } finally {
    if (fd !== undefined) {
      closeSync(fd);
      unlinkSync(path);
    }
  }
}

function blockDevices(): Check[] {
  const name = "block devices";
  let names: string[];
  try {
    names = readdirSync("/sys/class/block").filter((device) => !/^(loop|ram|zram|dm-|md)\d/.test(device));
  } catch (error) {
    return [
      missing(name, `/sys/class/block: ${reasonOf(error)}`, "no disk can be found: only file-backed disks"),
    ];
  }
  const whole = names.filter((device) => !isPartition(device));
  const openable = whole.filter((device) => canOpen(`/dev/${device}`));
  if (whole.length === 0) return [ok(name, "no physical disks", "only loop devices and file-backed disks")];
  const found = `${openable.length} of ${whole.length} can be opened (${whole.slice(0, 6).join(", ")}${whole.length > 6 ? ", …" : ""})`;
  return [
    openable.length > 0 ? ok(name, found) : missing(name, found, "deploys go to file-backed disks only"),
  ];
}

function isPartition(device: string): boolean {
  try {
    return statSync(`/sys/class/block/${device}/partition`).isFile();
  } catch {
    return false;
  }
}

function canOpen(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_RDONLY));
    return true;
  } catch {
    return false;
  }
}
