// A loop device over nbdfuse over an NBD server of our own: every write and flush that reaches the medium is known, and
// each can be made to fail, to be lost, or to be spoilt.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { eventually, hasProgram } from "../contract/programs.ts";
import { attachLoop, type LoopDisk, lackForLoops, oldSystem } from "./loop-disk.ts";

export interface DiskRequest {
  readonly kind: "write" | "flush";
  readonly offset: number;
  readonly data: Uint8Array;
}

/** What happens to requests that touch [from, to): after `skip` of them, to `times`. */
export interface DiskRule {
  readonly on: "read" | "write" | "flush";
  readonly from: number;
  readonly to: number;
  readonly skip?: number;
  readonly times?: number;
  /** `lose`: it is answered, and nothing is written. `flip`: a bit of it is another one. */
  readonly what: "EIO" | "ENOSPC" | "lose" | "flip";
}

export type ToDisk =
  | { readonly ask: "rules"; readonly rules: readonly DiskRule[] }
  | { readonly ask: "log" | "clear" | "delivered" };
export interface FromDisk {
  readonly log: readonly DiskRequest[];
  readonly delivered: number;
}

export interface RecordingDisk extends AsyncDisposable {
  readonly disk: LoopDisk;
  /** From now on. */
  setRules(...rules: readonly DiskRule[]): Promise<void>;
  /** Since it was made or cleared. */
  log(): Promise<readonly DiskRequest[]>;
  clear(): Promise<void>;
  /** How often a rule was followed since they were set. */
  delivered(): Promise<number>;
}

export function lackForRecording(): string | undefined {
  const lack = lackForLoops();
  if (lack !== undefined) return lack;
  if (!hasProgram("nbdfuse", "fusermount3")) return "nbdfuse (libnbd-bin) and fuse3 are not here";
  return existsSync("/dev/fuse") ? undefined : "there is no /dev/fuse here";
}

export async function openRecordingDisk(
  directory: string,
  { sizeBytes, old = oldSystem(sizeBytes) }: { readonly sizeBytes: number; readonly old?: Buffer },
): Promise<RecordingDisk> {
  await using stack = new AsyncDisposableStack();
  const content = new SharedArrayBuffer(sizeBytes);
  const bytes = Buffer.from(content);
  bytes.set(old);
  const socketPath = join(directory, "nbd.sock");
  const worker = new Worker(new URL("./nbd-worker.ts", import.meta.url), {
    workerData: { content, socketPath },
  });
  stack.defer(async () => void (await worker.terminate()));
  const next = () => new Promise<FromDisk>((resolve) => worker.once("message", resolve));
  let turn: Promise<unknown> = next();
  const ask = (message: ToDisk): Promise<FromDisk> => {
    const answered = turn.then(() => {
      const answer = next();
      worker.postMessage(message);
      return answer;
    });
    turn = answered;
    return answered;
  };
  await turn;

  const mountPoint = join(directory, "medium");
  mkdirSync(mountPoint);
  writeFileSync(join(mountPoint, "disk"), "");
  const backing = join(mountPoint, "disk");
  const fuse = spawn("nbdfuse", [backing, "--unix", socketPath], { stdio: "ignore" });
  const ended = new Promise((resolve) => fuse.once("close", resolve));
  stack.defer(async () => {
    spawnSync("fusermount3", ["-u", "-z", backing]);
    spawnSync("fusermount3", ["-u", "-z", mountPoint]);
    fuse.kill("SIGTERM");
    await ended;
  });
  await eventually(
    180_000,
    () => spawnSync("stat", ["-c", "%s", backing]).stdout.toString().trim() === `${sizeBytes}`,
  );
  const disk = attachLoop({ backing, sizeBytes, old }, "--direct-io=on");
  stack.defer(() => disk[Symbol.dispose]());
  const kept = stack.move();
  return {
    disk: { ...disk, bytes: () => Buffer.from(bytes), [Symbol.dispose]: () => {} },
    setRules: async (...rules) => void (await ask({ ask: "rules", rules })),
    log: async () => (await ask({ ask: "log" })).log,
    clear: async () => void (await ask({ ask: "clear" })),
    delivered: async () => (await ask({ ask: "delivered" })).delivered,
    async [Symbol.asyncDispose]() {
      await kept[Symbol.asyncDispose]();
    },
  };
}
