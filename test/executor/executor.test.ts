// The executor as a process: one request in, the journal and the operation's socket out.
import { statSync } from "node:fs";
import { chmod, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { operationSocketPath } from "../../agent/door/contract.ts";
import { type Command, encodeCommand } from "../../protocol/commands.ts";
import { Inventory } from "../../protocol/inventory.ts";
import { checker } from "../../protocol/schema.ts";
import {
  attach,
  type ExecutorHost,
  hostId,
  isRoot,
  mintId,
  openExecutorHost,
  resultOf,
  runRequest,
  runToEnd,
} from "../support/executor-host.ts";

let host: ExecutorHost;
beforeAll(async () => {
  host = await openExecutorHost();
});
afterAll(() => host[Symbol.asyncDispose]());
beforeEach(() => rm(host.policyFile, { force: true }));

const inventory = (changes: Partial<Command> = {}) =>
  ({
    id: mintId(),
    host: hostId,
    kind: "host.inventory",
    mode: "apply",
    arguments: {},
    limits: {},
    ...changes,
  }) as Command;
const journal = (sql: string) => {
  using database = new DatabaseSync(`${host.stateDirectory}/journal.db`, { readOnly: true });
  return database.prepare(sql).all();
};

test("an inventory of this machine, without a policy: accepted, running, result", async () => {
  const { last, events, exit } = await runToEnd(host, inventory());
  expect(events.filter((event) => "seq" in event).map((event) => [event.seq, event.type])).toEqual([
    [1, "accepted"],
    [2, "running"],
    [3, "result"],
  ]);
  const { outcome, output } = resultOf(last);
  expect(outcome).toBe("succeeded");
  const found = checker(Inventory, "internal", "inventory")(output);
  expect(found.memory.totalBytes).toBeGreaterThan(1 << 20);
  expect(found.cpu.threads).toBeGreaterThan(0);
  expect(found.contentHash).toMatch(/^[0-9a-f]{64}$/);
  expect(exit).toBe(0);
  // The agent's group may go in and connect, and no more.
  const operations = statSync(dirname(operationSocketPath(host.runDirectory, "x")));
  expect((operations.mode & 0o777).toString(8)).toBe("750");
  expect(operations.gid).toBe(statSync(host.runDirectory).gid);
});

test("the same id and bytes again are replayed word for word, from any offset, and run nothing", async () => {
  const command = inventory();
  const first = await runToEnd(host, command);
  const again = await runToEnd(host, command);
  const numbered = (events: typeof first.events) => events.filter((event) => "seq" in event);
  expect(numbered(again.events)).toEqual(numbered(first.events));
  expect(journal(`SELECT runs FROM operations WHERE id = '${command.id}'`)).toEqual([{ runs: 1 }]);

  const executor = host.start({ request: "follow", command: command.id });
  const follower = await attach(host, command.id, 2);
  expect(await follower.last).toEqual(first.last);
  expect(follower.events).toHaveLength(1);
  follower.cancel("too late");
  expect(await follower.until((event) => event.type === "cancel")).toMatchObject({ answer: "too-late" });
  follower.close();
  expect(await executor.ended).toBe(0);
});

test("the same id with other bytes is a conflict and leaves the first operation's record alone", async () => {
  const command = inventory();
  const { last } = await runToEnd(host, command);
  const other = host.start(runRequest({ ...command, limits: { runForSeconds: 5 } } as Command));
  expect(await other.ended).toBe(3);
  expect(other.log()).toContain("command.id-conflict");
  expect((await runToEnd(host, command)).last).toEqual(last);
});

describe("refusals are journalled and replayed", () => {
  const cases: [string, () => Command | Uint8Array, string][] = [
    ["another host's command", () => inventory({ host: "cd".repeat(32) }), "command.wrong-host"],
    ["a command too late", () => inventory({ limits: { notAfter: 1000 } }), "command.expired"],
    ["an unknown kind", () => inventory({ kind: "disk.melt" as never }), "command.unknown-kind"],
    ["a kind of the agent", () => inventory({ kind: "agent.ping" }), "command.unknown-kind"],
    ["wrong arguments", () => inventory({ arguments: { force: true } as never }), "command.bad-arguments"],
    ["a state-changing command on a host without a policy", () => deploy(), "policy.missing"],
  ];
  const deploy = () =>
    ({
      ...inventory(),
      kind: "image.deploy",
      arguments: {
        image: { root: "00".repeat(32), sizeBytes: 5 },
        disk: { serial: "X" },
        fingerprint: {
          serial: "X",
          wwn: null,
          backing: null,
          model: null,
          sizeBytes: 5,
          logicalSectorBytes: 512,
          physicalSectorBytes: 512,
          diskSequence: 0,
          bootId: "",
          edges: "00".repeat(32),
        },
      },
    }) as Command;
  test.each(cases)("%s", async (_, make, code) => {
    const command = make() as Command;
    const first = await runToEnd(host, command);
    expect(first.last).toMatchObject({ type: "refused", seq: 1, error: { code } });
    expect(first.events).toHaveLength(1);
    expect((await runToEnd(host, command)).last).toEqual(first.last);
  });

  test("a policy that others can write, that is malformed, or that denies the kind", async () => {
    await host.writePolicy("allowDisks = []\n");
    await chmod(host.policyFile, 0o666);
    expect((await runToEnd(host, inventory())).last).toMatchObject({ error: { code: "policy.unsafe" } });
    await chmod(host.policyFile, 0o600);
    expect((await runToEnd(host, inventory())).last).toMatchObject({ type: "result" });
    await host.writePolicy("\nallowDisk = []\n");
    expect((await runToEnd(host, inventory())).last).toMatchObject({
      error: { code: "config.invalid", details: { line: 2, key: "allowDisk" } },
    });
    await host.writePolicy('denyKinds = ["host.inventory"]\n');
    expect((await runToEnd(host, inventory())).last).toMatchObject({ error: { code: "policy.denied" } });
  });
});

test("a request while its executor lives starts no second one", async () => {
  const command = inventory();
  const first = host.start(runRequest(command));
  const follower = await attach(host, command.id);
  const second = host.start(runRequest(command));
  expect(await second.ended).toBe(0);
  expect(first.process.exitCode).toBeNull();
  await follower.last;
  follower.close();
  expect(await first.ended).toBe(0);
  expect(journal(`SELECT runs FROM operations WHERE id = '${command.id}'`)).toEqual([{ runs: 1 }]);
});

test("six requests for one operation at once run it once", async () => {
  const command = inventory();
  const executors = Array.from({ length: 6 }, () => host.start(runRequest(command)));
  const follower = await attach(host, command.id);
  await follower.last;
  follower.close();
  expect(new Set(await Promise.all(executors.map(({ ended }) => ended)))).toEqual(new Set([0]));
  expect(journal(`SELECT runs FROM operations WHERE id = '${command.id}'`)).toEqual([{ runs: 1 }]);
});

test("an executor that nobody follows ends by itself", async () => {
  const executor = host.start(runRequest(inventory()));
  const started = performance.now();
  expect(await executor.ended).toBe(0);
  expect(performance.now() - started).toBeLessThan(50_000);
});

test("a follower that talks nonsense is closed, and the operation goes on", async () => {
  const command = inventory();
  const executor = host.start(runRequest(command));
  const good = await attach(host, command.id);
  expect((statSync(operationSocketPath(host.runDirectory, command.id)).mode & 0o777).toString(8)).toBe("660");
  const bad = createConnection(operationSocketPath(host.runDirectory, command.id));
  bad.on("error", () => {});
  bad.write('{"attach":{"afterSeq":-1}}\n');
  await new Promise((resolve) => bad.once("close", resolve));
  expect(await good.last).toMatchObject({ type: "result" });
  good.close();
  expect(await executor.ended).toBe(0);
});

describe("what no journal could take", () => {
  test.each([
    ["no JSON", "hello\n"],
    ["no request", '{"request":"dance"}\n'],
    ["a follow of an unknown operation", `${JSON.stringify({ request: "follow", command: mintId() })}\n`],
    ["a document without an id", `${JSON.stringify(runRequest(new TextEncoder().encode("{}")))}\n`],
  ])("%s: exit 1 and a report on standard error", async (_, line) => {
    const executor = host.start(JSON.parse(line.startsWith("{") ? line : '"hello"'));
    expect(await executor.ended).toBe(1);
    expect(executor.log()).toContain('"executor.failed"');
  });

  test("state that others can read: state.unsafe, and no operation", async () => {
    await chmod(host.stateDirectory, 0o755);
    try {
      const executor = host.start(runRequest(inventory()));
      expect(await executor.ended).toBe(1);
      expect(executor.log()).toContain('"state.unsafe"');
    } finally {
      await chmod(host.stateDirectory, 0o700);
    }
  });
});

test("the journal holds the very bytes of the command", async () => {
  const command = inventory();
  await runToEnd(host, command);
  const [row] = journal(`SELECT document FROM operations WHERE id = '${command.id}'`);
  expect(Buffer.from(row!.document as Uint8Array)).toEqual(Buffer.from(encodeCommand(command)));
});

test.runIf(isRoot)("as root it takes no argument", async () => {
  const { spawnSync } = await import("node:child_process");
  const { fileURLToPath } = await import("node:url");
  const path = fileURLToPath(new URL("../../agent/executor/executor.ts", import.meta.url));
  const end = spawnSync(
    process.execPath,
    [path, "--policy", "/tmp/p", "--state", "/tmp/s", "--run", "/tmp/r"],
    { input: "{}\n", encoding: "utf8" },
  );
  expect(end.status).toBe(2);
  expect(end.stderr).toContain('"usage"');
});
