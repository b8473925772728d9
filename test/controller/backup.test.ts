// Backup of a controller at work, and a new one made from it: whole, private, one epoch further, and known to its hosts.
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  unlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startController } from "../../controller/controller.ts";
import { silentLog } from "../../controller/machine/log.ts";
import { backupStopped, restoreController } from "../../controller/main.ts";
import type {
  ApiEvent,
  BackupView,
  ClientFile,
  CommandView,
  HostView,
  StatusView,
} from "../../protocol/api.ts";
import { documentOf, submit } from "../support/commands.ts";
import { callApi, testController } from "../support/controller.ts";
import { EventReader } from "../support/event-reader.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-backup-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** The first event after `index` that is wanted, or the status of a refusal. */
async function since(index: number, client: ClientFile, wanted: (event: ApiEvent) => boolean = () => true) {
  using reader = new EventReader(client, `/v1/events?since=${index}`, {
    authorization: `Bearer ${client.token}`,
  });
  const found = () => reader.events.map(({ data }) => data as ApiEvent).find(wanted);
  await reader.until(({ status }) => status >= 400 || found() !== undefined);
  return found() ?? reader.status;
}

async function startOn(stateDirectory: string) {
  const controller = await startController(
    {
      ...{ listen: { host: "127.0.0.1", port: 0 }, stateDirectory, names: [], heartbeatMs: 10_000 },
      ...{ telemetryHours: 24, logLevel: "silent" as const },
    },
    { log: silentLog },
  );
  const client = JSON.parse(await readFile(join(stateDirectory, "client.json"), "utf8")) as ClientFile;
  const call = <T>(path: string) =>
    callApi<T>(client, "GET", path, { headers: { authorization: `Bearer ${client.token}` } });
  return { controller, client, call };
}

test("a controller is restored with its hosts, commands, tokens and authority, and its hosts go on", async () => {
  await using before = await testController();
  const key = newLinkKey();
  const host = await joinLink(before, { key, joinToken: await before.joinToken(), name: "web-1" });
  const { body: early } = await submit(before, documentOf(host.host));
  const gap = { type: "gap", from: 1, to: 1, count: 1 } as const;
  host.client.send({ t: "record", seq: 1, at: 1, body: gap });
  expect((await host.client.next("ack")).records).toBe(1);

  // Somebody writes all the while.
  let writing = true;
  const writer = (async () => {
    while (writing) await before.joinToken();
  })();
  const made = await before.call<BackupView>("POST", "/v1/backups");
  writing = false;
  await writer;
  expect(made.status).toBe(201);
  const { file } = made.body;
  expect(file.startsWith(before.directory)).toBe(true);
  const found = await stat(file);
  expect([found.mode & 0o777, found.size]).toEqual([0o600, made.body.sizeBytes]);
  expect((await readdir(before.directory)).filter((name) => /^backup/.test(name))).toEqual([basename(file)]);

  // After the backup: acknowledged here, unknown there.
  for (const seq of [2, 3]) host.client.send({ t: "record", seq, at: 1, body: gap });
  while ((await host.client.next("ack")).records < 3);
  const { body: late } = await submit(before, documentOf(host.host));
  host.client[Symbol.dispose]();

  const state = join(directory, "restored");
  expect(await restoreController({ file, directory: state })).toEqual({ epoch: 2, epochBefore: 1 });
  for (const name of await readdir(state)) expect((await stat(join(state, name))).mode & 0o077, name).toBe(0);
  expect((await readdir(state)).sort()).toEqual(["ca.key", "ca.pem", "controller.db"]);
  const { controller, client, call } = await startOn(state);
  await using _running = controller;
  expect(client.ca).toBe(before.ca);
  expect((await call<StatusView>("/v1/status")).body.epoch).toBe(2);
  expect((await call<HostView>("/v1/hosts/web-1")).body).toMatchObject({ id: host.host });
  expect((await call<CommandView>(`/v1/commands/${early.id}`)).body.state).toBe("offered");
  expect((await call(`/v1/commands/${late.id}`)).status).toBe(404);
  // The token of before is still good.
  const old = await callApi(client, "GET", "/v1/status", {
    headers: { authorization: `Bearer ${before.client.token}` },
  });
  expect(old.status).toBe(200);

  // The host has thrown away what was acknowledged: its next record is taken all the same, once.
  const again = await joinLink(client, { key });
  expect(again.welcome.records).toBe(1);
  expect((await again.client.next("offer")).epoch).toBe(2);
  again.client.send({ t: "record", seq: 4, at: 1, body: gap });
  expect((await again.client.next("ack")).records).toBe(4);
  again.client.send({ t: "record", seq: 6, at: 1, body: gap });
  expect(await again.client.closed).toMatchObject({ code: 4400 });
});

test("who followed the events of the controller before is told that it missed some, and of no index twice", async () => {
  await using before = await testController();
  const { file } = (await before.call<BackupView>("POST", "/v1/backups")).body;
  const made = await since(0, before.client, ({ event }) => event === "backup");
  for (let i = 0; i < 3; i++) await before.joinToken();
  const state = join(directory, "events");
  await restoreController({ file, directory: state });
  const { controller, client } = await startOn(state);
  await using _running = controller;
  const headers = { authorization: `Bearer ${client.token}`, "content-type": "application/json" };
  for (let i = 0; i < 10; i++)
    await callApi(client, "POST", "/v1/join-tokens", { headers, body: Buffer.from("{}") });
  // Also where there are as many by now as it has seen.
  expect(await since((made as ApiEvent).index + 3, client)).toBe(410);
  const first = await since((made as ApiEvent).index, client);
  expect(first).toMatchObject({ topic: "controller", event: "restored" });
  expect((first as ApiEvent).index).toBeGreaterThan(2 ** 32);
});

test("of what waited when the backup was made nobody says that it was never sent", async () => {
  await using before = await testController();
  const key = newLinkKey();
  const { client, host } = await joinLink(before, { key, joinToken: await before.joinToken() });
  client[Symbol.dispose]();
  await client.closed;
  // Its own limit will have passed by the time that it is restored.
  const limits = { notAfter: Date.now() + 3000 };
  const [ran, lapsed] = [
    await submit(before, documentOf(host)),
    await submit(before, documentOf(host, { limits })),
  ];
  const { file } = (await before.call<BackupView>("POST", "/v1/backups")).body;
  // After the backup it ran: acknowledged here, unknown there.
  const later = await joinLink(before, { key });
  await later.client.next("offer");
  const result = { outcome: "succeeded", startedAt: 0, endedAt: 1 } as const;
  later.client.send({ t: "record", seq: 1, at: 0, body: { type: "result", command: ran.body.id, result } });
  await later.client.next("ack");
  later.client[Symbol.dispose]();

  const state = join(directory, "waited");
  await restoreController({ file, directory: state });
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, limits.notAfter - Date.now())));
  const { controller, client: restored, call } = await startOn(state);
  await using _running = controller;
  const headers = { authorization: `Bearer ${restored.token}` };
  await callApi(restored, "POST", `/v1/commands/${ran.body.id}/cancel`, { headers });
  const view = async ({ body }: typeof ran) => (await call<CommandView>(`/v1/commands/${body.id}`)).body;
  expect(await view(ran)).toMatchObject({ state: "waiting", result: null });
  expect((await view(ran)).reason).toContain("cancellation");
  // Looked at each second.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  expect(await view(lapsed)).toMatchObject({ state: "waiting", result: null });
  // The host knows.
  const back = await joinLink(restored, { key });
  await back.client.next("offer");
  expect(await back.client.next("cancel")).toMatchObject({ command: ran.body.id });
  back.client.send({ t: "record", seq: 2, at: 0, body: { type: "result", command: ran.body.id, result } });
  await back.client.next("ack");
  expect(await view(ran)).toMatchObject({ state: "succeeded" });
  back.client[Symbol.dispose]();
}, 30_000);

test("each restore goes one epoch further, or as far as is asked", async () => {
  await using first = await testController();
  const { file } = (await first.call<BackupView>("POST", "/v1/backups")).body;
  const [a, b, c] = ["a", "b", "c"].map((name) => join(directory, name)) as [string, string, string];
  expect((await restoreController({ file, directory: a })).epoch).toBe(2);
  const second = await backupStopped(a);
  expect(second.epoch).toBe(2);
  expect(await restoreController({ file: second.file, directory: b })).toEqual({ epoch: 3, epochBefore: 2 });
  expect((await restoreController({ file, directory: c, epochMin: 40 })).epoch).toBe(40);
});

test("a controller that runs is not backed up behind its back", async () => {
  await using running = await testController();
  await expect(backupStopped(running.directory)).rejects.toMatchObject({ code: "state.in-use" });
  const empty = join(directory, "nothing-here");
  await expect(backupStopped(empty)).rejects.toMatchObject({ code: "state.backup-invalid" });
});

test("nothing is written over, and what is no backup leaves nothing behind", async () => {
  await using source = await testController();
  const { file } = (await source.call<BackupView>("POST", "/v1/backups")).body;
  const full = join(directory, "full");
  await mkdir(full, { mode: 0o700 });
  await writeFile(join(full, "precious"), "x");
  await expect(restoreController({ file, directory: full })).rejects.toMatchObject({
    code: "state.not-empty",
  });
  expect(await readdir(full)).toEqual(["precious"]);
  await expect(restoreController({ file, directory: source.directory })).rejects.toMatchObject({
    code: "state.not-empty",
  });
  const target = join(directory, "target");
  const [text, short, plain] = ["text", "short", "plain"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await writeFile(text, "this is no database at all, however long it may be".repeat(20));
  await writeFile(short, await readFile(file));
  await truncate(short, Math.floor((await stat(file)).size / 2));
  await writeFile(plain, await readFile(join(source.directory, "controller.db")));
  for (const bad of [text, short, plain]) {
    await expect(restoreController({ file: bad, directory: target }), bad).rejects.toMatchObject({
      code: "state.backup-invalid",
    });
    expect(await readdir(target)).toEqual([]);
  }
  await expect(
    restoreController({ file: join(directory, "absent"), directory: target }),
  ).rejects.toMatchObject({ code: "config.unreadable" });
});

test("who fetches a backup while another one is made gets a whole one", async () => {
  await using controller = await testController();
  // Some size, so that it takes a while.
  await Promise.all(Array.from({ length: 300 }, () => controller.joinToken()));
  const { file } = (await controller.call<BackupView>("POST", "/v1/backups")).body;
  let making = true;
  const others = Promise.all(
    Array.from({ length: 5 }, () => controller.call<BackupView>("POST", "/v1/backups")),
  ).finally(() => {
    making = false;
  });
  const fetched = join(directory, "fetched");
  let looks = 0;
  for (; making; looks++) {
    await copyFile(file, fetched);
    const database = new DatabaseSync(fetched, { readOnly: true });
    const tables = database.prepare("select count(*) as files from backup_files").get();
    database.close();
    expect(tables).toEqual({ files: 2 });
  }
  expect(looks).toBeGreaterThan(0);
  await others;
});

test("of two backups at once each asker fetches and removes its own", async () => {
  await using controller = await testController();
  const fetch = async () => {
    const { status, body } = await controller.call<BackupView>("POST", "/v1/backups");
    expect(status).toBe(201);
    await copyFile(body.file, join(directory, `fetched-${basename(body.file)}`));
    await unlink(body.file);
    return body.file;
  };
  expect(new Set(await Promise.all([1, 2, 3].map(fetch))).size).toBe(3);
  expect((await readdir(controller.directory)).filter((name) => name.startsWith("backup"))).toEqual([]);
});

test("of backups that nobody fetches the newest are kept, and of unfinished ones none", async () => {
  await using controller = await testController();
  await writeFile(join(controller.directory, `backup-${"0".repeat(36)}.bedplate.new`), "half", {
    mode: 0o600,
  });
  await writeFile(join(controller.directory, "backup-of-mine.bedplate"), "", { mode: 0o600 });
  const files: string[] = [];
  for (let k = 0; k < 12; k++)
    files.push(basename((await controller.call<BackupView>("POST", "/v1/backups")).body.file));
  const found = (await readdir(controller.directory)).filter((name) => name.startsWith("backup"));
  expect(found.sort()).toEqual([...files.slice(-8), "backup-of-mine.bedplate"].sort());
});
