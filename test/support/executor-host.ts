// A host for executor tests: directories of its own, file-backed disks, and real executor processes started from sources.
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { FileDisk } from "../../agent/devices/disks.ts";
import { type ExecutorEvent, type ExecutorRequest, operationSocketPath } from "../../agent/door/contract.ts";
import { readJournal } from "../../agent/executor/journal.ts";
import { openPrivateHost, type PrivateHost, type PrivateMount } from "../../cli/demo/private-host.ts";
import type { HostAuditEntry } from "../../protocol/audit.ts";
import { type Command, encodeCommand, type Progress, type Result } from "../../protocol/commands.ts";
import { programPath } from "./programs.ts";

export const hostId = "ab".repeat(32);
/** Options of node for an executor whose time passes ten times as fast, see hurried-time.ts. */
export const hurried = ["--import", new URL("./hurried-time.ts", import.meta.url).href] as const;
export const isRoot = process.geteuid?.() === 0;

export interface ExecutorHost extends AsyncDisposable {
  readonly directory: string;
  readonly policyFile: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  writePolicy(text: string): Promise<void>;
  /** A sparse file of that size. */
  makeFile(name: string, sizeBytes: number): Promise<string>;
  /** The same, as the policy declares it. */
  makeDisk(name: string, sizeBytes: number): Promise<FileDisk>;
  /** One that is full of old bytes. */
  makeOldDisk(name: string, sizeBytes: number): Promise<FileDisk>;
  /** Writes a policy that declares and allows these file disks. */
  allowFiles(...disks: readonly FileDisk[]): Promise<void>;
  /** `under`: a program that runs it, such as strace with its options; `options`: node's own. */
  start(request: ExecutorRequest, under?: readonly string[], options?: readonly string[]): Executor;
}

export interface Executor {
  readonly process: ChildProcess;
  /** Exit code or signal. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** Standard error so far. */
  readonly log: () => string;
}

/**
 * @param mounts what executors see in the place of files of this machine; only as root
 * @param program the executor's entry: the bundle of these sources unless given
 */
export async function openExecutorHost(
  mounts: readonly PrivateMount[] = [],
  program = programPath("executor"),
): Promise<ExecutorHost> {
  // Short: a socket's path has at most 107 characters.
  const directory = await mkdtemp(join(tmpdir(), "bp-"));
  const policyDirectory = join(directory, "etc");
  const stateDirectory = join(directory, "state");
  const runDirectory = join(directory, "run");
  for (const path of [policyDirectory, stateDirectory, runDirectory]) await mkdir(path, { mode: 0o700 });
  const policyFile = join(policyDirectory, "policy.toml");
  const children = new Set<ChildProcess>();
  let privateHost: PrivateHost | undefined;
  if (isRoot) {
    const opened = await openPrivateHost([
      { source: policyDirectory, target: "/etc/bedplate" },
      { source: stateDirectory, target: "/var/lib/bedplate/executor" },
      { source: runDirectory, target: "/run/bedplate" },
      ...mounts,
    ]);
    if (typeof opened === "string") throw new Error(`as root these tests need private mounts: ${opened}`);
    privateHost = opened;
  }
  const writePolicy = (text: string) => writeFile(policyFile, text, { mode: 0o600 });
  const makeFile = async (name: string, sizeBytes: number) => {
    const path = join(directory, name);
    await using file = await open(path, "wx", 0o600);
    await file.truncate(sizeBytes);
    return path;
  };
  const makeDisk = async (name: string, sizeBytes: number) => {
    return { name, path: await makeFile(name, sizeBytes), sizeBytes };
  };
  return {
    directory,
    policyFile,
    stateDirectory,
    runDirectory,
    writePolicy,
    makeFile,
    makeDisk,
    async makeOldDisk(name, sizeBytes) {
      const disk = await makeDisk(name, sizeBytes);
      await fillWithOldBytes(disk.path, sizeBytes);
      return disk;
    },
    allowFiles: (...disks) => writePolicy(policyOf(disks)),
    start(request, under = [], options = []) {
      const [first = process.execPath, ...rest] = [...under, process.execPath, ...options, program];
      const plain = [first, ...rest] as const;
      const argv = privateHost?.wrap(plain) ?? [
        ...plain,
        "--policy",
        policyFile,
        "--state",
        stateDirectory,
        "--run",
        runDirectory,
      ];
      const child = spawn(argv[0]!, argv.slice(1), {
        stdio: ["pipe", "ignore", "pipe"],
        env: { PATH: process.env.PATH },
      });
      children.add(child);
      let log = "";
      child.stderr!.setEncoding("utf8").on("data", (text: string) => {
        log += text;
      });
      const ended = new Promise<number | NodeJS.Signals>((resolve) => {
        child.on("close", (code, signal) => {
          children.delete(child);
          resolve(signal ?? code!);
        });
      });
      child.stdin!.on("error", () => {});
      child.stdin!.end(`${JSON.stringify(request)}\n`);
      return { process: child, ended, log: () => log };
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(
        [...children].map((child) => {
          child.kill("SIGKILL");
          return new Promise((resolve) => child.on("close", resolve));
        }),
      );
      await privateHost?.[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
}

const mib = 1 << 20;

export async function fillWithOldBytes(path: string, sizeBytes: number): Promise<void> {
  await using file = await open(path, "r+");
  const old = new Uint8Array(mib).fill(0xee);
  for (let at = 0; at < sizeBytes; at += mib) await file.write(old, 0, Math.min(mib, sizeBytes - at), at);
}

/** A policy that declares these disks, and allows deploys onto them unsigned. @param lines what else it says */
export function policyOf(disks: readonly FileDisk[], ...lines: readonly string[]): string {
  return [
    `allowDisks = ${JSON.stringify(disks.map(({ name }) => `file:${name}`))}`,
    'unsigned = ["image.deploy"]',
    ...lines,
    ...disks.map(declared),
  ].join("\n");
}

/** A disk as the policy declares it. */
export function declared({ name, path, sizeBytes }: FileDisk): string {
  return `[[fileDisks]]\nname = "${name}"\npath = "${path}"\nsizeBytes = ${sizeBytes}\n`;
}

let minted = 0;

/** A UUID of version 7's form. */
export function mintId(): string {
  minted++;
  return `019ab000-0000-7000-8000-${(process.pid * 65_536 + minted).toString(16).padStart(12, "0").slice(-12)}`;
}

export interface RunOptions {
  readonly sources?: readonly {
    readonly url: string;
    readonly bearer?: string;
    readonly layout?: "frames" | "raw";
  }[];
  readonly ca?: string;
  readonly epoch?: number;
  /** Default: above that of every request before, and so of its host. */
  readonly generation?: number;
  readonly signatures?: readonly string[];
  readonly host?: string;
}

let generations = 0;

export function runRequest(command: Command | Uint8Array, options: RunOptions = {}): ExecutorRequest {
  const bytes = command instanceof Uint8Array ? command : encodeCommand(command);
  return {
    request: "run",
    document: Buffer.from(bytes).toString("base64"),
    signatures: [...(options.signatures ?? [])],
    generation: options.generation ?? ++generations,
    epoch: options.epoch ?? 1,
    sources: [...(options.sources ?? [])],
    ca: options.ca ?? "",
    host: options.host ?? hostId,
  };
}

export interface Follower {
  /** All events so far. */
  readonly events: ExecutorEvent[];
  /** Resolves at the first event that fits; rejects when the executor closes before one does. */
  until(fits: (event: ExecutorEvent) => boolean): Promise<ExecutorEvent>;
  /** The last event: a refusal or a result. */
  readonly last: Promise<Extract<ExecutorEvent, { type: "refused" | "result" }>>;
  cancel(reason: string): void;
  pause(paused: boolean): void;
  link(state: "up" | "down"): void;
  /** Takes nothing more from the connection until it is asked to. */
  readOn(reading: boolean): void;
  close(): void;
}

export interface AttachOptions {
  /** Output from there on is wanted. */
  readonly afterOutput?: number;
}

/** Attaches as soon as the operation's executor listens. */
export async function attach(
  host: Pick<ExecutorHost, "runDirectory">,
  id: string,
  afterSeq = 0,
  options: AttachOptions = {},
): Promise<Follower> {
  const path = operationSocketPath(host.runDirectory, id);
  let socket: Socket | undefined;
  for (let tries = 0; socket === undefined; tries++) {
    // They give way to whatever else runs on a busy machine.
    if (tries > 1600)
      throw new Error(
        `no executor listens at ${path} (${existsSync(path) ? "a stale socket is there" : "nothing there"})`,
      );
    socket = await tryConnect(path);
    if (socket === undefined) await new Promise((resolve) => setTimeout(resolve, 25));
  }
  const connected = socket;
  const events: ExecutorEvent[] = [];
  const waiting = new Set<{
    fits: (event: ExecutorEvent) => boolean;
    resolve: (event: ExecutorEvent) => void;
    reject: (error: Error) => void;
  }>();
  const lines = createInterface({ input: connected });
  // It passes on what goes wrong with the socket, which is told by its end.
  lines.on("error", () => {});
  lines.on("line", (line) => {
    const event = JSON.parse(line) as ExecutorEvent;
    events.push(event);
    for (const one of waiting) {
      if (!one.fits(event)) continue;
      waiting.delete(one);
      one.resolve(event);
    }
  });
  connected.on("error", () => {});
  connected.on("close", () => {
    for (const one of waiting)
      one.reject(
        new Error(`the executor closed the connection after ${JSON.stringify(events).slice(-2000)}`),
      );
    waiting.clear();
  });
  connected.write(`${JSON.stringify({ attach: { afterSeq, ...options } })}\n`);
  const until = (fits: (event: ExecutorEvent) => boolean) => {
    const there = events.find(fits);
    if (there !== undefined) return Promise.resolve(there);
    const { promise, resolve, reject } = Promise.withResolvers<ExecutorEvent>();
    waiting.add({ fits, resolve, reject });
    return promise;
  };
  const last = until((event) => event.type === "refused" || event.type === "result");
  last.catch(() => {});
  return {
    events,
    until,
    last: last as Follower["last"],
    cancel: (reason) => void connected.write(`${JSON.stringify({ cancel: { reason } })}\n`),
    pause: (paused) => void connected.write(`${JSON.stringify({ pause: { paused } })}\n`),
    link: (link) => void connected.write(`${JSON.stringify({ link })}\n`),
    readOn: (reading) => void (reading ? connected.resume() : connected.pause()),
    close: () => connected.destroy(),
  };
}

function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", () => resolve(undefined));
  });
}

/** Starts a command, follows it to its end, and waits for the process. */
export async function runToEnd(host: ExecutorHost, command: Command, options: RunOptions = {}) {
  const executor = host.start(runRequest(command, options));
  let died = false;
  void executor.ended.then(() => {
    died = true;
  });
  let follower: Follower;
  try {
    follower = await attach(host, command.id);
  } catch (error) {
    throw died ? new Error(`the executor ended: ${executor.log()}`, { cause: error }) : error;
  }
  const last = await follower.last;
  follower.close();
  const exit = await executor.ended;
  return { last, events: follower.events, exit, log: executor.log() };
}

export function resultOf(last: ExecutorEvent): Result {
  if (last.type !== "result") throw new Error(`no result but ${JSON.stringify(last)}`);
  return last.result;
}

export function progressOf(events: readonly ExecutorEvent[]): readonly Progress[] {
  return events.flatMap((event) => (event.type === "progress" ? [event.progress] : []));
}

/** Everything in the host's audit, the oldest first. */
export function auditOf({ stateDirectory }: Pick<ExecutorHost, "stateDirectory">): readonly HostAuditEntry[] {
  using journal = readJournal(stateDirectory);
  return journal.audit().lines.map(({ text }) => JSON.parse(text) as HostAuditEntry);
}

export async function sha256Of(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}
