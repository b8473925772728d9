// One valid message of each type, with members that a session can have agreed on: what mutations begin with.
import { randomBytes } from "node:crypto";
import { mintCommandId } from "../../cli/clock.ts";
import { utf8 } from "../../protocol/bytes.ts";
import type { Lots } from "./mutations.ts";

export interface AgentSession {
  /** The next record's number. */
  readonly record: number;
  readonly batch: number;
  /** Commands that this host was offered. */
  readonly commands: readonly string[];
}

type Message = Readonly<Record<string, unknown>>;

const word = () => randomBytes(6).toString("hex");

/** What an agent says after the welcome. */
export function agentMessage(session: AgentSession, lots: Lots): Message {
  const command = lots.chance(0.7) ? (session.commands.at(-1) ?? mintCommandId()) : mintCommandId();
  const at = Date.now();
  switch (lots.below(8)) {
    case 7:
      // Of a change that nobody told it of.
      return { t: "trusts", authorities: [Buffer.from(lots.bytes(32)).toString("hex")] };
    case 6:
      return { t: "proof", nonce: lots.bytes(32), signature: lots.bytes(64) };
    case 0:
      return { t: "heartbeat", at, operations: [{ id: command, state: "running" }], outbox };
    case 1:
      return {
        t: "dictionary",
        id: 1 + lots.below(3),
        series: Array.from({ length: 1 + lots.below(40) }, (_, k) => ({
          ...{ name: `series_${k}`, labels: { cpu: word() }, type: lots.pick(["counter", "gauge"]) },
          ...{ scale: lots.pick([1, 0.001, -1, 1e308]), signed: lots.chance(0.5), help: word() },
        })),
      };
    case 2: {
      const seq = lots.pick([session.batch, session.batch, session.batch + 7, 0]);
      const data = lots.bytes(lots.below(60));
      return {
        t: "batch",
        seq,
        dictionary: 1 + lots.below(3),
        at,
        intervalMs: 1000,
        key: lots.chance(0.5),
        data,
      };
    }
    case 3: {
      const progress = {
        phase: word(),
        done: lots.below(100),
        total: 100,
        unit: "bytes",
        rate: 1.5,
        secondsLeft: 3,
      };
      return { t: "progress", command, progress };
    }
    default: {
      const seq = lots.pick([
        session.record,
        session.record,
        session.record,
        session.record - 1,
        session.record + 1,
      ]);
      return { t: "record", seq: Math.max(1, seq), at, body: recordBody(command, lots) };
    }
  }
}

const outbox = { records: 1, recordBytes: 100, sampleBytes: 1000 };

function recordBody(command: string, lots: Lots): Message {
  const error = {
    code: "disk.busy",
    message: "It is mounted.",
    hint: "Unmount it.",
    details: { path: "/mnt" },
  };
  const result = {
    ...{ outcome: lots.pick(["succeeded", "failed", "indeterminate"]), startedAt: 1, endedAt: 2 },
    ...(lots.chance(0.5)
      ? { output: { at: 1, list: [1, "two", { three: 3n }], bytes: lots.bytes(9) } }
      : { error }),
  };
  return lots.pick<Message>([
    { type: "received", command },
    { type: "accepted", command },
    { type: "refused", command, error },
    { type: "running", command, run: 1 + lots.below(3) },
    { type: "result", command, result },
    { type: "gap", from: 1, to: 5, count: 5 },
    { type: "cancel", command, answer: "too-late", reason: "it has ended" },
    { type: "output", command, stream: "stdout", offset: lots.below(1000), data: "aGVsbG8=" },
    { type: "identity", identity: identityOf(lots) },
    { type: "audit-head", seq: 1 + lots.below(9), hash: "ab".repeat(32), signature: "none" },
  ]);
}

function identityOf(lots: Lots): Message {
  return {
    ...{ bedplate: "identity/1", host: "ab".repeat(32), hostname: "a-host", chassisSerial: null },
    attestationKey: `ssh-ed25519 ${Buffer.from(lots.bytes(51)).toString("base64")} bedplate-attestation`,
    ...{ proof: "none", linkSignature: "none", policyState: "missing", policyDigest: null },
    privilegeSplit: "absent",
  };
}

const notOne = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n";

/** What a controller says after the welcome. */
export function controllerMessage(host: string, lots: Lots): Message {
  switch (lots.below(9)) {
    case 8:
      // No certificate: an agent that kept it could trust nobody any more.
      return { t: "authority", ca: lots.pick([notOne, "none", `${notOne}${notOne}`]) };
    case 0:
      return { t: "heartbeat", at: Date.now() };
    case 1:
      return { t: "ack", records: lots.below(20), samples: lots.below(50) };
    case 2:
      return { t: "cancel", command: mintCommandId(), ...(lots.chance(0.5) ? { ifKnown: true } : {}) };
    case 3:
      return { t: "probe", nonce: lots.bytes(32) };
    case 4:
      return { t: "audit-head", seq: 1, hash: "cd".repeat(32), signature: "none" };
    default:
      return {
        ...{
          t: "offer",
          document: commandDocument(host, lots),
          signatures: [],
          generation: lots.below(5),
          epoch: 1,
        },
        sources: [{ url: "https://127.0.0.1:1/image", bearer: word() }],
      };
  }
}

const kinds = [
  "agent.ping",
  "host.inventory",
  "image.deploy",
  "image.verify",
  "host.exec",
  "host.reboot",
  "agent.logs",
];

function commandDocument(host: string, lots: Lots): Uint8Array {
  const document = {
    ...{ bedplate: "command/1", id: mintCommandId(), host: lots.chance(0.9) ? host : "ab".repeat(32) },
    ...{
      kind: lots.pick(kinds),
      mode: lots.pick(["apply", "plan"]),
      arguments: {},
      limits: { runForSeconds: 60 },
    },
  };
  const text = lots.chance(0.9)
    ? JSON.stringify(document)
    : JSON.stringify(document).slice(0, lots.below(200));
  return lots.chance(0.9) ? utf8(text) : lots.bytes(50);
}
