// The bounds that protocol/README.md names, held against what the messages' schemas take: the last value, and the next one.
import { expect, test } from "vitest";
import { utf8 } from "../../protocol/bytes.ts";
import { decodeCommand } from "../../protocol/commands.ts";
import { limits } from "../../protocol/limits.ts";
import { checkAgentMessage, checkControllerMessage } from "../../protocol/messages.ts";
import { documentOf } from "../support/commands.ts";

const bytes = (length: number) => new Uint8Array(length);
const x = (length: number) => "x".repeat(length);
const command = "019089a0-5d2c-7000-8000-000000000000";
const hello = {
  ...{ t: "hello", versions: { min: 1, max: 1 }, agentVersion: "1", linkKey: bytes(32), nonce: bytes(32) },
  ...{ instance: "i", bootId: "b", hostname: "h" },
};
const progress = { phase: "x", done: 0, total: 1, unit: "items", rate: 0, secondsLeft: null };
const outbox = { records: 0, recordBytes: 0, sampleBytes: 0 };
const series = { name: "a", labels: {}, type: "gauge", scale: 1 };
const record = (body: object, seq = 1) => ({ t: "record", seq, at: 0, body });
const refused = (error: object) =>
  record({ type: "refused", command, error: { code: "a", message: "", ...error } });
const dictionary = (more: object, count = 1) => ({
  ...{ t: "dictionary", id: 1 },
  series: Array.from({ length: count }, () => ({ ...series, ...more })),
});
const offer = { document: bytes(1), signatures: [], generation: 0, epoch: 1, sources: [] };
const source = { url: "https://a" };
const welcome = {
  ...{ t: "welcome", session: "s", host: "0".repeat(64), name: "a", at: 0, heartbeatMs: 100 },
  ...{ reconnectWindowMs: 0, records: 0, samples: 0 },
};
const many = <T>(value: T, length: number): T[] => Array.from({ length }, () => value);

const ofAgents: Record<string, [(length: number) => object, number]> = {
  agentVersion: [(n) => ({ ...hello, agentVersion: x(n) }), 64],
  previousSession: [(n) => ({ ...hello, previousSession: x(n) }), 64],
  hostname: [(n) => ({ ...hello, hostname: x(n) }), 255],
  instance: [(n) => ({ ...hello, instance: x(n) }), 64],
  joinToken: [(n) => ({ t: "auth", signature: bytes(64), joinToken: x(n) }), 512],
  name: [(n) => ({ t: "auth", signature: bytes(64), name: x(n) }), 128],
  operations: [
    (n) => ({ t: "heartbeat", at: 0, outbox, operations: many({ id: command, state: "" }, n) }),
    1024,
  ],
  state: [(n) => ({ t: "heartbeat", at: 0, outbox, operations: [{ id: command, state: x(n) }] }), 32],
  phase: [(n) => ({ t: "progress", command, progress: { ...progress, phase: x(n) } }), 32],
  "at.name": [
    (n) => ({ t: "progress", command, progress: { ...progress, at: { number: 1, of: 1, name: x(n) } } }),
    256,
  ],
  reason: [(n) => ({ t: "goaway", reason: x(n) }), 4096],
  message: [(n) => refused({ message: x(n) }), 4096],
  hint: [(n) => refused({ hint: x(n) }), 4096],
  code: [(n) => refused({ code: x(n) }), 64],
  seq: [(n) => record({ type: "gap", from: 0, to: 0, count: 1 }, n), 2 ** 52],
  at: [(n) => ({ t: "heartbeat", at: n, outbox, operations: [] }), 8.64e15],
  series: [(n) => dictionary({}, n), 8192],
  "series' name": [(n) => dictionary({ name: x(n) }), 256],
  "label's name": [(n) => dictionary({ labels: { [x(n)]: "" } }), 64],
  "label's value": [(n) => dictionary({ labels: { a: x(n) } }), 512],
  help: [(n) => dictionary({ help: x(n) }), 512],
};
const ofControllers: typeof ofAgents = {
  session: [(n) => ({ ...welcome, session: x(n) }), 64],
  heartbeatMs: [(n) => ({ ...welcome, heartbeatMs: n }), 3_600_000],
  creditBytes: [(n) => ({ ...welcome, creditBytes: n }), 1 << 30],
  auditKey: [(n) => ({ ...welcome, auditKey: x(n) }), 512],
  signatures: [(n) => ({ t: "offer", ...offer, signatures: many("", n) }), 16],
  signature: [(n) => ({ t: "offer", ...offer, signatures: [x(n)] }), 8192],
  sources: [(n) => ({ t: "offer", ...offer, sources: many(source, n) }), 8],
  url: [(n) => ({ t: "offer", ...offer, sources: [{ url: source.url.padEnd(n, "a") }] }), 2048],
  bearer: [(n) => ({ t: "offer", ...offer, sources: [{ ...source, bearer: x(n) }] }), 512],
  ca: [(n) => ({ t: "authority", ca: x(n) }), 32_768],
};

test.each([
  ...Object.entries(ofAgents).map(([name, row]) => [name, checkAgentMessage, ...row] as const),
  ...Object.entries(ofControllers).map(([name, row]) => [name, checkControllerMessage, ...row] as const),
])("%s is taken up to its bound and not beyond", (_name, check, make, most) => {
  expect(() => check(make(most))).not.toThrow();
  expect(() => check(make(most + (most > 2 ** 52 ? 2 : 1)))).toThrow(
    expect.objectContaining({ code: "message.invalid" }),
  );
});

test("a document is taken up to its bound and not beyond", () => {
  const document = documentOf("0".repeat(64));
  expect(limits.commandBytesMax).toBe(256 * 1024);
  expect(() => decodeCommand(utf8(document.padEnd(limits.commandBytesMax)))).not.toThrow();
  expect(() => decodeCommand(utf8(document.padEnd(limits.commandBytesMax + 1)))).toThrow();
});
