// Who has a disk open to write to it, by whatever name: real processes that hold real descriptors.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, linkSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { writersOf } from "../../agent/devices/writers.ts";
import { systemFiles } from "../../agent/host/files.ts";
import type { Disk } from "../../protocol/disks.ts";
import { lackForLoops, openLoopDisk } from "../provisioning/loop-disk.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "bp-writers-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

/** A program that has the file open for as long as it is asked about. */
function writersWhileOpen(path: string, flags: "r" | "r+", disk: Pick<Disk, "path" | "backing">) {
  const fd = openSync(path, flags);
  let holder: ChildProcess;
  try {
    holder = spawn("sleep", ["600"], { stdio: ["ignore", "ignore", "ignore", fd] });
  } finally {
    closeSync(fd);
  }
  try {
    const found = writersOf(systemFiles, { partitions: [], ...disk } as unknown as Disk);
    return found.some((each) => each.endsWith(`(${holder.pid})`));
  } finally {
    holder.kill("SIGKILL");
  }
}

test("whoever writes to the file behind a disk is seen, also by another name of it; who only reads is not", () => {
  const [backing, other] = [join(directory, "disk.img"), join(directory, "other-name")];
  writeFileSync(backing, "old");
  linkSync(backing, other);
  const disk = { path: backing, backing };
  expect(writersWhileOpen(backing, "r+", disk)).toBe(true);
  expect(writersWhileOpen(other, "r+", disk)).toBe(true);
  expect(writersWhileOpen(other, "r", disk)).toBe(false);
  writeFileSync(join(directory, "another"), "old");
  expect(writersWhileOpen(join(directory, "another"), "r+", disk)).toBe(false);
});

describe.skipIf(lackForLoops() !== undefined)("a device", () => {
  test("is written to also through a node that was made elsewhere, as for a program in a jail", () => {
    using loop = openLoopDisk({ backing: join(directory, "loop.img"), sizeBytes: 1 << 20 });
    const { rdev } = statSync(loop.path);
    const node = join(directory, "drive0");
    const made = spawnSync("mknod", [node, "b", `${rdev >> 8}`, `${rdev & 0xff}`]);
    expect(made.status).toBe(0);
    const disk = { path: loop.path, backing: null };
    expect(writersWhileOpen(node, "r+", disk)).toBe(true);
    expect(writersWhileOpen(node, "r", disk)).toBe(false);
  });
});
