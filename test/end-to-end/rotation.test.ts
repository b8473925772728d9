// A change of the controller's authority with real agents: one that is there all the time, one that comes back while both
// are good, one that comes back too late, and one that joins with a token of before.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { type ApiClient, openApi } from "../../cli/api-client.ts";
import { parseClientFile } from "../../cli/connection.ts";
import type { RotationView } from "../../protocol/api.ts";
import { openPrivateRoot, type PrivateRoot } from "../support/private-root.ts";
import { programPath } from "../support/programs.ts";

const program = programPath("bedplate");
const stopped = new AbortController();
let directory: string;
let port: number;
let controller: ChildProcess;
let root: PrivateRoot;
const agents = new Map<string, { child: ChildProcess; log: () => string }>();

const ended = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once("exit", () => resolve());
  });
const until = (done: () => unknown, timeout = 30_000) => vi.waitFor(done, { timeout, interval: 100 });

async function startController(): Promise<void> {
  const argv = ["--listen", `127.0.0.1:${port}`, "--state-directory", join(directory, "controller")];
  const child = spawn(process.execPath, [program, "controller", ...argv], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr!.on("data", (text) => {
    log += text;
  });
  controller = child;
  await until(() => expect(log).toContain("the controller listens"));
}

function startAgent(name: string, ...more: string[]): void {
  const file = join(directory, `${name}.toml`);
  mkdirSync(join(directory, name), { recursive: true, mode: 0o700 });
  writeFileSync(
    file,
    `controller = "https://127.0.0.1:${port}"\nname = "${name}"\nstateDirectory = "${directory}/${name}"\n[metrics]\nlisten = "off"\n`,
  );
  const [first, ...rest] = root.wrap([process.execPath, program, "agent", "--config", file, ...more]);
  const child = spawn(first, rest, {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  for (const stream of [child.stdout!, child.stderr!])
    stream.on("data", (text) => {
      log += text;
    });
  agents.set(name, { child, log: () => log });
}
async function stopAgent(name: string): Promise<void> {
  const { child } = agents.get(name)!;
  child.kill("SIGTERM");
  await ended(child);
}
const logOf = (name: string) => agents.get(name)!.log();
const pinsOf = (name: string) => readFileSync(join(directory, name, "controller-ca.pem"), "utf8");
const clientFile = () => join(directory, "controller/client.json");
const trustedIn = (text: string) => (text.match(/BEGIN CERTIFICATE/g) ?? []).length;
const apiNow = (): ApiClient =>
  openApi(parseClientFile(readFileSync(clientFile(), "utf8"), "client.json"), stopped.signal);
const hostOf = async (name: string) => {
  using api = apiNow();
  return await api.host(name);
};
const isOnline = async (name: string) => expect((await hostOf(name)).connection).toBe("online");
const token = async () => {
  using api = apiNow();
  return (await api.createJoinToken({})).token;
};
const bedplate = (...argv: string[]) => {
  const run = spawnSync(process.execPath, [program, ...argv, "--client", clientFile()], { encoding: "utf8" });
  return { status: run.status, stdout: run.stdout, stderr: run.stderr };
};
const rotate = (...more: string[]) => {
  const run = bedplate("controller", "rotate-ca", "--json", ...more);
  expect(run.status, run.stderr).toBe(0);
  return JSON.parse(run.stdout) as RotationView;
};

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-rotation-"));
  root = await openPrivateRoot(directory);
  port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
  await startController();
});
afterEach(async () => {
  for (const name of agents.keys()) await stopAgent(name);
});
afterAll(async () => {
  stopped.abort();
  controller.kill("SIGTERM");
  await ended(controller);
  await root[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

test("the authority changes under agents that are there, away for a while, away too long, and new", async () => {
  for (const name of ["present", "late", "lost"]) startAgent(name, "--join", await token());
  for (const name of ["present", "late", "lost"]) await until(() => isOnline(name));
  const before = Object.fromEntries(
    await Promise.all(["present", "late", "lost"].map(async (name) => [name, (await hostOf(name)).id])),
  );
  const oldToken = await token();
  await stopAgent("late");
  await stopAgent("lost");
  const oldClient = readFileSync(clientFile(), "utf8");
  const oldPins = pinsOf("present");

  // Begun: who is there knows both at once, and its connection goes on.
  const begun = rotate();
  expect(begun).toMatchObject({ state: "overlapping", startedAt: expect.any(Number) });
  expect(begun.authorities).toHaveLength(2);
  expect(begun.waiting.map(({ name }) => name).sort()).toEqual(["late", "lost"]);
  await until(() => expect(trustedIn(pinsOf("present"))).toBe(2));
  expect(pinsOf("present")).toContain(oldPins.trim());
  expect(logOf("present")).not.toContain("the connection to the controller ended");
  const again = bedplate("controller", "rotate-ca");
  expect([again.status, again.stderr]).toEqual([
    expect.any(Number),
    expect.stringContaining("authority.overlapping"),
  ]);
  // The client file of before serves as long as both are good; the new one knows both.
  writeFileSync(join(directory, "old-client.json"), oldClient, { mode: 0o600 });
  const old = () => {
    const argv = [program, "hosts", "--client", join(directory, "old-client.json")];
    return spawnSync(process.execPath, argv, { encoding: "utf8" });
  };
  expect(old().status).toBe(0);
  expect(trustedIn(JSON.parse(readFileSync(clientFile(), "utf8")).ca)).toBe(2);

  // While both are good: the one that was away comes back, and one joins with a token that names the old one.
  startAgent("late");
  await until(() => isOnline("late"));
  await until(() => expect(trustedIn(pinsOf("late"))).toBe(2));
  startAgent("newcomer", "--join", oldToken);
  await until(() => isOnline("newcomer"));
  await until(() => expect(trustedIn(pinsOf("newcomer"))).toBe(2));
  await until(() => expect(rotate("--status").waiting.map(({ name }) => name)).toEqual(["lost"]));

  // Also over a restart of the controller, and of an agent.
  controller.kill("SIGKILL");
  await ended(controller);
  await startController();
  for (const name of ["present", "late"]) await until(() => isOnline(name));
  expect(rotate("--status")).toMatchObject({ state: "overlapping", authorities: begun.authorities });

  // Finished: the old one is given up everywhere; who was away all the time is named.
  const asked = bedplate("controller", "rotate-ca", "--finish");
  expect([asked.status, asked.stderr]).toEqual([2, expect.stringContaining("lost")]);
  const finished = rotate("--finish", "--yes");
  expect(finished).toMatchObject({ state: "finished", waiting: [{ name: "lost" }] });
  expect(finished.authorities).toEqual([begun.authorities[0]]);
  for (const name of ["present", "late", "newcomer"]) {
    await until(() => expect(trustedIn(pinsOf(name))).toBe(1));
    expect(pinsOf(name)).not.toContain(oldPins.trim());
  }
  expect(old().status).toBe(8);
  for (const name of ["present", "late"]) {
    await stopAgent(name);
    startAgent(name);
    await until(() => isOnline(name));
    expect((await hostOf(name)).id).toBe(before[name]);
  }

  // Too late: told what it is and what to do. The token of before is of no use, a new one is, and it is the same host.
  startAgent("lost");
  await until(() => expect(logOf("lost")).toContain("controller.untrusted"));
  expect(logOf("lost")).toContain("bedplate join-token create");
  await stopAgent("lost");
  startAgent("lost", "--join", oldToken);
  await until(() => expect(logOf("lost")).toContain("controller.untrusted"));
  expect((await hostOf("lost")).connection).toBe("offline");
  await stopAgent("lost");
  startAgent("lost", "--join", await token());
  await until(() => isOnline("lost"));
  expect((await hostOf("lost")).id).toBe(before.lost);
  expect(bedplate("ping", "lost").status).toBe(0);
  await until(() => expect(rotate("--status").waiting).toEqual([]));
  // A token that is left in its configuration does not bring the old one back.
  await stopAgent("lost");
  startAgent("lost", "--join", oldToken);
  await until(() => isOnline("lost"));
  expect(trustedIn(pinsOf("lost"))).toBe(1);
  expect(pinsOf("lost")).not.toContain(oldPins.trim());
}, 240_000);
