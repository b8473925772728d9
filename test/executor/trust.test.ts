// What an executor keeps beyond one operation: its attestation key and identity, the audit's chain, the fence, the journal
// of an older version, and the order in which operations get the lane.
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { attestationKeyLine, openAttestationKey } from "../../agent/executor/attestation.ts";
import { checkAudit, type KeptHead } from "../../agent/executor/audit-check.ts";
import { idleKeptMax, openJournal, readJournal, sha256Hex } from "../../agent/executor/journal.ts";
import { takeLane } from "../../agent/executor/lane.ts";
import { auditEntriesMax } from "../../agent/executor/trust-tables.ts";
import { systemFiles } from "../../agent/host/files.ts";
import { explainPolicy, resetFence, showFence, verifyAudit } from "../../agent/host-tools.ts";
import { auditHeadBytes, type HostAuditEntry } from "../../protocol/audit.ts";
import { type Command, type Effect, encodeCommand } from "../../protocol/commands.ts";
import { attestationProofBytes, type ExecutorIdentity } from "../../protocol/identity.ts";
import { planLimits, verifyPlan } from "../../protocol/plans.ts";
import { parsePublicKey } from "../../protocol/ssh-keys.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import {
  attach,
  auditOf,
  type ExecutorHost,
  hostId,
  mintId,
  openExecutorHost,
  resultOf,
  runRequest,
  runToEnd,
} from "../support/executor-host.ts";
import { makeOperator } from "../support/operators.ts";

// Several executors after each other, which give way to whatever else runs on a busy machine.
const busy = { timeout: 180_000 } as const;
const user = process.geteuid!();
let host: ExecutorHost;
beforeAll(async () => {
  host = await openExecutorHost();
});
afterAll(() => host?.[Symbol.asyncDispose]());
const sleepPolicy = `unsigned = ["host.exec"]
[kinds."host.exec"]
argv = [["/bin/sleep", "*"], ["/bin/true"]]
`;
beforeEach(() => host.writePolicy(sleepPolicy));

const exec = (argv: readonly string[], more: object = {}): Command =>
  ({
    id: mintId(),
    host: hostId,
    kind: "host.exec",
    mode: "apply",
    arguments: { argv },
    limits: {},
    ...more,
  }) as Command;
const inventory = (): Command => ({
  id: mintId(),
  host: hostId,
  kind: "host.inventory",
  mode: "apply",
  arguments: {},
  limits: {},
});
const paths = () => ({
  policy: host.policyFile,
  stateDirectory: host.stateDirectory,
  runDirectory: host.runDirectory,
});
const entries = () => auditOf(host);

describe("identity", busy, () => {
  const identify = async () => {
    const executor = host.start({ request: "identify", host: hostId });
    expect(await executor.ended, executor.log()).toBe(0);
    const path = `${host.runDirectory}/identity.json`;
    return {
      identity: JSON.parse(await readFile(path, "utf8")) as ExecutorIdentity,
      status: await stat(path),
    };
  };

  test("the attestation key is made once, private, and vouches for its host", async () => {
    const { identity, status } = await identify();
    expect(status.mode & 0o777).toBe(0o644);
    const keyStatus = await stat(`${host.stateDirectory}/attestation.key`);
    expect(keyStatus.mode & 0o777).toBe(0o600);
    expect(identity).toMatchObject({
      host: hostId,
      policyState: "present",
      policyDigest: sha256Hex(await readFile(host.policyFile)),
      // These tests start it themselves, as the user that they are.
      privilegeSplit: "absent",
    });
    expect(identity.attestationKey).toBe(attestationKeyLine(systemFiles, host.stateDirectory, user));
    await verifySignature(identity.proof, {
      namespace: "bedplate-identity",
      message: attestationProofBytes(hostId),
      keys: [parsePublicKey(identity.attestationKey)],
    });
    expect((await identify()).identity).toEqual(identity);
  });

  test("a file of now stays; another policy is told, by any operation too", async () => {
    const { status } = await identify();
    expect((await identify()).status.ino).toBe(status.ino);
    await host.writePolicy(`${sleepPolicy}# more\n`);
    const { log } = await runToEnd(host, inventory());
    expect(log).toContain("the privilege split is absent");
    const told = JSON.parse(await readFile(`${host.runDirectory}/identity.json`, "utf8")) as ExecutorIdentity;
    expect(told.policyDigest).toBe(sha256Hex(`${sleepPolicy}# more\n`));
    await host.writePolicy("nonsense = 1\n");
    expect((await identify()).identity).toMatchObject({ policyState: "unusable", policyDigest: null });
  });

  test("an attestation key that others can read is not used", async () => {
    await identify();
    await chmod(`${host.stateDirectory}/attestation.key`, 0o640);
    try {
      const executor = host.start({ request: "identify", host: hostId });
      expect(await executor.ended).toBe(1);
      expect(executor.log()).toContain("state.unsafe");
    } finally {
      await chmod(`${host.stateDirectory}/attestation.key`, 0o600);
    }
  });

  test("six executors at once make one key", async () => {
    await using fresh = await openExecutorHost();
    const executors = Array.from({ length: 6 }, () => fresh.start({ request: "identify", host: hostId }));
    expect(await Promise.all(executors.map(({ ended }) => ended))).toEqual(Array(6).fill(0));
    const { attestationKey } = JSON.parse(await readFile(`${fresh.runDirectory}/identity.json`, "utf8"));
    expect(attestationKey).toBe(attestationKeyLine(systemFiles, fresh.stateDirectory, user));
  });
});

describe("plans of every kind", busy, () => {
  test("of a program: its arguments, what the policy says, signed", async () => {
    const ask = exec(["/bin/sleep", "0"], { mode: "plan" });
    const { artefact } = resultOf((await runToEnd(host, ask)).last).output as {
      artefact: { text: string; signature: string };
    };
    const key = attestationKeyLine(systemFiles, host.stateDirectory, user)!;
    const { plan } = await verifyPlan(artefact, key);
    expect(plan).toMatchObject({
      id: ask.id,
      kind: "host.exec",
      arguments: { argv: ["/bin/sleep", "0"] },
      requires: null,
      allowed: true,
    });
    const { id, hostname, chassisSerial } = plan;
    const quote = { id, digest: sha256Hex(artefact.text), hostname, chassisSerial };
    // What is not the planned argument vector is not the plan's, whatever the policy would allow.
    const other = exec(["/bin/sleep", "1"], { plan: quote });
    expect((await runToEnd(host, other)).last).toMatchObject({ error: { code: "plan.changed" } });
    const right = exec(["/bin/sleep", "0"], { plan: quote });
    expect(resultOf((await runToEnd(host, right)).last).outcome).toBe("succeeded");
    const again = exec(["/bin/sleep", "0"], { plan: quote });
    expect((await runToEnd(host, again)).last).toMatchObject({ error: { code: "plan.used" } });
  });

  test("one that the policy would not let through says so, and why", async () => {
    await host.writePolicy("");
    const { output } = resultOf((await runToEnd(host, exec(["/bin/true"], { mode: "plan" }))).last);
    const plan = JSON.parse((output as { artefact: { text: string } }).artefact.text);
    expect(plan.allowed).toBe(false);
    expect(
      plan.findings.filter(({ ok }: { ok: boolean }) => !ok).map(({ code }: { code: string }) => code),
    ).toEqual(["policy.signature-required", "policy.exec-not-allowed"]);
  });

  test("the journal keeps a bounded number of them", async () => {
    await using fresh = await openExecutorHost();
    using journal = openJournal(fresh.stateDirectory);
    const plan = (id: string) => ({
      ...{ id, kind: "host.exec", digest: id, arguments: {}, text: "{}", issuedAt: 1, expiresAt: 2 },
    });
    for (let i = 0; i < planLimits.keptMax + 5; i++) journal.keepPlan(plan(`p${i}`));
    expect(journal.plan("p4")).toBeUndefined();
    expect(journal.plan("p5")).toMatchObject({ usedBy: null });
    journal.usePlan("p5", "c");
    expect(journal.plan("p5")).toMatchObject({ usedBy: "c" });
  });
});

describe("the audit", busy, () => {
  test("tells of each operation, and its heads are signed", async () => {
    const command = exec(["/bin/true"]);
    const { events } = await runToEnd(host, command);
    expect(
      entries()
        .filter((entry) => entry.command === command.id)
        .map(({ event }) => event),
    ).toEqual(["offered", "accepted", "started", "step", "step", "ended"]);
    const key = parsePublicKey(attestationKeyLine(systemFiles, host.stateDirectory, user)!);
    const heads = events.flatMap((event) =>
      "audit" in event && event.audit !== undefined ? [event.audit] : [],
    );
    expect(heads).toHaveLength(2);
    for (const head of heads) {
      await verifySignature(head.signature, {
        namespace: "bedplate-audit",
        message: auditHeadBytes(hostId, head),
        keys: [key],
      });
    }
    expect(await verifyAudit(paths(), { headFiles: [], keys: [] })).toMatchObject({ faults: [] });
  });

  test("garbage is noted once, and whatever comes between again", async () => {
    const count = () =>
      entries().filter((entry) => entry.command === null && entry.event === "refused").length;
    const before = count();
    const garbage = async () => {
      const executor = host.start({ request: "dance" } as never);
      expect(await executor.ended).toBe(1);
    };
    await garbage();
    await garbage();
    const withoutId = host.start(runRequest(new TextEncoder().encode('{"kind":"image.deploy"}')));
    expect(await withoutId.ended).toBe(1);
    expect(count()).toBe(before + 1);
    await runToEnd(host, inventory());
    await garbage();
    expect(count()).toBe(before + 2);
  });

  test("a cancel is in it, with its answer", async () => {
    const command = exec(["/bin/sleep", "600"]);
    const executor = host.start(runRequest(command));
    const follower = await attach(host, command.id);
    await follower.until((event) => event.type === "progress");
    follower.cancel("no longer wanted");
    follower.cancel("no longer wanted");
    expect(resultOf(await follower.last).outcome).toBe("cancelled");
    follower.close();
    await executor.ended;
    const said = entries().filter((entry) => entry.command === command.id && entry.event === "cancel");
    expect(said.map(({ detail }) => detail)).toMatchObject([
      { answer: "cancelling", asked: "no longer wanted" },
    ]);
  });

  describe("tampered with", () => {
    let directory: ExecutorHost;
    let heads: KeptHead[];
    let key: string;
    beforeAll(async () => {
      directory = await openExecutorHost();
      using journal = openJournal(directory.stateDirectory);
      const attestation = openAttestationKey(systemFiles, directory.stateDirectory, user);
      key = attestation.line;
      heads = Array.from({ length: 12 }, (_, i) => {
        const head = journal.appendAudit({
          at: i,
          event: "offered",
          command: `c${i}`,
          kind: null,
          detail: {},
        });
        return {
          ...head,
          signature: attestation.sign("bedplate-audit", auditHeadBytes(hostId, head)),
          from: "test",
        };
      });
    });
    afterAll(() => directory?.[Symbol.asyncDispose]());
    /** The faults after `sql`, which is undone. */
    const faultsAfter = async (
      change: (database: DatabaseSync) => void,
      known: readonly KeptHead[] = heads,
    ) => {
      using database = new DatabaseSync(`${directory.stateDirectory}/journal.db`);
      database.exec("BEGIN");
      change(database);
      const lines = database.prepare("SELECT text, hash FROM audit ORDER BY seq").all() as never[];
      database.exec("ROLLBACK");
      const { faults } = await checkAudit(hostId, { anchor: undefined, lines }, known, [key]);
      return faults.map(({ fault }) => fault);
    };
    /** Writes the chain anew from entry 5 on, as root could: every hash is right again. */
    const rewrite = (database: DatabaseSync) => {
      const rows = database.prepare("SELECT seq, text, hash FROM audit ORDER BY seq").all();
      let previous = "";
      for (const { seq, text, hash } of rows) {
        if (Number(seq) < 5) previous = String(hash);
        else {
          const entry = { ...(JSON.parse(String(text)) as HostAuditEntry), previous };
          const written = JSON.stringify(seq === 5 ? { ...entry, command: "other" } : entry);
          previous = sha256Hex(written);
          database.prepare("UPDATE audit SET text = ?, hash = ? WHERE seq = ?").run(written, previous, seq!);
        }
      }
    };

    test("not: nothing is found", async () => expect(await faultsAfter(() => {})).toEqual([]));
    test("an entry edited", async () =>
      expect(
        await faultsAfter((db) => db.exec("UPDATE audit SET text = replace(text, 'c4', 'cX') WHERE seq = 5")),
      ).toEqual(["edited"]));
    test("an entry edited, its hash too", async () =>
      expect(
        await faultsAfter((db) => {
          const row = db.prepare("SELECT text FROM audit WHERE seq = 5").get()!;
          const text = String(row.text).replace("c4", "cX");
          db.prepare("UPDATE audit SET text = ?, hash = ? WHERE seq = 5").run(text, sha256Hex(text));
        }),
      ).toEqual(["edited", "forked"]));
    test("an entry deleted", async () =>
      expect(await faultsAfter((db) => db.exec("DELETE FROM audit WHERE seq = 5"))).toEqual(["deleted"]));
    test("the end cut off", async () =>
      expect(new Set(await faultsAfter((db) => db.exec("DELETE FROM audit WHERE seq > 9")))).toEqual(
        new Set(["truncated"]),
      ));
    test("the chain written anew: heads that were signed before tell", async () => {
      expect(await faultsAfter(rewrite, [])).toEqual([]);
      expect(new Set(await faultsAfter(rewrite))).toEqual(new Set(["forked"]));
    });
    test("a head that somebody else signed proves nothing, and is told", async () => {
      const mallory = makeOperator(directory.directory, "mallory");
      const forged = { seq: 99, hash: "00".repeat(32), from: "heads:1" };
      const signature = await mallory.sign(auditHeadBytes(hostId, forged), "bedplate-audit");
      expect(await faultsAfter(() => {}, [...heads, { ...forged, signature }])).toEqual(["bad-signature"]);
    });
  });

  test("keeps its newest entries, and what the first of them follows", async () => {
    await using fresh = await openExecutorHost();
    using journal = openJournal(fresh.stateDirectory);
    const count = auditEntriesMax + 250;
    journal.atomically(() => {
      for (let i = 0; i < count; i++)
        journal.appendAudit({ at: i, event: "offered", command: null, kind: null, detail: {} });
    });
    const kept = journal.audit();
    expect(kept.lines).toHaveLength(auditEntriesMax + 50);
    expect(kept.anchor?.seq).toBe(200);
    expect(journal.auditHead()?.seq).toBe(count);
    expect(await checkAudit(hostId, kept, [], [])).toMatchObject({
      faults: [],
      entries: auditEntriesMax + 50,
    });
    const { faults } = await checkAudit(hostId, { ...kept, lines: kept.lines.slice(1) }, [], []);
    expect(faults).toMatchObject([{ fault: "deleted", from: 201, to: 201 }]);
  });

  test("heads are read from files, a line each; one that was being written is left out", async () => {
    await runToEnd(host, inventory());
    using journal = readJournal(host.stateDirectory);
    const [head] = journal.signedHeads(1);
    const file = `${host.directory}/heads.jsonl`;
    await writeFile(file, `${JSON.stringify(head)}\n{"seq":`);
    const found = await verifyAudit(paths(), { host: hostId, headFiles: [file], keys: [] });
    expect(found.faults).toEqual([]);
    await writeFile(file, `${JSON.stringify({ ...head, seq: head!.seq + 100 })}\n`);
    const forged = await verifyAudit(paths(), { host: hostId, headFiles: [file], keys: [] });
    expect(forged.faults).toMatchObject([{ fault: "bad-signature" }]);
  });
});

test(
  "a host that joined anew has another id: its audit is one, and nothing is wrong with it",
  busy,
  async () => {
    await using fresh = await openExecutorHost();
    await fresh.writePolicy(sleepPolicy);
    const later = "cd".repeat(32);
    await runToEnd(fresh, inventory());
    await runToEnd(fresh, { ...inventory(), host: later }, { host: later });
    const { policyFile: policy, stateDirectory, runDirectory } = fresh;
    const own = { policy, stateDirectory, runDirectory };
    const found = await verifyAudit(own, { host: later, headFiles: [], keys: [] });
    expect(found).toMatchObject({ faults: [], heads: 4, headsHeld: 4 });
    // What is not in the chain any more is missed none the less.
    {
      using database = new DatabaseSync(`${stateDirectory}/journal.db`);
      database.exec("DELETE FROM audit WHERE seq > 6");
    }
    const cut = await verifyAudit(own, { host: later, headFiles: [], keys: [] });
    expect(cut.faults.map(({ fault }) => fault)).toContain("truncated");
  },
);

describe("the fence", busy, () => {
  test("is moved by what is accepted alone, and taken away by its owner, which is audited", async () => {
    const at = (generation: number, epoch = 1) => ({ generation, epoch });
    const run = async (offer: { generation: number; epoch: number }) =>
      (await runToEnd(host, exec(["/bin/true"]), offer)).last;
    expect((await run(at(70_000))).type).toBe("result");
    expect(showFence(paths())).toMatchObject({ epoch: 1, generation: 70_000 });
    expect(await run(at(69_999))).toMatchObject({ error: { code: "command.stale-generation" } });
    expect(await run(at(70_000))).toMatchObject({ error: { code: "command.generation-conflict" } });
    expect(showFence(paths())).toMatchObject({ generation: 70_000 });
    expect((await run(at(1, 2))).type).toBe("result");
    expect(await run(at(70_001))).toMatchObject({ error: { code: "command.stale-epoch" } });
    expect(resetFence(paths())).toMatchObject({ epoch: 2, generation: 1 });
    expect(entries().at(-1)).toMatchObject({ event: "fence-reset", detail: { before: { epoch: 2 } } });
    expect((await run(at(5))).type).toBe("result");
    resetFence(paths());
  });
});

test("an operation that has ended takes the lane from nobody when it is asked for again", busy, async () => {
  await using fresh = await openExecutorHost();
  await fresh.writePolicy(sleepPolicy);
  const request = runRequest(exec(["/bin/true"]));
  expect(await fresh.start(request).ended).toBe(0);
  // Its executor comes no further than to where it would write.
  using journal = new DatabaseSync(`${fresh.stateDirectory}/journal.db`);
  journal.exec("BEGIN IMMEDIATE");
  const again = fresh.start(request);
  let taken = 0;
  for (const until = Date.now() + 5000; Date.now() < until; await sleep(20)) {
    const lane = takeLane(fresh.stateDirectory);
    if (lane === "busy") taken++;
    else lane[Symbol.dispose]();
  }
  journal.exec("ROLLBACK");
  expect(await again.ended, again.log()).toBe(0);
  expect(taken).toBe(0);
});

test("what changed nothing is forgotten when enough others came after it", busy, async () => {
  await using fresh = await openExecutorHost();
  using journal = openJournal(fresh.stateDirectory);
  const document = new Uint8Array(1000);
  const ids: string[] = [];
  const add = (effect: Effect, end: "refused" | "succeeded" | "running") => {
    const id = mintId();
    const operation = { ...{ id, digest: new Uint8Array(32), document, kind: "host.exec", effect } };
    const offer = { ...operation, epoch: 1, generation: 1, signatures: [], at: 1 };
    if (end === "refused")
      journal.add(offer, { type: "refused", at: 1, error: { code: "x.y", message: "" } });
    else journal.add(offer, { type: "accepted", at: 1 });
    if (end !== "refused") journal.startRun(id, 1);
    if (end === "succeeded")
      journal.finish(id, { type: "result", at: 1, result: { outcome: end, startedAt: 1, endedAt: 1 } });
    ids.push(id);
    return id;
  };
  journal.atomically(() => {
    add("once", "succeeded");
    add("read", "running");
    add("read", "succeeded");
    add("once", "refused");
    for (let i = 0; i < idleKeptMax; i++) add("once", i % 2 === 0 ? "refused" : "succeeded");
    for (let i = 0; i < idleKeptMax / 2 - 1; i++) add("read", "succeeded");
  });
  journal.prune(0);
  const kept = ids.slice(0, 4).map((id) => journal.operation(id)?.state);
  // One that ran stays, so that it is not run again; of the others the newest do.
  expect(kept).toEqual(["succeeded", "running", undefined, "refused"]);
  using database = new DatabaseSync(`${fresh.stateDirectory}/journal.db`, { readOnly: true });
  const [row] = database
    .prepare(
      "SELECT count(*) AS count, max(length(document)) AS bytes FROM operations WHERE state = 'refused'",
    )
    .all();
  expect(row).toEqual({ count: 1 + idleKeptMax / 2, bytes: 0 });
});

test("a journal of version 1 keeps working, and its fence begins where it had come to", busy, async () => {
  await using old = await openExecutorHost();
  const id = mintId();
  const document = encodeCommand(inventory());
  {
    using database = new DatabaseSync(`${old.stateDirectory}/journal.db`);
    database.exec(`PRAGMA journal_mode = WAL;
      CREATE TABLE operations (
        id TEXT PRIMARY KEY, digest BLOB NOT NULL, document BLOB NOT NULL, kind TEXT NOT NULL, effect TEXT NOT NULL,
        state TEXT NOT NULL, runs INTEGER NOT NULL, server TEXT NOT NULL, epoch INTEGER NOT NULL, generation INTEGER NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
      ) STRICT;
      CREATE TABLE events (
        operation TEXT NOT NULL REFERENCES operations ON DELETE CASCADE, seq INTEGER NOT NULL, json TEXT NOT NULL, PRIMARY KEY (operation, seq)
      ) STRICT, WITHOUT ROWID;
      CREATE TABLE notes (
        operation TEXT NOT NULL REFERENCES operations ON DELETE CASCADE, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (operation, name)
      ) STRICT;
      PRAGMA user_version = 1;`);
    const add = database.prepare("INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?, 1, 'run', ?, ?, ?, ?)");
    const now = Date.now();
    add.run(id, Buffer.alloc(32, 1), document, "image.deploy", "resumable", "succeeded", 2, 40, now, now);
    add.run("b", Buffer.alloc(32, 2), document, "image.deploy", "resumable", "failed", 2, 41, now, now);
    add.run("c", Buffer.alloc(32, 3), document, "image.deploy", "resumable", "refused", 9, 99, now, now);
    add.run("d", Buffer.alloc(32, 4), document, "host.inventory", "read", "succeeded", 8, 98, now, now);
    database
      .prepare("INSERT INTO events VALUES (?, 1, ?)")
      .run(id, JSON.stringify({ type: "accepted", seq: 1, at: now }));
  }
  {
    using journal = openJournal(old.stateDirectory);
    expect(journal.fence()).toEqual({ epoch: 2, generation: 41, digest: "02".repeat(32) });
    expect(journal.operation(id)).toMatchObject({ state: "succeeded", signatures: [], noReturn: false });
    expect(journal.events(id, 0)).toHaveLength(1);
    expect(journal.audit()).toEqual({ anchor: undefined, lines: [] });
  }
  await old.writePolicy(sleepPolicy);
  const stale = await runToEnd(old, exec(["/bin/true"]), { epoch: 2, generation: 41 });
  expect(stale.last).toMatchObject({ error: { code: "command.generation-conflict" } });
  const next = await runToEnd(old, exec(["/bin/true"]), { epoch: 2, generation: 42 });
  expect(resultOf(next.last).outcome).toBe("succeeded");
});

describe("the lane", busy, () => {
  const startExec = async (argv: readonly string[], limits: object = {}) => {
    const command = exec(argv, { limits });
    const executor = host.start(runRequest(command));
    const follower = await attach(host, command.id);
    return { id: command.id, executor, follower };
  };
  const finish = async ({ executor, follower }: Awaited<ReturnType<typeof startExec>>) => {
    const result = resultOf(await follower.last);
    follower.close();
    await executor.ended;
    return result;
  };

  test("who may wait for it is accepted, and gets it in the order of acceptance", async () => {
    const first = await startExec(["/bin/sleep", "600"]);
    await first.follower.until(({ type }) => type === "running");
    const waiting = [];
    for (let i = 0; i < 3; i++) {
      const one = await startExec(["/bin/sleep", "0.3"], { startWithinSeconds: 600 });
      await one.follower.until(({ type }) => type === "accepted");
      waiting.push(one);
    }
    // Nobody overtakes them, though one that cannot wait is refused.
    expect((await runToEnd(host, exec(["/bin/true"]))).last).toMatchObject({
      error: { code: "executor.lane-busy", details: { waiting: 3 } },
    });
    first.follower.cancel("");
    const results = [await finish(first)];
    for (const one of waiting) results.push(await finish(one));
    expect(results.map(({ outcome }) => outcome)).toEqual(["cancelled", ...Array(3).fill("succeeded")]);
    for (let i = 1; i < 4; i++) expect(results[i]!.startedAt).toBeGreaterThanOrEqual(results[i - 1]!.endedAt);
  });

  test("who waited too long ends as timed out, with nothing done", async () => {
    const first = await startExec(["/bin/sleep", "600"]);
    await first.follower.until(({ type }) => type === "running");
    const late = await startExec(["/bin/true"], { startWithinSeconds: 1 });
    expect(await finish(late)).toMatchObject({ outcome: "timed-out", error: { code: "command.expired" } });
    expect(late.follower.events.some(({ type }) => type === "running")).toBe(false);
    first.follower.cancel("");
    expect(await finish(first)).toMatchObject({ outcome: "cancelled" });
  });

  test("who waits can be cancelled, and a policy that changed meanwhile is asked again", async () => {
    const first = await startExec(["/bin/sleep", "600"]);
    await first.follower.until(({ type }) => type === "running");
    const cancelled = await startExec(["/bin/true"], { startWithinSeconds: 600 });
    const denied = await startExec(["/bin/true"], { startWithinSeconds: 600 });
    for (const { follower } of [cancelled, denied]) await follower.until(({ type }) => type === "accepted");
    cancelled.follower.cancel("");
    expect(await finish(cancelled)).toMatchObject({ outcome: "cancelled" });
    await host.writePolicy('denyKinds = ["host.exec"]\n');
    first.follower.cancel("");
    await finish(first);
    expect(await finish(denied)).toMatchObject({ outcome: "failed", error: { code: "policy.denied" } });
  });
});

test("a policy explains itself to a command", busy, async () => {
  const document = encodeCommand(exec(["/bin/sleep", "5"]));
  expect(await explainPolicy(paths(), document)).toMatchObject({ allowed: true, requires: null });
  const alice = makeOperator(host.directory, "alice");
  await host.writePolicy(`[signers]
ops = ["${alice.line}"]
[kinds."host.exec"]
signatures = { k = 1, from = ["ops"] }
argv = [["/bin/true"]]
`);
  const explained = await explainPolicy(paths(), document);
  expect(explained).toMatchObject({ allowed: false, requires: { k: 1, operators: ["alice"] }, signedBy: [] });
  expect(explained.findings.filter(({ ok }) => !ok).map(({ code }) => code)).toEqual([
    "policy.exec-not-allowed",
    "policy.signature-required",
  ]);
  const allowed = encodeCommand(exec(["/bin/true"]));
  expect(await explainPolicy(paths(), allowed, [await alice.sign(allowed)])).toMatchObject({
    allowed: true,
    signedBy: ["alice"],
  });
});

test("a policy says what it asks of the image of a deploy, and whether this one has it", busy, async () => {
  const [alice, bob, eve] = ["alice", "bob", "eve"].map((name) => makeOperator(host.directory, name));
  const manifest = Buffer.from("the very bytes of a manifest");
  const fingerprint = {
    ...{ serial: null, wwn: null, backing: "/a", model: null, sizeBytes: 4096 },
    ...{ logicalSectorBytes: 512, physicalSectorBytes: 512, diskSequence: 1, bootId: "b" },
    edges: "0".repeat(64),
  };
  const deploy = (mode: "plan" | "apply") =>
    encodeCommand({
      ...{ id: mintId(), host: hostId, kind: "image.deploy", mode, limits: {} },
      arguments: {
        ...{ image: { root: "a".repeat(64), sizeBytes: 4096 }, disk: { file: "none" } },
        ...(mode === "plan" ? {} : { fingerprint }),
      },
    } as unknown as Command);
  const imageFinding = async (document: Uint8Array, ...signers: (typeof alice)[]) => {
    const signatures = await Promise.all(signers.map((one) => one!.sign(manifest, "bedplate-image")));
    const { findings, image } = await explainPolicy(paths(), document, [], { manifest, signatures });
    return { ...findings.find(({ guard }) => guard === "image")!, signedBy: image?.signedBy };
  };
  const policy = `[signers]\nops = ["${alice!.line}", "${bob!.line}"]\n`;
  await host.writePolicy(policy);
  expect(await imageFinding(deploy("plan"))).toMatchObject({
    ...{ ok: true, finding: "the policy asks for no signatures of images" },
  });
  await host.writePolicy(`imageSignatures = { k = 2, from = ["ops"] }\n${policy}`);
  for (const mode of ["plan", "apply"] as const) {
    const document = deploy(mode);
    const unknown = await explainPolicy(paths(), document);
    expect(unknown.image).toEqual({
      root: "a".repeat(64),
      requires: { k: 2, from: ["ops"], operators: ["alice", "bob"] },
      signedBy: null,
    });
    expect(unknown.findings.find(({ guard }) => guard === "image")).toMatchObject({
      ok: true,
      finding: expect.stringContaining(
        "must be signed by 2 of ops (alice, bob); its signatures are not known",
      ),
    });
    expect(await imageFinding(document)).toMatchObject({ ok: false, code: "image.unsigned", signedBy: [] });
    const one = await imageFinding(document, alice, eve, alice);
    expect(one).toMatchObject({ ok: false, code: "image.unsigned", signedBy: ["alice"] });
    expect(one.finding).toContain("only alice signed it");
    expect(await imageFinding(document, bob, alice)).toMatchObject({ ok: true, signedBy: ["bob", "alice"] });
    // Of a command it is no signature of an image.
    const asCommand = await bob!.sign(manifest);
    const explained = await explainPolicy(paths(), document, [], { manifest, signatures: [asCommand] });
    expect(explained.image?.signedBy).toEqual([]);
  }
  expect((await explainPolicy(paths(), encodeCommand(exec(["/bin/true"])))).image).toBeNull();
});
