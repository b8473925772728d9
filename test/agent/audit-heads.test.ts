// Heads of the host's audit as the agent relays and keeps them: none too many, none that hides that the audit went back.
import { generateKeyPairSync, sign } from "node:crypto";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openStateDirectory } from "../../agent/host/state-directory.ts";
import { openAuditHeads } from "../../agent/link/audit-heads.ts";
import { reduceOperations } from "../../agent/operations/reduce.ts";
import { noOperations, type OperationsEvent, type OperationsState } from "../../agent/operations/state.ts";
import { auditHeadBytes } from "../../protocol/audit.ts";
import { judgeHead, relayHead } from "../../protocol/audit-heads.ts";
import { publicKeyLine, type SigningKey, signMessage } from "../../protocol/ssh-sign.ts";
import { newCommandId } from "../support/commands.ts";

const host = "ab".repeat(32);
const hash = (seq: number, chain = "a") => chain.repeat(56) + seq.toString(16).padStart(8, "0");
const keyOf = (): SigningKey & { line: string } => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = Uint8Array.from(publicKey.export({ format: "der", type: "spki" }).subarray(-32));
  return {
    publicKey: raw,
    sign: (data) => Uint8Array.from(sign(null, data, privateKey)),
    line: publicKeyLine(raw, "bedplate-controller-audit"),
  };
};
const controllerKey = keyOf();
const signed = async (seq: number, chain = "a", key: SigningKey = controllerKey) => {
  const head = { seq, hash: hash(seq, chain) };
  return { ...head, signature: await signMessage(key, "bedplate-audit", auditHeadBytes(host, head)) };
};

let directory: string;
let told: { level: string; facts: object }[];
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "bedplate-heads-")), "state");
  told = [];
});
afterEach(() => rmSync(join(directory, ".."), { recursive: true }));
const file = () => join(directory, "audit-heads.jsonl");
const full = () => {
  throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
};
const open = () =>
  openAuditHeads({
    host,
    state: openStateDirectory(directory),
    log: {
      warn: (facts: object) => void told.push({ level: "warn", facts }),
      error: (facts: object) => void told.push({ level: "error", facts }),
    } as never,
  });
const lines = () =>
  readFileSync(file(), "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));

test("what was sent and what the controller signed is kept, and known after a restart", async () => {
  const heads = open();
  expect(heads.newest()).toBeUndefined();
  heads.sent({ seq: 3, hash: hash(3), signature: "host's" });
  await heads.countersigned(await signed(3), controllerKey.line);
  expect(lines()).toMatchObject([
    { seq: 3, hash: hash(3), signature: "host's", by: "host" },
    { seq: 3, hash: hash(3), by: "controller", auditKey: controllerKey.line },
  ]);
  expect(open().newest()).toEqual({ seq: 3, hash: hash(3) });
  expect(told).toEqual([]);
});

test("a head that the controller signed otherwise than this host said is an alarm; one by another key is not kept", async () => {
  const heads = open();
  heads.sent({ seq: 3, hash: hash(3), signature: "" });
  await heads.countersigned(await signed(3, "b", keyOf()), controllerKey.line);
  expect(told).toMatchObject([{ level: "warn", facts: { code: "signature.unknown-key" } }]);
  expect(lines()).toHaveLength(1);
  await heads.countersigned(await signed(3, "b"), controllerKey.line);
  expect(told.at(-1)).toMatchObject({
    level: "error",
    facts: { code: "audit.broken", seq: 3, hash: hash(3), countersigned: hash(3, "b") },
  });
  // It is evidence: `audit verify` names the fork from it.
  expect(lines().at(-1)).toMatchObject({ by: "controller", hash: hash(3, "b") });
});

test("a power cut may leave half a line, or rubbish: the rest counts", async () => {
  open().sent({ seq: 7, hash: hash(7), signature: "x" });
  appendFileSync(file(), '{"seq":8,"hash":"aa');
  expect(open().newest()).toEqual({ seq: 7, hash: hash(7) });
  open().sent({ seq: 9, hash: hash(9), signature: "x" });
  expect(lines().map(({ seq }) => seq)).toEqual([7, 9]);
  writeFileSync(file(), "zzzz", { mode: 0o600 });
  expect(open().newest()).toBeUndefined();
});

test("the file does not grow without end", () => {
  const heads = open();
  for (let seq = 1; seq <= 6000; seq++) heads.sent({ seq, hash: hash(seq), signature: "x" });
  const kept = lines();
  expect(kept.length).toBeGreaterThanOrEqual(2000);
  expect(kept.length).toBeLessThanOrEqual(2500);
  expect(kept.at(-1).seq).toBe(6000);
  expect(open().newest()?.seq).toBe(6000);
});

test("heads of one chain in any order raise no alarm, and the controller is told the furthest", () => {
  fc.assert(
    fc.property(
      fc.shuffledSubarray(
        Array.from({ length: 12 }, (_, i) => i + 1),
        { minLength: 1 },
      ),
      (order) => {
        let newest: { seq: number; hash: string } | undefined;
        const sent: number[] = [];
        for (const seq of order) {
          // All of them began before any head was known.
          const said = relayHead(newest, 0, { seq, hash: hash(seq) });
          expect(said).not.toBe("broken");
          if (said === "covered") continue;
          sent.push(seq);
          const known = { newest: newest?.seq, same: undefined };
          expect(judgeHead(known, { seq, hash: hash(seq) })).toBe("next");
          newest = { seq, hash: hash(seq) };
        }
        expect(sent.at(-1)).toBe(Math.max(...order));
      },
    ),
  );
});

test("a chain that was cut off is found out by the first operation after it, however it grows", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 1000 }), fc.integer({ min: 1, max: 999 }), (was, back) => {
      fc.pre(back < was);
      const newest = { seq: was, hash: hash(was) };
      // It was handed to an executor when entry `was` was known.
      expect(relayHead(newest, was, { seq: back, hash: hash(back, "b") })).toBe("broken");
      expect(relayHead(newest, was, { seq: was, hash: hash(was, "b") })).toBe("broken");
      expect(relayHead(newest, was, { seq: was + 1, hash: hash(was + 1) })).toBe("sent");
    }),
  );
});

/** Runs operations through the agent's reducer: each ends with a head. */
function relayed(events: readonly OperationsEvent[]): {
  heads: number[];
  alarms: number;
  state: OperationsState;
} {
  let state: OperationsState = noOperations;
  const heads: number[] = [];
  let alarms = 0;
  for (const event of events) {
    const step = reduceOperations(state, event, {
      ...{ monotonicMs: 0, unixMs: 0, recordBytes: 0, outputBytes: 0 },
    });
    state = step.state;
    for (const change of step.changes)
      if (change.change === "record" && change.body.type === "audit-head") heads.push(change.body.seq);
    alarms += step.effects.filter(
      (effect) => effect.effect === "log" && effect.message.startsWith("audit.broken"),
    ).length;
  }
  return { heads, alarms, state };
}
const offer = (id: string): OperationsEvent => ({
  ...{ event: "offer", id, runs: "executor", changesState: false, known: undefined },
  offer: { document: new Uint8Array(), signatures: [], generation: 1, epoch: 1, sources: [] },
});
const begun = (id: string): OperationsEvent[] => [
  offer(id),
  { event: "absent", id, ended: false, trouble: "" },
  { event: "started", id },
  { event: "attached", id },
];
const accepted = (id: string, seq: number, chain = "a"): OperationsEvent => ({
  event: "said",
  id,
  said: { type: "accepted", seq: 1, at: 0, audit: { seq, hash: hash(seq, chain), signature: "s" } },
});

test("the reducer: operations beside each other are told in order; one that began later cannot be behind", () => {
  const [a, b, c] = [newCommandId(), newCommandId(), newCommandId()];
  const beside = relayed([...begun(a), ...begun(b), accepted(b, 12), accepted(a, 11), ...begun(c)]);
  expect(beside).toMatchObject({ heads: [12], alarms: 0 });
  const rolledBack = relayed([...begun(a), accepted(a, 12), ...begun(c), accepted(c, 5, "b")]);
  expect(rolledBack).toMatchObject({ heads: [12, 5], alarms: 1 });
  // What an earlier process began may be behind what this one knows from its file.
  const kept = {
    ...{ id: a, state: "received", eventSeq: 0, outputEnd: 0, ending: null, endingSeq: 0 },
    ...{ offer: null, changesState: true },
  } as never;
  const restarted = relayed([
    { event: "opened", operations: [kept], audit: { seq: 12, hash: hash(12) } },
    { event: "attached", id: a },
    accepted(a, 11),
  ]);
  expect(restarted).toMatchObject({ heads: [], alarms: 0 });
});

test("what the controller says again at each welcome is kept once, also across restarts", async () => {
  const heads = open();
  heads.sent({ seq: 3, hash: hash(3), signature: "" });
  const back = await signed(3);
  for (let i = 0; i < 3; i++) await heads.countersigned(back, controllerKey.line);
  expect(lines()).toHaveLength(2);
  const later = open();
  await later.countersigned(back, controllerKey.line);
  expect(lines()).toHaveLength(2);
  // Another word of the controller is kept, and so is the one before when it comes after that.
  await later.countersigned(await signed(4), controllerKey.line);
  await later.countersigned(back, controllerKey.line);
  expect(lines().map(({ seq, by }) => [seq, by])).toEqual([
    [3, "host"],
    [3, "controller"],
    [4, "controller"],
    [3, "controller"],
  ]);
});

test("on a full disk heads are not kept, nothing else ends by it, and all are kept when there is room", async () => {
  const state = openStateDirectory(directory);
  let room = false;
  const heads = openAuditHeads({
    host,
    log: { warn: (facts) => void told.push({ level: "warn", facts }), error: () => expect.fail() },
    state: {
      ...state,
      append(name, text) {
        if (room) return state.append(name, text);
        appendFileSync(file(), text.slice(0, 20));
        full();
      },
      write: (name, bytes) => (room ? state.write(name, bytes) : full()),
    },
  });
  heads.sent(await signed(1));
  await heads.countersigned(await signed(1), controllerKey.line);
  expect(told).toHaveLength(1);
  room = true;
  for (const seq of [2, 3]) heads.sent(await signed(seq));
  const kept = readFileSync(file(), "utf8").trim().split("\n");
  expect(kept.map((line) => (JSON.parse(line) as { seq: number }).seq)).toEqual([1, 1, 2, 3]);
});
