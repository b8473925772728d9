// The agent's operations with a real outbox and executors that the test plays: what the shell around the reducer does.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { ExecutorEvent, ExecutorRequest, FollowerRequest } from "../../agent/door/contract.ts";
import type { ExecutorLauncher } from "../../agent/door/executor-process.ts";
import { systemClock } from "../../agent/host/clock.ts";
import { type Outbox, openOutbox } from "../../agent/link/outbox.ts";
import { createOperations, type Operations } from "../../agent/operations/operations.ts";
import { encodeCommand } from "../../protocol/commands.ts";
import { newCommandId } from "../support/commands.ts";

const hostId = "a".repeat(64);
const timeout = 10_000;
let directory: string;
let outbox: Outbox;
let stopping: AbortController;
let running: Promise<void>;
let operations: Operations;

/** An executor as the test plays it: what it was asked, and a tap for what it says. */
interface Played {
  readonly requests: FollowerRequest[];
  readonly after: { afterSeq: number; afterOutput: number | undefined };
  taken: number;
  say(...events: ExecutorEvent[]): void;
  close(): void;
}
let started: ExecutorRequest[];
let played: Map<string, Played>;
let listening: Set<string>;
let failToStart: number;

const launcher: ExecutorLauncher = {
  async start(request) {
    if (failToStart-- > 0) throw new Error("no process can be made");
    started.push(request);
    if (request.request === "run") {
      const { id } = JSON.parse(Buffer.from(request.document, "base64").toString()) as { id: string };
      listening.add(id);
    }
    return { ended: new Promise(() => undefined), logTail: () => "the end of its log" };
  },
  async attach(id, after) {
    if (!listening.has(id)) return undefined;
    const queue: (ExecutorEvent | "end")[] = [];
    let wake = () => {};
    const put = (event: ExecutorEvent | "end") => {
      queue.push(event);
      wake();
    };
    const entry: Played = {
      ...{ requests: [], after, taken: 0 },
      say: (...events) => events.forEach(put),
      close: () => put("end"),
    };
    played.set(id, entry);
    return {
      events: (async function* () {
        for (;;) {
          while (queue.length === 0) {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
          const next = queue.shift()!;
          if (next === "end") return;
          entry.taken += 1;
          yield next;
        }
      })(),
      send: (request) => void entry.requests.push(request),
      close: () => put("end"),
    };
  },
};

const offer = (kind: "host.exec" | "host.inventory" = "host.exec") => {
  const id = newCommandId();
  const given = kind === "host.exec" ? { argv: ["/bin/true"] } : {};
  const command = { id, host: hostId, kind, mode: "apply", arguments: given, limits: {} } as never;
  const document = encodeCommand(command);
  operations.offered({ t: "offer", document, signatures: [], generation: 1, epoch: 1, sources: [] });
  return id;
};
const following = (id: string) =>
  vi.waitFor(
    () => {
      const entry = played.get(id);
      expect(entry).toBeDefined();
      return entry!;
    },
    { timeout },
  );
const types = (id: string) =>
  outbox
    .after(0, 100)
    .filter(({ body }) => "command" in body && body.command === id)
    .map(({ body }) => body.type);
const recorded = (id: string, ...expected: string[]) =>
  vi.waitFor(() => expect(types(id)).toEqual(expected), { timeout });

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-operations-"));
  outbox = openOutbox(join(directory, "agent.db"), { onAcknowledged: () => operations.acknowledged() });
  [started, played, listening, failToStart] = [[], new Map(), new Set(), 0];
  stopping = new AbortController();
  running = runOperations();
});
afterEach(async () => {
  stopping.abort();
  await running;
  outbox[Symbol.dispose]();
  rmSync(directory, { recursive: true });
});

const accepted = { type: "accepted", seq: 1, at: 1 } as const;
const succeeded = (seq: number): ExecutorEvent => ({
  ...{ type: "result", seq, at: 1, result: { outcome: "succeeded", startedAt: 1, endedAt: 2 } },
});

test("an offer is on the disk before its executor starts, and what that says becomes records", async () => {
  const disk = Promise.withResolvers<void>();
  const synced = vi.spyOn(outbox, "synced").mockReturnValueOnce(disk.promise);
  const id = offer();
  await vi.waitFor(() => expect(synced).toHaveBeenCalled(), { timeout });
  await systemClock.sleep(50, stopping.signal);
  expect(started).toEqual([]);
  disk.resolve();
  await vi.waitFor(() => expect(started).toHaveLength(1), { timeout });
  expect(types(id)).toEqual(["received"]);
  const executor = await following(id);
  expect(executor.after).toEqual({ afterSeq: 0, afterOutput: 0 });
  await vi.waitFor(() => expect(executor.requests).toEqual([{ link: "down" }]), { timeout });
  operations.link("up");
  expect(executor.requests.at(-1)).toEqual({ link: "up" });
  executor.say(accepted, { type: "running", seq: 2, at: 1, run: 1 }, succeeded(3));
  await recorded(id, "received", "accepted", "running", "result");
  expect(operations.list()).toEqual([]);
});

test("an executor that cannot be started is tried again", async () => {
  failToStart = 2;
  const id = offer();
  await following(id);
  expect(started).toHaveLength(1);
});

test("one that dies is replaced, and goes on after what is known", async () => {
  const id = offer();
  const first = await following(id);
  first.say(accepted, { type: "output", stream: "stdout", offset: 0, data: "AAAA" });
  await recorded(id, "received", "accepted", "output");
  listening.delete(id);
  played.delete(id);
  first.close();
  const second = await following(id);
  expect(second.after).toEqual({ afterSeq: 1, afterOutput: 3 });
  expect(started.map((request) => "onlyKnown" in request)).toEqual([false, false]);
});

test("a disk that takes nothing for a while loses nothing and doubles nothing", async () => {
  const commit = vi.spyOn(outbox, "commit");
  const id = offer("host.inventory");
  const executor = await following(id);
  commit.mockImplementationOnce(() => {
    throw new Error("database or disk is full");
  });
  executor.say(accepted, succeeded(2));
  await recorded(id, "received", "accepted", "result");
  expect(commit.mock.results.filter(({ type }) => type === "throw")).toHaveLength(1);
});

test("while the disk takes nothing so much waits and no more, and whoever says more is told so", async () => {
  const id = offer();
  const executor = await following(id);
  executor.say(accepted);
  await recorded(id, "received", "accepted");
  vi.spyOn(outbox, "commit").mockImplementation(() => {
    throw new Error("database or disk is full");
  });
  const answers = Array.from({ length: 1100 }, () => operations.cancel(newCommandId()));
  expect(answers.indexOf("no-room")).toBe(1024);
  expect(operations.pause(id, true)).toBe("no-room");
  vi.restoreAllMocks();
  // What was taken is done when the disk takes it.
  await vi.waitFor(() => expect(operations.pause(id, true)).toBe("taken"), { timeout });
  await vi.waitFor(() => expect(executor.requests).toContainEqual({ pause: { paused: true } }), { timeout });
  expect(outbox.recordCount).toBeGreaterThanOrEqual(2 * 1024);
});

test("output waits with its executor while the controller acknowledges nothing", async () => {
  outbox.resume(0);
  const id = offer();
  const executor = await following(id);
  const data = Buffer.alloc(32 * 1024).toString("base64");
  const pieces = 20;
  for (let i = 0; i < pieces; i++)
    executor.say({ type: "output", stream: "stdout", offset: i * 32 * 1024, data });
  executor.say(accepted, succeeded(2));
  await vi.waitFor(() => expect(outbox.outputBytes).toBeGreaterThan(256 * 1024), { timeout });
  await systemClock.sleep(100, stopping.signal);
  expect(executor.taken).toBeLessThan(8);
  expect(outbox.outputBytes).toBeLessThan(320 * 1024);
  // As it acknowledges, all comes, and the result last.
  await vi.waitFor(
    async () => {
      await outbox.synced();
      const records = outbox.after(0, 100);
      const last = records.at(-1);
      if (last?.body.type !== "result") {
        outbox.acknowledge(last?.seq ?? 0);
        throw new Error("more is to come");
      }
    },
    { timeout },
  );
  expect(executor.taken).toBe(pieces + 2);
});

test("an agent that stops leaves its executors alone, and the next one asks the journal first", async () => {
  const id = offer();
  await following(id);
  stopping.abort();
  await running;
  listening.delete(id);
  played.clear();
  started = [];
  stopping = new AbortController();
  running = runOperations();
  await vi.waitFor(() => expect(started).toMatchObject([{ request: "run", onlyKnown: true }]), { timeout });
});

function runOperations(): Promise<void> {
  const silent = { debug() {}, info() {}, warn() {}, error() {} };
  operations = createOperations({
    ...{ outbox, executors: launcher, hostId, clock: systemClock, log: silent },
    ...{ authority: () => "", onChange() {}, runHere: async () => ({}) },
  });
  return operations.run(stopping.signal);
}
