// Loop devices as disks of a test: attached, hashed whole, detached.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import { basename } from "node:path";
import { type SparseDisk, sparseDisk } from "../support/sparse-disk.ts";

export interface Loop {
  readonly path: string;
  readonly backing: string;
  /** `MAJOR:MINOR`. */
  readonly number: string;
  readonly sizeBytes: number;
  /** As the policy names it. */
  readonly entry: string;
  /** As a command names it. */
  readonly selector: string;
  /** SHA-256 of every byte but those left out, read from the device and from the file behind it, which must agree. */
  hash(without?: Stretch): string;
  detach(): void;
  /** Detaches it and attaches the same file anew; which device it is then is the kernel's choice. */
  reattach(): void;
}

/** What others may write meanwhile, from byte to byte. */
export interface Stretch {
  readonly from: number;
  readonly to: number;
}

export interface LoopOptions {
  readonly sectorBytes?: 512 | 4096;
  readonly readOnly?: boolean;
}

const mib = 1 << 20;

export function attachLoop(backing: string, options: LoopOptions = {}): Loop {
  let path = attach(backing, options);
  let attached = true;
  const fact = (name: string) => readFileSync(`/sys/block/${basename(path)}/${name}`, "utf8").trim();
  const detach = () => {
    if (!attached) return;
    attached = false;
    execFileSync("losetup", ["--detach", path]);
  };
  return {
    backing,
    entry: `loop:${backing}`,
    selector: `loop=${backing}`,
    get path() {
      return path;
    },
    get number() {
      return fact("dev");
    },
    get sizeBytes() {
      return Number(fact("size")) * 512;
    },
    hash(without) {
      // What was read before may be in the page cache, whoever wrote past it.
      execFileSync("blockdev", ["--flushbufs", path]);
      const [device, file] = [path, backing].map((name) => sha256Of(name, without));
      if (device !== file) throw new Error(`${path} and ${backing} differ: ${device} and ${file}`);
      return device!;
    },
    detach,
    reattach() {
      detach();
      path = attach(backing, options);
      attached = true;
    },
  };
}

function attach(backing: string, { sectorBytes = 512, readOnly = false }: LoopOptions): string {
  const how = ["--find", "--show", "--sector-size", `${sectorBytes}`, ...(readOnly ? ["--read-only"] : [])];
  return execFileSync("losetup", [...how, backing], { encoding: "utf8" }).trim();
}

function sha256Of(path: string, { from, to }: Stretch = { from: 0, to: 0 }): string {
  const hash = createHash("sha256");
  const file = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(mib);
    for (let at = 0; ; ) {
      const length = readSync(file, bytes, 0, mib, at);
      if (length === 0) return hash.digest("hex");
      bytes.fill(0, Math.max(0, Math.min(length, from - at)), Math.max(0, Math.min(length, to - at)));
      hash.update(bytes.subarray(0, length));
      at += length;
    }
  } finally {
    closeSync(file);
  }
}

/** A file of that size whose middle is no zeroes, so that a zeroed stretch is seen, and on it what `put` writes. */
export async function makeDiskFile(
  path: string,
  sizeBytes: number,
  put: (disk: SparseDisk) => void = () => {},
): Promise<string> {
  const disk = sparseDisk(sizeBytes);
  const [from, to] = [Math.floor(sizeBytes / 3), Math.floor((2 * sizeBytes) / 3)];
  disk.put(from, new Uint8Array(to - from).fill(0xe5));
  put(disk);
  await disk.save(path);
  return path;
}

/** Overwrites a few bytes of the device, as another program on the host would. */
export async function scribble(loop: Loop, offset: number, bytes: Uint8Array | string): Promise<void> {
  await using file = await open(loop.path, "r+");
  const data = typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes;
  await file.write(data, 0, data.length, offset);
  await file.sync();
}
