// How long commands are kept, and how often output is told of: by clocks that the test moves.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { OutputNews } from "../../controller/commands/output-news.ts";
import { CommandService } from "../../controller/commands/service.ts";
import { silentLog } from "../../controller/machine/log.ts";
import { type Clock, systemClock } from "../../controller/machine/system.ts";
import { live, patientTime } from "../../controller/rules/patient-time.ts";
import { forgottenBefore, judgeMinting, mintedAt, retention } from "../../controller/rules/retention.ts";
import { openSqliteStore } from "../../controller/store/sqlite.ts";
import type { ApiEvent, CommandView } from "../../protocol/api.ts";
import { textOf, utf8 } from "../../protocol/bytes.ts";
import { uuidV7 } from "../../protocol/identifiers.ts";
import { documentOf, submit } from "../support/commands.ts";
import { testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

const dayMs = 86_400_000;
const secretHash = new Uint8Array(32).fill(1);

test("what ended is kept for more than 30 days, then forgotten; what has not ended stays", async () => {
  const directory = await mkdtemp(join(tmpdir(), "bedplate-retention-"));
  const store = await openSqliteStore(join(directory, "controller.db"));
  try {
    const host = "a".repeat(64);
    const joinToken = {
      id: "t",
      secretHash,
      createdAt: 0,
      expiresAt: 1e15,
      uses: 1,
      forHost: null,
      cidr: null,
    };
    await store.tokens.createJoinToken({ ...joinToken, approve: "auto" });
    await store.hosts.join({
      ...{ host, linkKey: secretHash, name: "h", token: { id: "t", secretHash }, address: "::1", at: 1 },
      ...{ instance: "i", bootId: "b", hostname: "h", agentVersion: "1" },
    });
    const start = 1_800_000_000_000;
    let nowMs = start;
    const clock: Clock = { ...systemClock, now: () => nowMs };
    const ids = Array.from({ length: 450 }, (_, i) => uuidV7(start + i, new Uint8Array(10)));
    for (const id of ids)
      await store.commands.create({
        ...{ id, host, kind: "agent.ping", mode: "apply", document: utf8("{}"), signatures: [] },
        ...{ signaturesWanted: 0, notAfter: null, at: start },
      });
    for (const id of ids.slice(1)) await store.commands.apply(id, { type: "ask-cancel" }, start);
    const parts = { store, clock, log: silentLog, images: { find: () => expect.fail() } };
    const dispatcher = { create: () => expect.fail(), wake: () => {} };
    using service = new CommandService({ ...parts, dispatcher });
    const count = async () => (await store.commands.list({ limit: 1000 })).length;
    for (const days of [29, 30, 39]) {
      nowMs = start + days * dayMs;
      await service.forget();
      expect(await count()).toBe(450);
    }
    nowMs = start + 41 * dayMs;
    await service.forget();
    expect((await store.commands.list({ limit: 1000 })).map(({ id }) => id)).toEqual([ids[0]]);
  } finally {
    await store[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  }
});

test("what nobody signs ends by itself after 30 days, also when no limit was set, and is sent to nobody", async () => {
  const directory = await mkdtemp(join(tmpdir(), "bedplate-retention-"));
  const store = await openSqliteStore(join(directory, "controller.db"));
  try {
    const host = "a".repeat(64);
    await store.tokens.createJoinToken({
      ...{ id: "t", secretHash, createdAt: 0, expiresAt: 1e15, uses: 1, forHost: null, cidr: null },
      approve: "auto",
    });
    await store.hosts.join({
      ...{ host, linkKey: secretHash, name: "h", token: { id: "t", secretHash }, address: "::1", at: 1 },
      ...{ instance: "i", bootId: "b", hostname: "h", agentVersion: "1" },
    });
    const start = 1_800_000_000_000;
    let nowMs = start;
    const clock: Clock = { ...systemClock, now: () => nowMs };
    const id = uuidV7(start, new Uint8Array(10));
    await store.commands.create({
      ...{ id, host, kind: "host.reboot", mode: "apply", document: utf8("{}"), signatures: [] },
      ...{ signaturesWanted: 2, notAfter: null, at: start },
    });
    const parts = { store, clock, log: silentLog, images: { find: () => expect.fail() } };
    using service = new CommandService({
      ...parts,
      dispatcher: { create: () => expect.fail(), wake: () => {} },
    });
    nowMs = start + retention.waitedMs;
    await service.expire();
    expect((await store.commands.get(id))!.state).toBe("waiting");
    nowMs += 1;
    await service.expire();
    expect(await store.commands.get(id)).toMatchObject({
      state: "timed-out",
      result: { outcome: "timed-out", error: { code: "command.expired" } },
    });
  } finally {
    await store[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  }
});

test("a clock that jumps years ahead makes nothing old at once; time that is lived through does", () => {
  const at = (now: number, elapsed: number) => {
    const lived = live(
      { until: 1000 * dayMs, doubtedMs: 0 },
      { now: now * dayMs, elapsedMs: elapsed * dayMs },
    );
    return patientTime(lived, now * dayMs) / dayMs;
  };
  expect(at(1000.5, 0.5)).toBe(1000.5);
  expect(at(3000, 0)).toBe(1001);
  expect(at(3000, 20)).toBe(1041);
  // Nobody has set it right for a month: it is, and it was wrong before. Else nothing would ever be forgotten.
  expect(at(3000, 30)).toBe(3000);
  // Set right, or behind, it holds again.
  expect(at(1040, 40)).toBe(1040);
  expect(at(900, 40)).toBe(900);
  // It did not run for 20 days: as many days later it has caught up.
  expect([at(1020, 0), at(1040, 20)]).toEqual([1001, 1040]);
});

test("a controller that wakes up years ahead forgets neither what was done nor how it ended", async () => {
  let aheadMs = 0;
  const clock: Clock = {
    ...systemClock,
    now: () => systemClock.now() + aheadMs,
    // Forgets each minute else.
    every: (intervalMs, action) => systemClock.every(Math.min(intervalMs, 100), action),
  };
  await using controller = await testController({ clock });
  const { client, host } = await joinLink(controller, {
    ...{ key: newLinkKey(), joinToken: await controller.joinToken() },
  });
  client[Symbol.dispose]();
  await client.closed;
  const { id } = (await submit(controller, documentOf(host))).body;
  await controller.call("POST", `/v1/commands/${id}/cancel`);
  const entries = async () =>
    (await controller.call<{ entries: unknown[] }>("GET", "/v1/audit")).body.entries.length;
  const before = await entries();
  expect(before).toBeGreaterThan(0);
  await controller.offline(async () => {
    aheadMs = 5 * 365 * dayMs;
  });
  const settled = () => new Promise((resolve) => setTimeout(resolve, 1000));
  const stillThere = async () => (await controller.call("GET", `/v1/commands/${id}`)).status;
  await settled();
  expect(await stillThere()).toBe(200);
  expect(await entries()).toBe(before);
  // What is told of from then on has the wrong time; restarts make it no truer.
  const again = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  again.client[Symbol.dispose]();
  const after = await entries();
  for (let restarts = 0; restarts < 3; restarts++) {
    await controller.restart();
    await settled();
    expect(await stillThere()).toBe(200);
  }
  expect(await entries()).toBe(after);
});

test.each(["while it runs", "while it is off"])(
  "a clock that jumps by more than 30 days %s ends only what its operator limited by the clock",
  async (when) => {
    let aheadMs = 0;
    const clock: Clock = { ...systemClock, now: () => systemClock.now() + aheadMs };
    await using controller = await testController({ clock });
    const key = newLinkKey();
    const joinToken = await controller.joinToken();
    const { client, host } = await joinLink(controller, { key, joinToken });
    client[Symbol.dispose]();
    await client.closed;
    const { id: waits } = (await submit(controller, documentOf(host))).body;
    const notAfter = clock.now() + dayMs;
    const { id: limited } = (await submit(controller, documentOf(host, { limits: { notAfter } }))).body;
    const jump = async () => {
      aheadMs = 31 * dayMs;
    };
    await (when === "while it runs" ? jump() : controller.offline(jump));
    const stateOf = async (id: string) =>
      (await controller.call<CommandView>("GET", `/v1/commands/${id}`)).body.state;
    // Looked for each second.
    await vi.waitFor(async () => expect(await stateOf(limited)).toBe("failed"), { timeout: 10_000 });
    expect(await stateOf(waits)).toBe("waiting");
    const back = await joinLink(controller, { key });
    expect((await back.client.next("offer")).document).toEqual(
      expect.toSatisfy((document: Uint8Array) => textOf(document).includes(waits)),
    );
    back.client[Symbol.dispose]();
  },
  20_000,
);

test("no id is taken for new once its command may be forgotten, however wrong the caller's clock", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 4e12 }),
      fc.integer({ min: -60 * dayMs, max: 60 * dayMs }),
      fc.nat(60 * dayMs),
      fc.nat(400 * dayMs),
      (submitted, skew, ran, later) => {
        const id = uuidV7(Math.max(0, submitted + skew), new Uint8Array(10));
        expect(mintedAt(id)).toBe(Math.max(0, submitted + skew));
        if (judgeMinting(id, submitted) !== "new") return;
        const ended = submitted + ran;
        const at = ended + later;
        if (ended < forgottenBefore(at)) expect(judgeMinting(id, at)).not.toBe("new");
      },
    ),
    { numRuns: 2000 },
  );
  expect(retention.keptMs).toBeGreaterThanOrEqual(30 * dayMs);
});

test("output is told of at once, then at most once in a quarter of a second, and the last of it always", async () => {
  let nowMs = 0;
  const timers: { at: number; action: () => void }[] = [];
  const clock: Clock = {
    now: () => nowMs,
    monotonicMs: () => nowMs,
    every: () => expect.fail(),
    after(delayMs, action) {
      const timer = { at: nowMs + delayMs, action };
      timers.push(timer);
      return { [Symbol.dispose]: () => void timers.splice(timers.indexOf(timer) >>> 0, 1) };
    },
  };
  const pass = (ms: number) => {
    nowMs += ms;
    for (const timer of timers.filter(({ at }) => at <= nowMs)) {
      timers.splice(timers.indexOf(timer), 1);
      timer.action();
    }
  };
  const told: string[] = [];
  let print: (command: string) => void = () => {};
  const events = {
    append: async ({ id, event }: Pick<ApiEvent, "topic" | "id" | "event">, at: number) =>
      void told.push(`${at} ${id} ${event}`),
  };
  const records = {
    followOutput: (listener: (command: string) => void) => {
      print = listener;
      return { [Symbol.dispose]: () => {} };
    },
  };
  using news = new OutputNews({ store: { events, records } as never, clock, log: silentLog });
  let woken = 0;
  using _reader = news.follow("a", () => woken++);
  print("a");
  print("b");
  pass(100);
  for (let i = 0; i < 5; i++) print("a");
  expect([told, woken]).toEqual([["0 a output", "0 b output"], 6]);
  pass(150);
  expect(told.slice(2)).toEqual(["250 a output"]);
  pass(250);
  expect([told.length, timers.length]).toEqual([3, 0]);
  print("a");
  expect(told.slice(3)).toEqual(["500 a output"]);
  print("a");
  news[Symbol.dispose]();
  pass(1000);
  expect([told.length, timers.length]).toEqual([4, 0]);
});
