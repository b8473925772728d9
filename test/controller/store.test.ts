// What every store must do. Another backend joins by one more line in `stores`.
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { holding } from "../../controller/rules/holding.ts";
import { verifyAudit } from "../../controller/store/audit-chain.ts";
import type { NewCommand } from "../../controller/store/command-store.ts";
import { Database } from "../../controller/store/database.ts";
import { recountHeld } from "../../controller/store/held.ts";
import type { JoinRequest } from "../../controller/store/host-store.ts";
import { migrations } from "../../controller/store/migrations.ts";
import { openSqliteStore } from "../../controller/store/sqlite.ts";
import { type Store, storeLimits } from "../../controller/store/store.ts";
import type { NewJoinToken } from "../../controller/store/token-store.ts";
import type { AuditAnchor } from "../../protocol/audit.ts";
import { utf8 } from "../../protocol/bytes.ts";
import { limits } from "../../protocol/limits.ts";
import { newCommandId } from "../support/commands.ts";

const stores: Record<string, (directory: string) => Promise<Store>> = {
  sqlite: (directory) => openSqliteStore(join(directory, "controller.db")),
};

const idOf = (letter: string) => letter.repeat(64);
const facts = { instance: "i1", bootId: "b1", hostname: "h1", agentVersion: "1" };
const secretHash = new Uint8Array(32).fill(1);

describe.each(Object.entries(stores))("%s", (_name, open) => {
  let directory: string;
  let store: Store;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "bedplate-store-"));
    store = await open(directory);
  });
  afterEach(async () => {
    await store[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });
  const reopen = async () => {
    await store[Symbol.asyncDispose]();
    store = await open(directory);
  };
  const token = (id = "token-1", more: Partial<NewJoinToken> = {}) =>
    store.tokens.createJoinToken({
      ...{ id, secretHash, createdAt: 0, expiresAt: 1000, uses: 1 },
      ...{ approve: "auto", forHost: null, cidr: null },
      ...more,
    });
  const join_ = (letter: string, more: Partial<JoinRequest> = {}) =>
    store.hosts.join({
      ...facts,
      host: idOf(letter),
      linkKey: new Uint8Array(32).fill(letter.charCodeAt(0)),
      name: `host-${letter}`,
      token: { id: "token-1", secretHash },
      address: "10.1.2.3",
      at: 10,
      ...more,
    });
  const host = async (letter: string) => {
    await token(`t-${letter}`);
    await join_(letter, { token: { id: `t-${letter}`, secretHash } });
    return idOf(letter);
  };
  const newCommand = (hostId: string, more: Partial<NewCommand> = {}): NewCommand => ({
    id: newCommandId(),
    host: hostId,
    kind: "agent.ping",
    mode: "apply",
    document: utf8("{}"),
    signatures: [],
    signaturesWanted: 0,
    notAfter: null,
    at: 20,
    ...more,
  });
  const signature = (key: string, more = {}) => ({
    text: `by ${key}`,
    fingerprint: key,
    addedAt: 5,
    ...more,
  });
  /** Offers to a session that was sent `skip` already. */
  const offer = async (hostId: string, skip: readonly string[] = []) => {
    const offered = new Map(skip.map((id) => [id, 0]));
    const due = await store.commands.offerDue(
      hostId,
      { offered, cancelled: new Set(), paused: new Map(), nowMs: 0, takenBefore: 0 },
      50,
    );
    return due.steps.map((step) =>
      step.step === "offer"
        ? ([step.command.id, step.command.generation] as const)
        : (["cancel", step.id] as const),
    );
  };
  const told = async () => {
    const events = await store.events.after(0, 1000);
    return events === "gone" ? "gone" : events.map(({ topic, event }) => `${topic} ${event}`);
  };

  test("an empty store", async () => {
    expect([
      await store.epoch(),
      await store.hosts.list(),
      await store.events.newest(),
      await store.events.after(0, 10),
    ]).toEqual([1, [], 0, []]);
    expect(await store.commands.list({ limit: 10 })).toEqual([]);
    expect(await store.tokens.apiToken("x")).toBeUndefined();
  });

  test("a secret is made once", async () => {
    const made = await store.secret("a", () => Uint8Array.of(1, 2));
    await reopen();
    expect(await store.secret("a", () => Uint8Array.of(9))).toEqual(made);
    expect(await store.secret("b", () => Uint8Array.of(9))).toEqual(Uint8Array.of(9));
  });

  test("a join token binds to the first key, answers it again, and refuses others", async () => {
    await token();
    expect((await join_("a")).status).toBe("joined");
    expect((await join_("a")).status).toBe("known");
    expect((await join_("a", { at: 5000 })).status).toBe("known");
    expect(await join_("b")).toEqual({ status: "token-used" });
    expect(await join_("b", { token: { id: "token-1", secretHash: new Uint8Array(32) } })).toEqual({
      status: "token-invalid",
    });
    expect(await join_("b", { token: { id: "token-9", secretHash } })).toEqual({ status: "token-invalid" });
    await token("token-2", { uses: 2 });
    const second = { token: { id: "token-2", secretHash } };
    expect(await join_("b", { ...second, at: 1000 })).toEqual({ status: "token-expired" });
    expect((await join_("b", second)).status).toBe("joined");
    expect((await join_("c", second)).status).toBe("joined");
    expect(await join_("d", second)).toEqual({ status: "token-used" });
    await reopen();
    expect(await join_("e")).toEqual({ status: "token-used" });
    expect((await store.hosts.list()).map(({ id }) => id[0])).toEqual(["a", "b", "c"]);
    expect(await told()).toEqual([
      ...["join-token created", "host joined", "join-token created", "host joined", "host joined"],
    ]);
  });

  test("names stay unique and hosts are found by id, prefix and name", async () => {
    await token("token-1", { uses: 9 });
    await join_("a", { name: "same" });
    await join_("b", { name: "same" });
    const near = `${"a".repeat(63)}b`;
    await join_("c", { name: "near", host: near });
    expect((await store.hosts.list()).map(({ name }) => name)).toEqual(["near", "same", "same-bbbbbb"]);
    const find = async (reference: string) => (await store.hosts.find(reference)).map(({ name }) => name);
    expect(await find(idOf("a"))).toEqual(["same"]);
    expect(await find("same")).toEqual(["same"]);
    expect((await find("aaaaaa")).sort()).toEqual(["near", "same"]);
    expect(await find("bbbbbb")).toEqual(["same-bbbbbb"]);
    expect(await find("bbbbb")).toEqual([]);
    expect(await find("f".repeat(10))).toEqual([]);
    expect(await find("%")).toEqual([]);
    // A name is a host's own wish: nobody who takes the beginning of another's id, or all of it, is taken for that one.
    await join_("d", { name: "bbbbbbb" });
    expect((await find("bbbbbbb")).sort()).toEqual(["bbbbbbb", "same-bbbbbb"]);
    expect(await find("bbbbbb")).toEqual(["same-bbbbbb"]);
    await join_("e", { name: idOf("b") });
    expect(await find(idOf("b"))).toEqual(["same-bbbbbb"]);
  });

  test("sessions: the newest counts, and a restart forgets them", async () => {
    const id = await host("a");
    expect(await store.hosts.connected(id, "s1", facts, 100)).toEqual({
      ...{ records: 0, samples: 0, standing: "approved", copy: false, identity: null, newestHead: undefined },
    });
    await store.hosts.connected(id, "s2", { ...facts, bootId: "b2" }, 110);
    await store.hosts.disconnected(id, "s1", 120);
    expect(await store.hosts.get(id)).toMatchObject({
      online: true,
      changedAt: 100,
      lastSeenAt: 110,
      bootId: "b2",
    });
    await store.hosts.disconnected(id, "s2", 130);
    expect(await store.hosts.get(id)).toMatchObject({ online: false, changedAt: 130, lastSeenAt: 130 });
    await store.hosts.connected(id, "s3", facts, 140);
    await store.telemetry.append({
      batches: [],
      seen: [{ host: id, at: 150, clockOffsetMs: -7 }],
      progressed: [],
      at: 150,
    });
    await reopen();
    await store.hosts.forgetSessions();
    expect(await store.hosts.get(id)).toMatchObject({
      online: false,
      changedAt: 150,
      lastSeenAt: 150,
      clockOffsetMs: -7,
    });
    expect(await told()).toEqual([
      "join-token created",
      "host joined",
      "host online",
      "host online",
      "host offline",
      "host online",
      "host offline",
    ]);
  });

  test("records: the effect and the mark together, each once, none after a hole", async () => {
    const id = await host("a");
    const other = await host("b");
    const { command } = (await store.commands.create(newCommand(id))) as { command: { id: string } };
    const apply = (seq: number, body: object, hostId = id, instance = "i1") =>
      store.records.apply({ host: hostId, instance, seq, at: 30, body: body as never });
    expect(await apply(1, { type: "received", command: command.id })).toEqual({ status: "stored", mark: 1 });
    expect(await apply(1, { type: "received", command: command.id })).toEqual({ status: "known", mark: 1 });
    expect(await apply(3, { type: "gap", from: 1, to: 2, count: 2 })).toEqual({ status: "hole", mark: 1 });
    expect((await apply(2, { type: "gap", from: 1, to: 2, count: 2 })).mark).toBe(2);
    expect((await store.hosts.get(id))!.gaps).toBe(1);
    expect(await apply(1, { type: "running", command: command.id, run: 1 }, other)).toMatchObject({
      status: "stored",
      ignored: expect.stringContaining("another host"),
    });
    expect(await apply(3, { type: "running", command: newCommandId(), run: 1 })).toMatchObject({
      status: "stored",
      ignored: expect.stringContaining("not known"),
    });
    expect((await store.commands.get(command.id))!.state).toBe("received");
    expect((await apply(1, { type: "gap", from: 1, to: 1, count: 1 }, id, "i2")).mark).toBe(1);
    await reopen();
    expect(await store.hosts.connected(id, "s", facts, 40)).toMatchObject({ records: 3, samples: 0 });
    expect(
      await apply(4, {
        type: "result",
        command: command.id,
        result: { outcome: "succeeded", startedAt: 0, endedAt: 1, output: { x: [1] } },
      }),
    ).toMatchObject({ status: "stored" });
    expect(await store.commands.get(command.id)).toMatchObject({
      state: "succeeded",
      result: { output: { x: [1] } },
    });
  });

  test("marks of old instances are forgotten beyond a bound, the newest kept", async () => {
    const id = await host("a");
    for (let i = 0; i < storeLimits.instancesMax + 3; i++) {
      await store.hosts.connected(id, `s${i}`, { ...facts, instance: `i${i}` }, 100 + i);
      await store.records.apply({
        host: id,
        instance: `i${i}`,
        seq: 1,
        at: 100 + i,
        body: { type: "gap", from: 1, to: 1, count: 1 },
      });
    }
    expect((await store.hosts.connected(id, "s", { ...facts, instance: "i5" }, 200)).records).toBe(1);
    expect((await store.hosts.connected(id, "s", { ...facts, instance: "i0" }, 201)).records).toBe(0);
  });

  test("commands: the same again is known, other bytes conflict, too many open ones are full", async () => {
    const id = await host("a");
    const wanted = newCommand(id, { document: utf8('{"a":1}'), signatures: [signature("k")] });
    const created = await store.commands.create(wanted);
    expect(created).toMatchObject({
      status: "created",
      command: {
        state: "waiting",
        generation: null,
        signatures: [signature("k")],
        document: wanted.document,
      },
    });
    expect((await store.commands.create(wanted)).status).toBe("known");
    expect((await store.commands.create({ ...wanted, document: utf8('{"a": 1}') })).status).toBe("conflict");
    for (let i = 1; i < storeLimits.openCommandsMax; i++) await store.commands.create(newCommand(id));
    expect((await store.commands.create(newCommand(id))).status).toBe("full");
    await store.commands.apply(wanted.id, { type: "ask-cancel" }, 30);
    expect((await store.commands.create(newCommand(id))).status).toBe("created");
    expect((await store.commands.counts()).get("waiting")).toBe(storeLimits.openCommandsMax);
  });

  test("offers: a generation for what changes state, once, by compare-and-set; none for what ended", async () => {
    const id = await host("a");
    const deploy = { kind: "image.deploy", mode: "apply" };
    const [read, first, plan, second] = [
      newCommand(id),
      newCommand(id, deploy),
      newCommand(id, { kind: "image.deploy", mode: "plan" }),
      newCommand(id, deploy),
    ];
    for (const command of [read, first, plan, second]) await store.commands.create(command);
    expect(await offer(id)).toEqual([
      [read.id, 0],
      [first.id, 1],
      [plan.id, 1],
      [second.id, 2],
    ]);
    // A later session gets the same generations, in their order.
    expect(await offer(id, [read.id])).toEqual([
      [first.id, 1],
      [plan.id, 1],
      [second.id, 2],
    ]);
    expect((await store.hosts.get(id))!.generation).toBe(2);
    await store.records.apply({
      host: id,
      instance: "i1",
      seq: 1,
      at: 60,
      body: { type: "refused", command: first.id, error: { code: "policy.denied", message: "No." } },
    });
    expect((await offer(id)).map(([command]) => command)).toEqual([read.id, plan.id, second.id]);
  });

  test("a command is taken and offered in one transaction, after what is due before it", async () => {
    const id = await host("a");
    const deploy = { kind: "image.deploy", mode: "apply" };
    const [before, unsigned, wanted] = [
      newCommand(id, deploy),
      newCommand(id, { ...deploy, signaturesWanted: 1 }),
      newCommand(id, deploy),
    ];
    await store.commands.create(before);
    await store.commands.create(unsigned);
    const session = {
      offered: new Map<string, number>(),
      cancelled: new Set<string>(),
      paused: new Map<string, boolean>(),
      nowMs: 0,
      takenBefore: 0,
    };
    const answer = await store.commands.create(wanted, session);
    if (answer.status !== "created") throw new Error(answer.status);
    expect(answer.command).toMatchObject({ id: wanted.id, state: "offered", generation: 2 });
    expect(answer.due).toMatchObject({
      ...{ rest: "none", epoch: 1 },
      steps: [
        { step: "offer", command: { id: before.id, state: "offered", generation: 1 } },
        { step: "offer", command: { id: wanted.id, document: wanted.document } },
      ],
    });
    // Known or refused, nothing is offered for it.
    expect(await store.commands.create(wanted, session)).toMatchObject({ status: "known" });
    await store.commands.apply(wanted.id, { type: "ask-pause", paused: true }, 60);
    await reopen();
    expect(await store.commands.get(wanted.id)).toMatchObject({
      ...{ state: "offered", pause: { paused: true, at: 60 } },
    });
    // Said in the next session too, after its offer.
    const next = { ...session, offered: new Map<string, number>(), paused: new Map<string, boolean>() };
    expect((await store.commands.offerDue(id, next, 70)).steps).toMatchObject([
      { step: "offer", command: { id: before.id } },
      { step: "offer", command: { id: wanted.id } },
      { step: "pause", id: wanted.id },
    ]);
    expect((await store.commands.get(unsigned.id))!).toMatchObject({ state: "waiting", generation: null });
    expect(await told()).toEqual([
      ...["join-token created", "host joined", "command waiting", "command waiting", "command waiting"],
      ...["command offered", "command offered", "command pause-asked"],
    ]);
  });

  test("signatures: one a key, added while it waits; complete, it gets its generation then", async () => {
    const id = await host("a");
    const waits = newCommand(id, { kind: "image.deploy", signatures: [signature("a")], signaturesWanted: 2 });
    const other = newCommand(id, { kind: "image.deploy" });
    for (const command of [waits, other]) await store.commands.create(command);
    expect(await offer(id)).toEqual([[other.id, 1]]);
    const sign = async (key: string, more = {}) =>
      (await store.commands.sign(waits.id, signature(key, more)))?.status;
    expect(await sign("a")).toBe("known");
    expect(await sign("a", { text: "anew" })).toBe("added");
    expect(await offer(id, [other.id])).toEqual([]);
    expect(await sign("b")).toBe("added");
    await reopen();
    expect((await store.commands.get(waits.id))!.signatures).toEqual([
      { text: "anew", fingerprint: "a", addedAt: 5 },
      { text: "by b", fingerprint: "b", addedAt: 5 },
    ]);
    expect(await offer(id)).toEqual([
      [other.id, 1],
      [waits.id, 2],
    ]);
    expect([await sign("b"), await sign("c")]).toEqual(["known", "too-late"]);
    expect(await store.commands.sign(newCommandId(), signature("a"))).toBeUndefined();
    expect(((await told()) as string[]).filter((event) => event === "command signed")).toHaveLength(2);
    const full = newCommand(id, { signaturesWanted: 16 });
    await store.commands.create(full);
    for (let i = 0; i < 16; i++) await store.commands.sign(full.id, signature(`k${i}`));
    expect((await store.commands.sign(full.id, signature("k16")))?.status).toBe("full");
  });

  test("output: pieces once, the newest kept, read from an offset; followers are told when it is durable", async () => {
    const id = await host("a");
    const wanted = newCommand(id);
    await store.commands.create(wanted);
    const heard: string[] = [];
    using _following = store.records.followOutput((command) => heard.push(command));
    let seq = 0;
    const print = (stream: "stdout" | "stderr", offset: number, text: string) =>
      store.records.apply({
        ...{ host: id, instance: "i1", seq: ++seq, at: 30 },
        body: {
          ...{ type: "output", command: wanted.id, stream, offset },
          data: Buffer.from(text).toString("base64"),
        },
      });
    await print("stdout", 0, "ab");
    await print("stdout", 2, "cd");
    await print("stderr", 4, "ef");
    await print("stderr", 3, "def");
    expect(heard).toEqual([wanted.id, wanted.id, wanted.id]);
    await print("stdout", 9, "gh");
    await reopen();
    const output = async (after: number, bytesMax = 1000) => {
      const page = await store.commands.output(wanted.id, after, bytesMax);
      return [
        page!.end,
        ...page!.pieces.map((each) => `${each.stream[3]}${each.offset}${Buffer.from(each.data)}`),
      ];
    };
    expect(await output(0)).toEqual([11, "o0abcd", "e4ef", "o9gh"]);
    expect(await output(1, 3)).toEqual([11, "o1bcd"]);
    expect(await output(1, 1)).toEqual([11, "o1bcd"]);
    expect(await output(5)).toEqual([11, "e5f", "o9gh"]);
    expect(await output(99)).toEqual([11]);
    expect(await store.commands.output(newCommandId(), 0, 1)).toBeUndefined();
    expect((await store.commands.get(wanted.id))!.outputBytes).toBe(11);
  });

  test("commands that ended long ago are forgotten with their output, oldest first; open ones never", async () => {
    const id = await host("a");
    const commands = [newCommand(id), newCommand(id), newCommand(id), newCommand(id)];
    for (const command of commands) await store.commands.create(command);
    const [open, ...ended] = commands;
    await store.records.apply({
      ...{ host: id, instance: "i1", seq: 1, at: 30 },
      body: { type: "output", command: ended[0]!.id, stream: "stdout", offset: 0, data: "eA==" },
    });
    for (const [i, { id: each }] of ended.entries())
      await store.commands.apply(each, { type: "ask-cancel" }, 100 + i);
    expect(await store.commands.forget(100, 10)).toBe(0);
    expect(await store.commands.forget(102, 1)).toBe(1);
    expect(await store.commands.get(ended[0]!.id)).toBeUndefined();
    expect(await store.commands.output(ended[0]!.id, 0, 1)).toBeUndefined();
    expect(await store.commands.forget(102, 10)).toBe(1);
    await reopen();
    const left = await store.commands.list({ limit: 10 });
    expect(left.map((each) => each.id)).toEqual([ended[2]!.id, open!.id]);
  });

  test("what ended holds so much and no more: the oldest lose their documents, none its id, its host's alone", async () => {
    const [flooded, other] = [await host("a"), await host("b")];
    const bystander = newCommand(other, { document: utf8("of another host") });
    await store.commands.create(bystander);
    await store.commands.apply(bystander.id, { type: "ask-cancel" }, 1);
    const large = new Uint8Array(limits.commandBytesMax).fill(0x20);
    const count = holding.hostBytesMax / large.length + 3;
    const commands: NewCommand[] = [];
    for (let i = 0; i < count; i++) {
      const command = newCommand(flooded, { document: large, signatures: [signature("k")] });
      commands.push(command);
      await store.commands.create(command);
      await store.commands.apply(command.id, { type: "ask-cancel" }, 100 + i);
    }
    await reopen();
    const all = await store.commands.list({ host: flooded, limit: 1000 });
    expect(all).toHaveLength(count);
    const held = all.reduce((sum, { document }) => sum + document.length, 0);
    expect(held).toBeLessThanOrEqual(holding.hostBytesMax);
    expect(held).toBeGreaterThan(holding.hostBytesMax - 2 * large.length);
    const oldest = (await store.commands.get(commands[0]!.id))!;
    expect(oldest).toMatchObject({
      ...{ state: "cancelled", result: { outcome: "cancelled", error: { code: "command.cancelled" } } },
      signatures: [{ ...signature("k"), text: "" }],
    });
    expect(oldest.document).toHaveLength(0);
    expect((await store.commands.create(commands[0]!)).status).toBe("known");
    expect((await store.commands.create({ ...commands[0]!, document: utf8("{}") })).status).toBe("conflict");
    expect((await store.commands.get(commands.at(-1)!.id))!.document).toHaveLength(large.length);
    expect((await store.commands.get(bystander.id))!.document).toEqual(bystander.document);
  });

  test("output that comes after the end counts too; a large result loses what it carried, not how it ended", async () => {
    const id = await host("a");
    const [first, second] = [newCommand(id), newCommand(id)];
    const output = "x".repeat(10_000);
    for (const [i, { id: command }] of [first, second].entries()) {
      await store.commands.create(i === 0 ? first : second);
      const result = { outcome: "succeeded", startedAt: 1, endedAt: 2, output } as const;
      const at = { host: id, instance: "i1", at: 100 + i };
      const printed = { stream: "stdout", offset: 0, data: btoa("y".repeat(1000)) } as const;
      await store.records.apply({ ...at, seq: 2 * i + 1, body: { type: "result", command, result } });
      await store.records.apply({ ...at, seq: 2 * i + 2, body: { type: "output", command, ...printed } });
    }
    await store[Symbol.asyncDispose]();
    const database = new Database(join(directory, "controller.db"));
    try {
      expect(database.one("select commands, bytes from held where host = ?", id)).toMatchObject({
        commands: 2,
      });
      expect(Number(database.one("select bytes from held")!.bytes)).toBeGreaterThan(2 * 11_000);
      const bounds = { ...holding, bytesMax: 15_000 };
      await database.transaction(() => recountHeld(database, second.id, bounds));
      expect(Number(database.one("select bytes from held")!.bytes)).toBeLessThan(15_000);
    } finally {
      database.close();
    }
    store = await open(directory);
    const result = { outcome: "succeeded", startedAt: 1, endedAt: 2 };
    expect((await store.commands.get(first.id))!.result).toEqual(result);
    expect((await store.commands.output(first.id, 0, 10))!.pieces).toEqual([]);
    expect((await store.commands.get(second.id))!.result).toEqual({ ...result, output });
    expect((await store.commands.output(second.id, 0, 10))!.pieces).toHaveLength(1);
    expect(await store.commands.forget(1000, 10)).toBe(2);
    await store[Symbol.asyncDispose]();
    const after = new DatabaseSync(join(directory, "controller.db"));
    expect(after.prepare("select commands, bytes from held").all()).toEqual([{ commands: 0, bytes: 0 }]);
    after.prepare("update held set commands = ?").run(holding.hostCommandsMax);
    after.close();
    store = await open(directory);
    expect((await store.commands.create(newCommand(id))).status).toBe("too-many-kept");
  });

  test("images: mirrors in their order, at most seven, gone with their image; commands that still name one", async () => {
    const root = "7".repeat(64);
    const mirror = (url: string, more = {}) => ({
      ...{ root, url, layout: "bedplate" as const, first: false, addedAt: 9 },
      ...more,
    });
    for (let i = 0; i < 7; i++) expect(await store.images.addMirror(mirror(`http://m${i}/`))).toBe("added");
    expect(await store.images.addMirror(mirror("http://m7/"))).toBe("full");
    expect(await store.images.addMirror(mirror("http://m7/", { root: "8".repeat(64) }))).toBe("added");
    expect(await store.images.addMirror(mirror("http://m2/", { first: true, layout: "raw" }))).toBe("known");
    expect(await store.images.removeMirror(root, "http://m0/", 10)).toBe("removed");
    expect(await store.images.removeMirror(root, "http://m0/", 10)).toBe("unknown");
    await reopen();
    const kept = await store.images.mirrors();
    expect(kept.map(({ url }) => url)).toEqual([1, 2, 3, 4, 5, 6, 7].map((i) => `http://m${i}/`));
    expect(kept[1]).toEqual(mirror("http://m2/", { first: true, layout: "raw" }));

    const id = await host("a");
    const naming = (document: object) => newCommand(id, { document: utf8(JSON.stringify(document)) });
    const deploy = naming({ arguments: { image: { root } } });
    await store.commands.create(deploy);
    await store.commands.create(naming({ arguments: { image: { root: "8".repeat(64) }, seed: root } }));
    const ended = naming({ arguments: { image: { root } } });
    await store.commands.create(ended);
    await store.commands.apply(ended.id, { type: "ask-cancel" }, 30);
    expect(await store.images.openCommandsOf(root)).toEqual([deploy.id]);
    await store.images.removed(root, 40);
    expect((await store.images.mirrors()).map((left) => left.root)).toEqual(["8".repeat(64)]);
    expect(
      ((await store.events.after(0, 1000)) as readonly { event: string; id: string }[]).at(-1),
    ).toMatchObject({
      id: root,
      event: "removed",
    });
  });

  test("a list ends early rather than grow beyond its bytes, and has one at least", async () => {
    const id = await host("a");
    for (let i = 0; i < 4; i++)
      await store.commands.create(newCommand(id, { document: utf8("x".repeat(100)) }));
    const list = async (bytesMax: number) => (await store.commands.list({ limit: 9, bytesMax })).length;
    expect([await list(1), await list(250), await list(1000)]).toEqual([1, 2, 4]);
    // A list that ended early leaves nothing open behind.
    expect((await store.commands.create(newCommand(id))).status).toBe("created");
  });

  test("commands that wait past their limit are told, others not", async () => {
    const id = await host("a");
    const [late, later, offered] = [
      newCommand(id, { notAfter: 100, signatures: [signature("k")], signaturesWanted: 3 }),
      newCommand(id, { notAfter: 200 }),
      newCommand(id, { notAfter: 100 }),
    ];
    for (const command of [late, later, offered, newCommand(id)]) await store.commands.create(command);
    await offer(id, [late.id, later.id]);
    expect(await store.commands.expired(100, 20)).toEqual([]);
    expect(await store.commands.expired(101, 20)).toEqual([{ id: late.id, missing: 2, limit: "own" }]);
  });

  test("what has waited for as long as any command may is told, and never sent", async () => {
    const id = await host("a");
    const [unsigned, away] = [newCommand(id, { signaturesWanted: 2 }), newCommand(id)];
    for (const command of [unsigned, away, newCommand(id, { at: 21 })]) await store.commands.create(command);
    expect(await store.commands.expired(1000, 21)).toEqual([
      { id: unsigned.id, missing: 2, limit: "waited" },
      { id: away.id, missing: 0, limit: "waited" },
    ]);
    const session = {
      offered: new Map<string, number>(),
      cancelled: new Set<string>(),
      paused: new Map<string, boolean>(),
      nowMs: 0,
      takenBefore: 0,
    };
    expect((await store.commands.offerDue(id, { ...session, takenBefore: 21 }, 50)).steps).toHaveLength(1);
    expect((await store.commands.offerDue(id, { ...session, takenBefore: 22 }, 50)).steps).toHaveLength(1);
    expect((await store.commands.get(away.id))!.state).toBe("waiting");
  });

  test("telemetry: as received, with its dictionary, counted once, pruned by minute, bounded", async () => {
    const id = await host("a");
    const minute = 60_000;
    await store.hosts.connected(id, "s", facts, 0);
    // Every byte value, so that none is taken for text.
    const bytes = (salt: number) => Uint8Array.from({ length: 512 }, (_, i) => (i + salt) & 0xff);
    const one = await store.telemetry.dictionary(id, bytes(1), 3, 5);
    const two = await store.telemetry.dictionary(id, bytes(2), 4, 5);
    expect(await store.telemetry.dictionary(id, bytes(1), 3, 6)).toBe(one);
    const batch = (seq: number, at: number, dictionary: number) => ({
      host: id,
      instance: "i1",
      seq,
      at,
      dictionary,
      frame: bytes(seq),
    });
    const append = (...batches: ReturnType<typeof batch>[]) =>
      store.telemetry.append({ batches, seen: [], progressed: [], at: 0 });
    await append(batch(1, 10, one), batch(2, 20, one));
    await append(batch(3, 30, two), batch(4, minute + 1, two));
    await reopen();
    const read = async (from: number, to: number) =>
      (await store.telemetry.read(id, { from, to })).map(({ dictionary, frame }) => [dictionary[0], frame]);
    expect(await read(0, 0)).toEqual([
      [1, bytes(1)],
      [1, bytes(2)],
      [2, bytes(3)],
    ]);
    expect(await read(0, 9)).toHaveLength(4);
    expect(await store.hosts.get(id)).toMatchObject({
      batches: 4,
      series: 3,
      gaps: 0,
      lastBatchAt: minute + 1,
    });
    expect(await store.hosts.connected(id, "s", facts, 0)).toMatchObject({ records: 0, samples: 4 });
    await store.telemetry.prune(1);
    expect(await read(0, 9)).toEqual([[2, bytes(4)]]);
    await append({ ...batch(5, minute + 2, two), frame: new Uint8Array(storeLimits.minuteBytesMax) });
    expect(await read(0, 9)).toHaveLength(1);
    expect(await store.hosts.get(id)).toMatchObject({ batches: 4, gaps: 1 });
  });

  test("telemetry: a host that tells of ever other dictionaries fills neither disk nor memory", async () => {
    const id = await host("a");
    await store.hosts.connected(id, "s", facts, 0);
    const dictionary = (salt: number, bytes: number, at: number) => {
      const frame = new Uint8Array(bytes);
      new DataView(frame.buffer).setUint32(0, salt);
      return store.telemetry.dictionary(id, frame, 1, at);
    };
    const batch = (seq: number, number: number, at: number) => ({
      batches: [{ host: id, instance: "i1", seq, at, dictionary: number, frame: Uint8Array.of(seq) }],
      ...{ seen: [], progressed: [], at },
    });
    const read = async () =>
      (await store.telemetry.read(id, { from: 0, to: 9 })).map(({ frame }) => frame[0]);
    const minute = 60_000;
    await store.telemetry.append(batch(1, await dictionary(1, 64, 0), 0));
    const used = await dictionary(2, 64, 0);
    await store.telemetry.append(batch(2, used, minute));
    const { dictionariesMax, dictionaryBytesMax } = storeLimits;
    const many = Array.from({ length: dictionariesMax - 2 }, (_, i) => dictionary(100 + i, 64, minute));
    await Promise.all(many);
    expect(await read()).toEqual([1, 2]);
    await dictionary(5000, 64, minute);
    expect(await read()).toEqual([2]);
    expect(await store.hosts.get(id)).toMatchObject({ gaps: 1 });
    const large = Array.from({ length: (dictionaryBytesMax >> 20) + 1 }, (_, i) =>
      dictionary(6000 + i, limits.frameBytesMax, 2 * minute),
    );
    const numbers = await Promise.all(large);
    await store.telemetry.append(batch(3, numbers.at(-1)!, 2 * minute));
    await store.telemetry.append(batch(4, numbers[0]!, 2 * minute));
    expect(await read()).toEqual([3]);
    // Another host's are its own.
    const other = await host("b");
    expect(await store.hosts.get(other)).toMatchObject({ gaps: 0 });
  });

  test("events: told after the transaction, by index, until pruned; an index is never given twice", async () => {
    let calls = 0;
    {
      using _following = store.events.follow(() => calls++);
      await store.events.append({ topic: "image", id: "x", event: "added" }, 1);
      expect(calls).toBe(1);
    }
    await store.telemetry.append({ batches: [], seen: [], progressed: ["c1", "c2"], at: 2 });
    expect(calls).toBe(1);
    expect(await store.events.after(1, 10)).toEqual([
      { index: 2, at: 2, topic: "command", id: "c1", event: "progress" },
      { index: 3, at: 2, topic: "command", id: "c2", event: "progress" },
    ]);
    expect(await store.events.after(3, 10)).toEqual([]);
    expect(await store.events.after(4, 10)).toBe("gone");
    await store.events.prune(1);
    expect([await store.events.after(0, 10), await store.events.after(1, 10)]).toEqual(["gone", "gone"]);
    expect(await store.events.after(2, 10)).toHaveLength(1);
    await store.events.prune(0);
    await reopen();
    expect(await store.events.newest()).toBe(3);
    expect(await store.events.after(3, 10)).toEqual([]);
    await store.events.append({ topic: "image", id: "x", event: "added" }, 1);
    expect(await store.events.newest()).toBe(4);
  });

  test("an audit that does not hold is told of again when the clock was ahead the first time", async () => {
    const id = await host("a");
    let seq = 0;
    const head = (letter: string, at: number) =>
      store.records.apply({
        ...{ host: id, instance: "i1", seq: ++seq, place: "later" as const, at },
        body: { type: "audit-head", seq: 5, hash: letter.repeat(64), signature: "s" },
        vouched: { type: "audit-head", attestation: "k", countersignature: "c" },
      });
    const told = async () => {
      const events = await store.events.after(0, 1000);
      return events === "gone" ? events : events.filter(({ event }) => event === "audit-broken").length;
    };
    const dayMs = 86_400_000;
    await head("a", 10 * dayMs);
    await head("b", 10 * dayMs);
    await head("c", 10 * dayMs + 1);
    expect(await told()).toBe(1);
    await head("d", 9 * dayMs);
    expect(await told()).toBe(2);
    await head("e", 9 * dayMs + 1);
    expect(await told()).toBe(2);
  });

  test("events: nobody reads one that the disk may still lose, and with it its index", async () => {
    await store.events.append({ topic: "image", id: "x", event: "added" }, 1);
    const appended = store.events.append({ topic: "image", id: "y", event: "added" }, 2);
    expect([await store.events.newest(), await store.events.after(1, 10)]).toEqual([1, []]);
    expect(await store.events.after(2, 10)).toBe("gone");
    await appended;
    expect([await store.events.newest(), await store.events.after(1, 10)]).toMatchObject([2, [{ index: 2 }]]);
  });

  test("a failed transaction leaves nothing behind and tells nobody", async () => {
    let calls = 0;
    using _following = store.events.follow(() => calls++);
    const bad = {
      host: "no-such-host",
      instance: "i",
      seq: 1,
      at: 0,
      dictionary: 1,
      frame: Uint8Array.of(1),
    };
    await expect(
      store.telemetry.append({ batches: [bad], seen: [], progressed: ["c"], at: 1 }),
    ).rejects.toThrow();
    // The second one fails when the first is appended already.
    const halfWay = { batches: [], seen: [], progressed: ["c", null as never], at: 1 };
    await expect(store.telemetry.append(halfWay)).rejects.toThrow();
    await store.commands.counts();
    await store.hosts.forgetSessions();
    expect([calls, await store.events.newest()]).toEqual([0, 0]);
    await store.events.append({ topic: "image", id: "x", event: "added" }, 1);
    expect(calls).toBe(1);
  });

  test("API tokens", async () => {
    const token = {
      id: "t",
      hash: Uint8Array.of(1, 2),
      scope: "operate" as const,
      label: "l",
      createdAt: 1,
      expiresAt: null,
    };
    await store.tokens.createApiToken(token);
    await reopen();
    const kept = { ...token, lastUsedAt: null, revokedAt: null };
    expect(await store.tokens.apiToken("t")).toEqual(kept);
    await store.tokens.createApiToken({ ...token, id: "u", scope: "read", createdAt: 2, expiresAt: 9 });
    expect((await store.tokens.apiTokens()).map(({ id }) => id)).toEqual(["u", "t"]);
    await store.tokens.useApiToken("t", 5);
    expect((await store.tokens.revokeApiToken("t", 6))?.revokedAt).toBe(6);
    expect((await store.tokens.revokeApiToken("t", 7))?.revokedAt).toBe(6);
    expect(await store.tokens.revokeApiToken("nobody", 7)).toBeUndefined();
    await reopen();
    expect(await store.tokens.apiToken("t")).toEqual({ ...kept, lastUsedAt: 5, revokedAt: 6 });
    expect((await store.tokens.apiToken("u"))?.lastUsedAt).toBeNull();
    expect(await told()).toEqual(["token created", "token created", "token revoked"]);
  });

  test("standing: pending gets nothing, approval opens it, revoked is for good", async () => {
    await token("token-1", { uses: 9, approve: "manual" });
    const pending = (await join_("a")) as { host: { id: string; standing: string } };
    expect(pending.host.standing).toBe("pending");
    const { id } = pending.host;
    const wanted = newCommand(id);
    expect((await store.commands.create(wanted)).status).toBe("created");
    expect(await offer(id)).toEqual([]);
    const claim = { type: "received", command: wanted.id } as const;
    const record = { host: id, instance: "i1", seq: 1, at: 30, body: claim };
    expect((await store.records.apply(record)).ignored).toMatch(/not approved/);
    expect((await store.commands.get(wanted.id))!.state).toBe("waiting");
    expect((await store.hosts.connected(id, "s", facts, 31)).standing).toBe("pending");

    await expect(
      store.hosts.setStanding(id, { type: "approve", fingerprint: "BBBB-BBBB-BBBB-BBBB" }, 32),
    ).rejects.toMatchObject({ code: "enrol.fingerprint-mismatch" });
    expect((await store.hosts.get(id))!.standing).toBe("pending");
    const approve = { type: "approve", fingerprint: "aaaa-AAAA aaaaAAAA" } as const;
    expect((await store.hosts.setStanding(id, approve, 33))!.host).toMatchObject({
      ...{ standing: "approved", standingAt: 33 },
    });
    expect((await store.hosts.setStanding(id, approve, 34))!.host.standingAt).toBe(33);
    await expect(store.hosts.setStanding(id, { type: "reject" }, 35)).rejects.toMatchObject({
      code: "host.not-pending",
    });
    const sent = newCommand(id);
    await store.commands.create(sent);
    expect(await offer(id, [wanted.id])).toEqual([[sent.id, 0]]);
    await reopen();

    await store.hosts.setStanding(id, { type: "revoke" }, 40);
    expect((await store.commands.get(wanted.id))!).toMatchObject({
      state: "failed",
      result: { error: { code: "enrol.host-revoked" } },
    });
    expect((await store.commands.get(sent.id))!).toMatchObject({
      state: "indeterminate",
      result: { outcome: "indeterminate", error: { code: "enrol.host-revoked" } },
    });
    expect((await store.commands.create(newCommand(id))).status).toBe("revoked");
    expect((await store.hosts.connected(id, "s2", facts, 41)).standing).toBe("revoked");
    await expect(store.hosts.setStanding(id, { type: "approve" }, 42)).rejects.toMatchObject({
      code: "enrol.host-revoked",
    });
    await join_("b");
    await store.hosts.setStanding(idOf("b"), { type: "reject" }, 43);
    expect((await store.hosts.get(idOf("b")))!.standing).toBe("revoked");
    expect(await store.hosts.setStanding(idOf("c"), { type: "revoke" }, 44)).toBeUndefined();
    expect((await told()) as string[]).toEqual([
      ...["join-token created", "host joined", "host pending", "command waiting", "host online"],
      ...["host approved", "command waiting", "command offered"],
      ...["command failed", "command indeterminate", "host revoked"],
      ...["host joined", "host pending", "host rejected"],
    ]);
  });

  test("a new key takes over the name and history that its token was made for, once", async () => {
    const old = await host("a");
    await store.hosts.rename(old, "web-1", 11);
    const done = newCommand(old, { kind: "image.deploy" });
    const open = newCommand(old);
    for (const command of [done, open]) await store.commands.create(command);
    await offer(old, [open.id]);
    await store.hosts.connected(old, "s", facts, 12);
    const result = { outcome: "succeeded", startedAt: 1, endedAt: 2 } as const;
    const body = { type: "result", command: done.id, result } as const;
    await store.records.apply({ host: old, instance: "i1", seq: 1, at: 13, body });
    const frame = (value: number) => Uint8Array.of(value);
    const dictionary = await store.telemetry.dictionary(old, frame(7), 3, 14);
    const batch = { host: old, instance: "i1", seq: 1, at: 14, dictionary, frame: frame(8) };
    await store.telemetry.append({ batches: [batch], seen: [], progressed: [], at: 14 });

    await token("again", { forHost: old, approve: "manual" });
    await token("too-late", { forHost: old });
    await join_("b", { token: { id: "again", secretHash } });
    expect(await store.hosts.get(old)).toMatchObject({ name: "web-1", standing: "approved" });
    // While it waits it streams already: with the same dictionary, in the same minute.
    const fresh = idOf("b");
    await store.hosts.connected(fresh, "s2", { ...facts, instance: "i2" }, 15);
    const own = await store.telemetry.dictionary(fresh, frame(7), 3, 15);
    await store.telemetry.append({
      batches: [{ ...batch, host: fresh, instance: "i2", at: 15, dictionary: own, frame: frame(9) }],
      ...{ seen: [], progressed: [], at: 15 },
    });
    expect((await store.hosts.setStanding(fresh, { type: "approve" }, 20))!.replaced).toBe(old);
    await reopen();
    expect(await store.hosts.get(fresh)).toMatchObject({
      ...{ name: "web-1", standing: "approved", generation: 1, batches: 2, formerIds: [old] },
      ...{ replacedBy: null, takesOver: null },
    });
    expect(await store.hosts.get(old)).toMatchObject({
      ...{ name: "web-1-aaaaaa", standing: "revoked", replacedBy: fresh },
    });
    const commands = await store.commands.list({ host: fresh, limit: 9 });
    expect(commands.map(({ id, state }) => [id, state])).toEqual([
      [open.id, "failed"],
      [done.id, "succeeded"],
    ]);
    expect(commands[1]!.document).toEqual(done.document);
    const read = await store.telemetry.read(fresh, { from: 0, to: 9 });
    expect(read.map(({ dictionary, frame }) => [dictionary[0], frame[0]])).toEqual([
      [7, 8],
      [7, 9],
    ]);
    expect(await store.telemetry.read(old, { from: 0, to: 9 })).toEqual([]);
    expect(await join_("c", { token: { id: "too-late", secretHash } })).toEqual({ status: "token-used" });
    // The next key takes over from the last: the history's whole line stays known.
    await token("third", { forHost: fresh });
    expect(await join_("d", { token: { id: "third", secretHash } })).toMatchObject({
      ...{ status: "joined", replaced: fresh },
      host: { name: "web-1", formerIds: [old, fresh] },
    });
    expect(await store.commands.list({ host: idOf("d"), limit: 9 })).toHaveLength(2);
    const told_ = (await told()) as string[];
    expect(told_.filter((event) => event === "host replaced")).toHaveLength(2);
    expect(told_.filter((event) => event === "host revoked")).toHaveLength(2);
  });

  test("two keys that wait for one place: the first approved has it", async () => {
    const old = await host("a");
    await token("one", { forHost: old, approve: "manual" });
    await token("two", { forHost: old, approve: "manual" });
    await join_("b", { token: { id: "one", secretHash } });
    await join_("c", { token: { id: "two", secretHash } });
    await store.hosts.setStanding(idOf("b"), { type: "approve" }, 20);
    await expect(store.hosts.setStanding(idOf("c"), { type: "approve" }, 21)).rejects.toMatchObject({
      code: "enrol.token-used",
    });
    expect(await store.hosts.get(idOf("c"))).toMatchObject({ standing: "pending", name: "host-c" });
  });

  test("names are given anew, but never twice", async () => {
    const [a, b] = [await host("a"), await host("b")];
    expect(await store.hosts.rename(a, "web-1", 20)).toBe("renamed");
    expect(await store.hosts.rename(a, "web-1", 21)).toBe("renamed");
    expect(await store.hosts.rename(b, "web-1", 22)).toBe("taken");
    expect((await store.hosts.list()).map(({ name }) => name)).toEqual(["host-b", "web-1"]);
    expect(((await told()) as string[]).filter((event) => event === "host renamed")).toHaveLength(1);
  });

  test("join tokens: bound to a network, revoked, listed with what is left of them", async () => {
    await token("token-1", { cidr: "10.1.0.0/16", uses: 2 });
    expect(await join_("a", { address: "10.2.0.1" })).toEqual({ status: "address-denied" });
    expect((await join_("a", { address: "::ffff:10.1.9.9" })).status).toBe("joined");
    expect((await join_("a", { address: "10.2.0.1" })).status).toBe("known");
    await reopen();
    expect(await store.tokens.joinTokens()).toEqual([
      {
        ...{ id: "token-1", createdAt: 0, expiresAt: 1000, uses: 2, used: 1, approve: "auto" },
        ...{ forHost: null, cidr: "10.1.0.0/16", revokedAt: null },
      },
    ]);
    expect((await store.tokens.revokeJoinToken("token-1", 50))?.revokedAt).toBe(50);
    expect((await store.tokens.revokeJoinToken("token-1", 60))?.revokedAt).toBe(50);
    expect(await store.tokens.revokeJoinToken("token-2", 60)).toBeUndefined();
    expect(await join_("b")).toEqual({ status: "token-invalid" });
    expect((await join_("a")).status).toBe("known");
    expect(((await told()) as string[]).filter((event) => /^join-token/.test(event))).toEqual([
      ...["join-token created", "join-token revoked"],
    ]);
  });

  test("the audit is kept newest first, by age and by count", async () => {
    const entry = (at: number, more = {}) => ({
      ...{ at, token: { id: "t", name: "n" }, address: "::1", method: "POST", route: "/v1/x" },
      ...{ object: null, status: 200, code: null },
      ...more,
    });
    await store.audit.append(entry(1));
    await store.audit.append(entry(2, { object: "web-1", status: 403, code: "api.forbidden" }));
    await store.audit.append(entry(3));
    await reopen();
    expect(await store.audit.list(2)).toEqual([
      { index: 3, ...entry(3), hash: expect.stringMatching(/^[0-9a-f]{64}$/) },
      {
        ...{ index: 2, ...entry(2, { object: "web-1", status: 403, code: "api.forbidden" }) },
        hash: expect.any(String),
      },
    ]);
    await store.audit.prune(2, 9);
    expect((await store.audit.list(9)).map(({ at }) => at)).toEqual([3, 2]);
    await store.audit.prune(0, 1);
    expect((await store.audit.list(9)).map(({ at }) => at)).toEqual([3]);
  });

  test("the audit is a chain, which pruning takes only its old end from", async () => {
    const verify = (head?: AuditAnchor) => verifyAudit(store.audit, head, async () => {});
    const start = await verify();
    expect(start).toEqual({
      ...{ entries: 0, anchor: { seq: 0, hash: "0".repeat(64) }, faults: [] },
      head: { seq: 0, hash: "0".repeat(64) },
    });
    // A clock that was set back: newer entries with older times.
    const times = [1, 2, 9, 3, 4, 9, 9];
    for (const at of times)
      await store.audit.append({
        ...{ at, token: { id: "t", name: "n" }, address: "::1", method: "POST", route: "/v1/x" },
        ...{ object: null, status: 200, code: null },
      });
    const whole = await verify();
    expect(whole).toMatchObject({ entries: 7, head: { seq: 7 }, faults: [] });
    await reopen();
    await store.audit.prune(5, 100);
    expect((await store.audit.lines(0, 100)).map(({ seq }) => seq)).toEqual([3, 4, 5, 6, 7]);
    expect(await verify(whole.head)).toMatchObject({
      entries: 5,
      anchor: { seq: 2 },
      head: whole.head,
      faults: [],
    });
    await store.audit.prune(0, 2);
    expect(await verify()).toMatchObject({ entries: 2, anchor: { seq: 5 }, faults: [] });
    await store.audit.prune(100, 100);
    expect(await verify(whole.head)).toEqual({
      entries: 0,
      anchor: whole.head,
      head: whole.head,
      faults: [],
    });
    expect((await verify({ seq: 8, hash: "1".repeat(64) })).faults).toMatchObject([{ fault: "truncated" }]);
    expect((await verify({ seq: 7, hash: "1".repeat(64) })).faults).toMatchObject([{ fault: "forked" }]);
    await store.audit.append({
      ...{ at: 10, token: { id: "t", name: "n" }, address: "::1", method: "POST", route: "/v1/x" },
      ...{ object: null, status: 200, code: null },
    });
    expect(await verify(whole.head)).toMatchObject({ entries: 1, head: { seq: 8 }, faults: [] });
  });

  test("a second one on the same directory is refused", async () => {
    await expect(open(directory)).rejects.toMatchObject({ code: "state.in-use" });
  });
});

test("sqlite: the file is private, and one of a newer version is left alone", async () => {
  const directory = await mkdtemp(join(tmpdir(), "bedplate-store-"));
  const path = join(directory, "controller.db");
  await (await openSqliteStore(path))[Symbol.asyncDispose]();
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  const database = new DatabaseSync(path);
  database.exec("pragma user_version = 1000");
  database.close();
  await expect(openSqliteStore(path)).rejects.toMatchObject({ code: "state.newer" });
  await rm(directory, { recursive: true });
});

test("a database of the first release that signed nothing opens, with all that is in it", async () => {
  const directory = await mkdtemp(join(tmpdir(), "bedplate-store-"));
  const path = join(directory, "controller.db");
  const database = new DatabaseSync(path);
  const id = newCommandId();
  for (const step of migrations.slice(0, 2)) database.exec(step);
  database.exec(`
    pragma user_version = 2;
    insert into hosts (id, name, link_key, hostname, instance, boot_id, agent_version, joined_at, changed_at, last_seen_at)
      values ('${idOf("a")}', 'web-1', x'00', 'h', 'i', 'b', '1', 5, 5, 5);
    insert into commands (id, host, kind, mode, document, digest, signatures, created_at, state, open, updated_at, runs, history)
      values ('${id}', '${idOf("a")}', 'agent.ping', 'apply', x'7b7d', x'00', '["one","two"]', 7, 'waiting', 1, 7, 0, '[]');
    insert into audit (at, token, token_name, address, method, route, status) values (9, 't', 'n', '::1', 'POST', '/v1/x', 200);
  `);
  database.close();
  {
    await using store = await openSqliteStore(path);
    expect(await store.hosts.get(idOf("a"))).toMatchObject({
      name: "web-1",
      identity: null,
      auditHead: null,
    });
    expect((await store.commands.get(id))?.signatures).toMatchObject([{ text: "one" }, { text: "two" }]);
    const call = { at: 10, token: { id: "t", name: "n" }, address: "::1", method: "POST", route: "/v1/y" };
    await store.audit.append({ ...call, object: null, status: 200, code: null });
    expect((await store.audit.list(9)).map(({ index, route }) => [index, route])).toEqual([
      [2, "/v1/y"],
      [1, "/v1/x"],
    ]);
    const session = {
      offered: new Map(),
      cancelled: new Set<string>(),
      paused: new Map<string, boolean>(),
      nowMs: 0,
      takenBefore: 0,
    };
    expect((await store.commands.offerDue(idOf("a"), session, 11)).steps).toHaveLength(1);
  }
  await rm(directory, { recursive: true });
});
