// One session over a pretended socket: what is sent first, how much at once, and what the agent answers.
import { generateKeyPairSync, sign } from "node:crypto";
import { expect, test, vi } from "vitest";
import { systemClock } from "../../agent/host/clock.ts";
import { createBell } from "../../agent/link/bell.ts";
import type { Welcome } from "../../agent/link/handshake.ts";
import { createSampleQueue } from "../../agent/link/sample-queue.ts";
import { type LinkParts, runSession } from "../../agent/link/session.ts";
import type { Closed, LinkSocket } from "../../agent/link/socket.ts";
import { utf8 } from "../../protocol/bytes.ts";
import { closeCodes } from "../../protocol/codes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import { probeBytes, verifyEd25519 } from "../../protocol/link-proof.ts";
import {
  type AgentMessage,
  type ControllerMessage,
  checkAgentMessage,
  type RecordBody,
} from "../../protocol/messages.ts";
import { newCommandId } from "../support/commands.ts";

const exported = new Uint8Array(32).fill(9);
const { publicKey, privateKey } = generateKeyPairSync("ed25519");
const keys = {
  hostId: "ab".repeat(32),
  linkKey: Uint8Array.from(publicKey.export({ format: "der", type: "spki" }).subarray(-32)),
  instance: "i",
  sign: (data: Uint8Array) => Uint8Array.from(sign(null, data, privateKey)),
};

function session(more: Partial<Welcome> = {}) {
  const sent: { message: AgentMessage; bytes: number }[] = [];
  const inbox: ControllerMessage[] = [];
  let wake = () => {};
  let over = false;
  const closed = Promise.withResolvers<Closed>();
  const end = (code: number, ours: boolean) => {
    if (over) return;
    over = true;
    closed.resolve({ code, reason: "", ours });
    wake();
  };
  const sendBytes = (frame: Uint8Array) =>
    void sent.push({ message: checkAgentMessage(decodeFrame(frame)), bytes: frame.length });
  const socket: LinkSocket = {
    ...{ exported, bufferedBytes: 0, closed: closed.promise, sendBytes },
    send: (message) => sendBytes(encodeFrame(message)),
    async next() {
      while (inbox.length === 0 && !over) await new Promise<void>((resolve) => (wake = resolve));
      return inbox.shift();
    },
    close: (name) => end(closeCodes[name].code, true),
    terminate: () => end(1006, true),
  };
  const records: RecordBody[] = [];
  let acknowledged = 0;
  const bell = createBell();
  const samples = createSampleQueue(limits.outboxSampleBytesMax);
  const parts = {
    outbox: {
      ...{ recordCount: 0, recordBytes: 0, outputBytes: 0 },
      operation: vi.fn(() => undefined as unknown),
      append: (body: RecordBody) => void records.push(body),
      after: (seq: number, count: number) =>
        records
          .map((body, i) => ({ seq: i + 1, at: 0, body }))
          .filter((record) => record.seq > seq)
          .slice(0, count),
      acknowledge: (seq: number) => {
        acknowledged = seq;
      },
      resume: () => {},
      synced: async () => {},
    },
    ...{ samples, bell, clock: systemClock, intervalMs: 1000 },
    dictionary: (id: number) => ({ t: "dictionary" as const, id, series: [] }),
    takeProgress: vi.fn(() => [] as ReturnType<LinkParts["takeProgress"]>),
    operations: () => [],
    ...{
      offered: vi.fn(),
      cancel: vi.fn(),
      authority: vi.fn((_pem: string): string[] => []),
      countersigned: vi.fn(async () => {}),
    },
    standing: vi.fn(),
    log: { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() },
  };
  const welcome: Welcome = {
    ...{ t: "welcome", session: "s", host: keys.hostId, name: "h", at: 0, records: 0, samples: 0 },
    ...{ heartbeatMs: 60_000, reconnectWindowMs: 5000, creditBytes: limits.frameBytesMax, ...more },
  };
  const stopping = new AbortController();
  const ended = runSession(socket, welcome, keys, parts as unknown as LinkParts, stopping.signal);
  return {
    ...{ sent, records, samples, parts, welcome, ended, bell },
    get acknowledged() {
      return acknowledged;
    },
    of: <T extends AgentMessage["t"]>(t: T) =>
      sent.filter(({ message }) => message.t === t) as {
        message: Extract<AgentMessage, { t: T }>;
        bytes: number;
      }[],
    hear(message: ControllerMessage) {
      inbox.push(message);
      wake();
    },
    hangUp: (code: number) => end(code, false),
    async [Symbol.asyncDispose]() {
      stopping.abort();
      end(1006, true);
      await ended;
    },
  };
}
const until = (done: () => void) => vi.waitFor(done, { timeout: 10_000, interval: 5 });
const settle = () => new Promise((resolve) => setTimeout(resolve, 60));
const output = (bytes: number): RecordBody => ({
  ...{ type: "output", command: newCommandId(), stream: "stdout", offset: 0 },
  data: "AAAA".repeat(bytes / 4),
});

test("no more is on its way than the credit, whatever waits; acknowledgements let more go, until all is told", async () => {
  await using link = session();
  for (let i = 0; i < 200; i++) link.records.push(output(32 * 1024));
  for (let i = 0; i < 100; i++)
    link.samples.add({ at: i, key: true, dictionary: 1, data: new Uint8Array(30_000) });
  link.bell.ring();
  let stored = { records: 0, samples: 0 };
  let most = 0;
  for (let round = 0; round < 400 && (stored.records < 200 || stored.samples < 100); round++) {
    await settle();
    const waiting = [
      ...link.of("record").filter(({ message }) => message.seq > stored.records),
      ...link.of("batch").filter(({ message }) => message.seq > stored.samples),
    ];
    const inFlight = waiting.reduce((sum, { bytes }) => sum + bytes, 0);
    most = Math.max(most, inFlight);
    expect(inFlight).toBeLessThanOrEqual(limits.frameBytesMax);
    expect(inFlight).toBeGreaterThan(0);
    stored = {
      records: link.of("record").at(-1)?.message.seq ?? 0,
      samples: link.of("batch").at(-1)?.message.seq ?? 0,
    };
    link.hear({ t: "ack", ...stored });
  }
  expect(stored).toEqual({ records: 200, samples: 100 });
  expect(most).toBeGreaterThan(limits.frameBytesMax / 2);
  expect(link.of("record").map(({ message }) => message.seq)).toEqual(
    Array.from({ length: 200 }, (_, i) => i + 1),
  );
}, 60_000);

test("a controller that stores nothing gets one credit's worth, and a record still goes before samples", async () => {
  await using link = session();
  for (let i = 0; i < 100; i++)
    link.samples.add({ at: i, key: true, dictionary: 1, data: new Uint8Array(30_000) });
  link.bell.ring();
  await until(() => expect(link.of("batch").length).toBeGreaterThan(10));
  await settle();
  const batches = link.of("batch").length;
  expect(link.of("batch").reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(
    limits.frameBytesMax * 0.75,
  );
  link.records.push(output(32 * 1024));
  link.bell.ring();
  await until(() => expect(link.of("record")).toHaveLength(1));
  expect(link.of("batch")).toHaveLength(batches);
});

test("of what waits, progress goes first, then records, then samples with their dictionary", async () => {
  await using link = session();
  await settle();
  link.samples.add({ at: 1, key: true, dictionary: 1, data: new Uint8Array(3) });
  link.records.push(output(4));
  const progress = {
    t: "progress",
    command: newCommandId(),
    progress: {
      ...{ phase: "write", done: 1, total: 2, unit: "bytes", rate: 0, secondsLeft: null },
    },
  } as never;
  link.parts.takeProgress.mockReturnValueOnce([progress]);
  link.bell.ring();
  await until(() => expect(link.of("batch")).toHaveLength(1));
  const order = link.sent.map(({ message }) => message.t).filter((t) => t !== "heartbeat");
  expect(order).toEqual(["progress", "record", "dictionary", "batch"]);
});

test("a probe is answered by the link key, over this connection", async () => {
  await using link = session();
  const nonce = new Uint8Array(32).fill(5);
  link.hear({ t: "probe", nonce });
  await until(() => expect(link.of("proof")).toHaveLength(1));
  const { message } = link.of("proof")[0]!;
  expect([...message.nonce]).toEqual([...nonce]);
  expect(await verifyEd25519(keys.linkKey, message.signature, await probeBytes(nonce, exported))).toBe(true);
  const elsewhere = await probeBytes(nonce, new Uint8Array(32));
  expect(await verifyEd25519(keys.linkKey, message.signature, elsewhere)).toBe(false);
});

test("authorities, countersigned heads and another standing are passed on; refused authorities do not end the session", async () => {
  await using link = session({ auditKey: "ssh-ed25519 AAAA" });
  const kept = ["ef".repeat(32), "01".repeat(32)];
  link.parts.authority.mockReturnValue(kept).mockImplementationOnce(() => {
    throw new Error("not taken");
  });
  link.hear({ t: "authority", ca: "one" });
  link.hear({ t: "authority", ca: "two" });
  const head = { seq: 4, hash: "cd".repeat(32), signature: "s" };
  link.hear({ t: "audit-head", ...head });
  link.hear({ ...link.welcome, standing: "quarantined", heartbeatMs: 30_000 });
  link.hear({ ...link.welcome, standing: "quarantined" });
  link.hear({ ...link.welcome });
  await until(() => expect(link.parts.standing).toHaveBeenCalledTimes(2));
  expect(link.parts.authority.mock.calls).toEqual([["one"], ["two"]]);
  // Of those that were not taken nothing is said.
  expect(link.of("trusts").map(({ message }) => message.authorities)).toEqual([kept]);
  expect(link.parts.countersigned).toHaveBeenCalledWith(expect.objectContaining(head), "ssh-ed25519 AAAA");
  expect(link.parts.standing.mock.calls).toEqual([["quarantined"], ["approved"]]);
});

test("the window of the newest welcome or goaway is what counts when the controller's side ends it", async () => {
  const link = session();
  link.hear({ ...link.welcome, reconnectWindowMs: 70_000 });
  link.hear({ t: "goaway", reason: "the controller stops", reconnectWindowMs: 90_000 });
  await settle();
  link.hangUp(4001);
  expect(await link.ended).toMatchObject({ code: 4001, ours: false, reconnectWindowMs: 90_000 });
  const other = session();
  other.hear({ ...other.welcome, reconnectWindowMs: 70_000 });
  await settle();
  other.hangUp(1006);
  expect(await other.ended).toMatchObject({ code: 1006, ours: false, reconnectWindowMs: 70_000 });
});

test("a welcome of another session, and a second challenge, end the connection", async () => {
  for (const message of [
    { t: "challenge", nonce: new Uint8Array(32), version: 1, epoch: 1, at: 0 } as const,
    undefined,
  ]) {
    const link = session();
    link.hear(message ?? { ...link.welcome, session: "another" });
    expect(await link.ended).toMatchObject({ code: 4400, ours: true });
  }
});

test("an offer that this version does not understand is refused, not the connection; what has no id closes it", async () => {
  await using link = session();
  const id = newCommandId();
  const offer = (document: string): ControllerMessage => ({
    ...{ t: "offer", document: utf8(document), signatures: [], generation: 1, epoch: 1, sources: [] },
  });
  link.parts.offered.mockImplementation(() => {
    throw new BedplateError("command.unknown-kind", "The command kind is not known here.");
  });
  link.hear(offer(JSON.stringify({ id, kind: "host.future" })));
  await until(() => expect(link.of("record")).toHaveLength(1));
  expect(link.records).toEqual([
    {
      ...{ type: "refused", command: id },
      error: expect.objectContaining({ code: "command.unknown-kind" }),
    },
  ]);
  // What a newer version took here is answered by what it left.
  link.parts.outbox.operation.mockReturnValueOnce({ id });
  link.hear(offer(JSON.stringify({ id })));
  await settle();
  expect(link.records).toHaveLength(1);
  // What is said of nonsense is bounded.
  (link.parts.outbox as { recordBytes: number }).recordBytes = limits.outboxRecordBytesMax;
  link.hear(offer(JSON.stringify({ id: newCommandId() })));
  expect((await link.ended).code).toBe(closeCodes.protocol.code);
  expect(link.records).toHaveLength(1);
});

test.each(["{}", "no JSON", '{"id":"x"}'])("the offer %s closes the connection", async (document) => {
  await using link = session();
  link.parts.offered.mockImplementation(() => {
    throw new BedplateError("command.bad-arguments", "It is none.");
  });
  link.hear({
    ...{ t: "offer", document: utf8(document), signatures: [], generation: 1, epoch: 1, sources: [] },
  });
  expect((await link.ended).code).toBe(closeCodes.protocol.code);
  expect(link.records).toEqual([]);
});

test.each(["offered", "cancel"] as const)(
  "where no more can wait for the disk (%s) the connection is closed: all is said again in the next",
  async (part) => {
    await using link = session();
    link.parts[part].mockReturnValue("no-room");
    const command = newCommandId();
    link.hear(
      part === "cancel"
        ? { t: "cancel", command }
        : { ...{ t: "offer", document: utf8("{}"), signatures: [], generation: 1, epoch: 1, sources: [] } },
    );
    expect(await link.ended).toMatchObject({ code: closeCodes.slowConsumer.code, ours: true });
  },
);

test("on a full disk the session goes on, and readings follow once it is told which were dropped", async () => {
  await using link = session();
  const full = Object.assign(new Error("database or disk is full"), { errcode: 13 });
  const append = vi.spyOn(link.parts.outbox, "append").mockImplementation(() => {
    throw full;
  });
  link.samples.add({ at: 0, key: false, dictionary: 1, data: new Uint8Array(8) });
  link.samples.add({ at: 1, key: true, dictionary: 1, data: new Uint8Array(8) });
  link.bell.ring();
  await until(() => expect(append.mock.calls.length).toBeGreaterThan(1));
  expect(link.of("batch")).toEqual([]);
  expect(link.parts.log.warn).toHaveBeenCalledOnce();
  append.mockImplementation((body) => void link.records.push(body));
  await until(() => expect(link.of("batch").map(({ message }) => message.seq)).toEqual([2]));
  expect(link.records).toEqual([{ type: "gap", from: 1, to: 1, count: 1 }]);
});

test("readings that were dropped are told in the next session, where the outbox takes nothing of it in this one", async () => {
  const link = session();
  const failure = new Error("disk I/O error");
  const append = vi.spyOn(link.parts.outbox, "append").mockImplementation(() => {
    throw failure;
  });
  // A difference without its key frame is dropped.
  link.samples.add({ at: 0, key: false, dictionary: 1, data: new Uint8Array(8) });
  link.bell.ring();
  await expect(link.ended).rejects.toBe(failure);
  expect(append).toHaveBeenCalledOnce();
  expect(link.samples.takeGaps()).toEqual([{ from: 1, to: 1, count: 1 }]);
});
