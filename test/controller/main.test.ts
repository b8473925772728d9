// The entry: configuration with errors that name line and key, start, client.json, restart, drain.
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLog } from "../../controller/machine/log.ts";
import {
  type ControllerAddress,
  checkControllerConfig,
  defaultStateDirectory,
  runController,
} from "../../controller/main.ts";
import { ClientFile, type HostView, type StatusView } from "../../protocol/api.ts";
import { checker } from "../../protocol/schema.ts";
import { callApi, testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-main-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function configOf(text: string) {
  const configFile = join(directory, "controller.toml");
  await writeFile(configFile, text);
  return () => checkControllerConfig({ configFile });
}

test("defaults, file and options, each over the one before", async () => {
  expect(checkControllerConfig()).toMatchObject({
    listen: { host: "127.0.0.1", port: 7443 },
    names: [],
    heartbeatMs: 10_000,
    telemetryHours: 24,
    logLevel: "info",
  });
  const read = await configOf(
    'listen = "[::1]:0"\nstateDirectory = "/srv/b"\nnames = ["a.example", "10.0.0.1"]\nheartbeatSeconds = 3\n',
  );
  expect(read()).toMatchObject({
    listen: { host: "::1", port: 0 },
    stateDirectory: "/srv/b",
    names: ["a.example", "10.0.0.1"],
    heartbeatMs: 3000,
  });
  expect(checkControllerConfig({ listen: "0.0.0.0:80", stateDirectory: "/x" })).toMatchObject({
    listen: { host: "0.0.0.0", port: 80 },
    stateDirectory: "/x",
  });
});

test("the state directory follows who runs it and where state belongs", () => {
  expect(defaultStateDirectory({ XDG_STATE_HOME: "/s" }, true)).toBe("/var/lib/bedplate/controller");
  expect(defaultStateDirectory({ XDG_STATE_HOME: "/s" }, false)).toBe("/s/bedplate/controller");
  expect(defaultStateDirectory({ XDG_STATE_HOME: "not/absolute" }, false)).toMatch(
    /\/\.local\/state\/bedplate\/controller$/,
  );
  expect(defaultStateDirectory({}, false)).toMatch(/\/\.local\/state\/bedplate\/controller$/);
});

test("a configuration that cannot be used is told by file, line and key", async () => {
  const cases: [string, RegExp][] = [
    ["# fine\nlisten = 7443\n", /controller\.toml, line 2: "listen"/],
    ['names = ["ok", 7]\n', /line 1: "names/],
    ["\n\nheartbeatSeconds = 0\n", /line 3: "heartbeatSeconds"/],
    ['lissten = "x"\n', /line 1: "lissten" is not a known key/],
    ["listen = \n", /line 1/],
  ];
  for (const [text, message] of cases) {
    const read = await configOf(text);
    expect(read).toThrow(
      expect.objectContaining({ code: "config.invalid", message: expect.stringMatching(message) }),
    );
  }
  expect(() => checkControllerConfig({ configFile: "/nonexistent/x.toml" })).toThrow(
    expect.objectContaining({ code: "config.unreadable" }),
  );
  for (const listen of ["7443", "localhost", "a b:1", "127.0.0.1:70000", ":80", "::1:80"]) {
    expect(() => checkControllerConfig({ listen })).toThrow(
      expect.objectContaining({ code: "config.invalid" }),
    );
  }
});

async function run(listen: string, use: (address: ControllerAddress) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  const ready = Promise.withResolvers<ControllerAddress>();
  const running = runController(
    { stateDirectory: join(directory, "state"), listen, log: silentLog },
    stop.signal,
    ready.resolve,
  );
  running.catch(ready.reject);
  try {
    await use(await ready.promise);
  } finally {
    stop.abort();
    await running;
  }
}
const clientFile = async () =>
  checker(
    ClientFile,
    "config.invalid",
    "client.json",
  )(JSON.parse(await readFile(join(directory, "state/client.json"), "utf8")));

test("it runs until told to stop; client.json follows the address and keeps its token", async () => {
  let first: ClientFile | undefined;
  await run("127.0.0.1:0", async (address) => {
    first = await clientFile();
    expect(first.url).toBe(address.url);
    expect((await stat(join(directory, "state/client.json"))).mode & 0o777).toBe(0o600);
    expect((await stat(join(directory, "state"))).mode & 0o777).toBe(0o700);
    const answer = await callApi<StatusView>(first, "GET", "/v1/status", {
      headers: { authorization: `Bearer ${first.token}` },
    });
    expect(answer.body).toMatchObject({ epoch: 1, hosts: { known: 0, online: 0 } });
  });
  await run("127.0.0.1:0", async (address) => {
    const second = await clientFile();
    expect(second).toEqual({ url: address.url, token: first!.token, ca: first!.ca });
    await expect(run("127.0.0.1:0", async () => {})).rejects.toMatchObject({ code: "state.in-use" });
  });
  // Lost, it is made again, with a token that works.
  await rm(join(directory, "state/client.json"));
  await run("127.0.0.1:0", async () => {
    const made = await clientFile();
    expect(made.token).not.toBe(first!.token);
    expect(
      (await callApi(made, "GET", "/v1/status", { headers: { authorization: `Bearer ${made.token}` } }))
        .status,
    ).toBe(200);
  });
});

test("an address that is taken and a state directory that others can read are told", async () => {
  await run("127.0.0.1:0", async ({ port }) => {
    const other = runController(
      { stateDirectory: join(directory, "other"), listen: `127.0.0.1:${port}`, log: silentLog },
      new AbortController().signal,
    );
    await expect(other).rejects.toMatchObject({
      code: "config.invalid",
      message: expect.stringContaining("EADDRINUSE"),
    });
  });
  await chmod(join(directory, "state"), 0o755);
  await expect(run("127.0.0.1:0", async () => {})).rejects.toMatchObject({ code: "state.unsafe" });
});

test("no secret is in the state's files but client.json and the keys, nor in the log", async () => {
  const lines: string[] = [];
  const write = (facts: unknown, message?: string) => void lines.push(JSON.stringify([facts, message]));
  await using controller = await testController({
    log: { debug: write, info: write, warn: write, error: write } as never,
  });
  const joinToken = await controller.joinToken();
  const joined = await joinLink(controller, { key: newLinkKey(), joinToken });
  joined.client[Symbol.dispose]();
  const secret = joinToken.split(".")[2]!;
  const apiSecret = controller.client.token.split(".")[2]!;
  const kept = await controller.offline(() =>
    readFile(join(controller.directory, "controller.db"), "latin1"),
  );
  expect(kept).toContain(joined.host);
  expect(lines.length).toBeGreaterThan(3);
  for (const text of [secret, apiSecret, joinToken]) {
    expect(kept).not.toContain(text);
    expect(lines.join("\n")).not.toContain(text);
  }
});

test("stopping sends agents away with a window to come back in, and a restart knows everything", async () => {
  await using controller = await testController({ reconnectWindowMsMin: 1234 });
  const key = newLinkKey();
  const joined = await joinLink(controller, { key, joinToken: await controller.joinToken(), name: "stays" });
  expect(joined.welcome.reconnectWindowMs).toBe(1234);
  await controller.restart();
  expect(await joined.client.next("goaway")).toMatchObject({ reconnectWindowMs: 1234 });
  expect(await joined.client.closed).toMatchObject({ code: 4001 });
  const away = (await controller.call<HostView>("GET", "/v1/hosts/stays")).body;
  expect(away).toMatchObject({ id: joined.host, connection: "offline" });
  const back = await joinLink(controller, { key });
  expect(back.welcome).toMatchObject({ name: "stays", host: joined.host });
  back.client[Symbol.dispose]();
});
