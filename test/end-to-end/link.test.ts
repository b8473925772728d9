// Agent and controller as real processes over real TLS: coming back, going on, and what an operator reads when it fails.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { type ApiClient, openApi } from "../../cli/api-client.ts";
import { parseClientFile } from "../../cli/connection.ts";
import { lastingPort } from "../support/lasting-port.ts";
import { openPrivateRoot, type PrivateRoot } from "../support/private-root.ts";
import { programPath } from "../support/programs.ts";

const program = programPath("bedplate");
const stopped = new AbortController();
let directory: string;
let port: number;
let controller: ChildProcess;
let api: ApiClient;
let agents: ChildProcess[] = [];
let root: PrivateRoot;

const ended = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once("exit", () => resolve());
  });

async function startController(): Promise<void> {
  const state = join(directory, "controller");
  const child = spawn(
    process.execPath,
    [program, "controller", "--listen", `127.0.0.1:${port}`, "--state-directory", state],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let log = "";
  child.stderr!.on("data", (text) => {
    log += text;
  });
  controller = child;
  await vi.waitFor(() => expect(log).toContain("the controller listens"), { timeout: 30_000 });
  api = openApi(
    parseClientFile(readFileSync(join(state, "client.json"), "utf8"), "client.json"),
    stopped.signal,
  );
}

interface Agent {
  readonly child: ChildProcess;
  log(): string;
}

function startAgent(name: string, config: string, ...more: string[]): Agent {
  const file = join(directory, `${name}.toml`);
  writeFileSync(
    file,
    `${config}\nname = "${name}"\nstateDirectory = "${directory}/${name}"\n[metrics]\nlisten = "off"\n`,
  );
  const [first, ...rest] = root.wrap([process.execPath, program, "agent", "--config", file, ...more]);
  const child = spawn(first, rest, {
    stdio: ["ignore", "pipe", "pipe"],
  });
  agents.push(child);
  let log = "";
  for (const stream of [child.stdout!, child.stderr!])
    stream.on("data", (text) => {
      log += text;
    });
  return { child, log: () => log };
}

const online = (name: string) => async () =>
  (await api.hosts()).find((host) => host.name === name)?.connection === "online";
const address = () => `controller = "https://127.0.0.1:${port}"`;
const token = async () => (await api.createJoinToken({})).token;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-link-"));
  root = await openPrivateRoot(directory);
  port = await lastingPort();
  await startController();
});
afterEach(async () => {
  for (const agent of agents) agent.kill("SIGTERM");
  await Promise.all(agents.map(ended));
  agents = [];
});
afterAll(async () => {
  stopped.abort();
  controller.kill("SIGTERM");
  await ended(controller);
  await root[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

test("a host joins, keeps its keys to itself, streams, and ends in order", async () => {
  const agent = startAgent("orderly", address(), "--join", await token());
  await expect.poll(online("orderly"), { timeout: 30_000 }).toBe(true);
  await expect
    .poll(async () => (await api.host("orderly")).telemetry.samples, { timeout: 30_000 })
    .toBeGreaterThan(1);
  for (const secret of ["link-key.pem", "instance", "agent.db"])
    expect(statSync(join(directory, "orderly", secret)).mode & 0o077, secret).toBe(0);
  agent.child.kill("SIGTERM");
  await ended(agent.child);
  expect(agent.child.exitCode).toBe(0);
  await expect.poll(online("orderly"), { timeout: 30_000 }).toBe(false);
});

test("after a controller's restart the agent comes back by itself and numbers go on", async () => {
  startAgent("patient", address(), "--join", await token());
  await expect
    .poll(async () => (await api.host("patient").catch(() => undefined))?.telemetry.samples ?? 0, {
      timeout: 30_000,
    })
    .toBeGreaterThan(1);
  controller.kill("SIGKILL");
  await ended(controller);
  await startController();
  const before = (await api.host("patient")).telemetry;
  await expect.poll(online("patient"), { timeout: 30_000 }).toBe(true);
  await expect
    .poll(async () => (await api.host("patient")).telemetry.samples, { timeout: 30_000 })
    .toBeGreaterThan(before.samples + 2);
  // A reading that came in the second before the kill was not stored yet: it is told of as a gap, and nothing else is.
  expect((await api.host("patient")).telemetry.gaps).toBeLessThanOrEqual(1);
});

test("a killed agent starts again as the same host, without its token", async () => {
  const first = startAgent("reborn", address(), "--join", await token());
  await expect.poll(online("reborn"), { timeout: 30_000 }).toBe(true);
  const { id, telemetry } = await api.host("reborn");
  first.child.kill("SIGKILL");
  await ended(first.child);
  startAgent("reborn", address());
  await expect
    .poll(async () => (await api.host("reborn")).telemetry.samples, { timeout: 30_000 })
    .toBeGreaterThan(telemetry.samples + 2);
  expect((await api.host("reborn")).id).toBe(id);
});

test("a controller that is not there is named once, and the agent keeps trying", async () => {
  const nowhere = await lastingPort();
  const joinToken = await token();
  const agent = startAgent("lonely", `controller = "https://127.0.0.1:${nowhere}"`, "--join", joinToken);
  await new Promise((resolve) => setTimeout(resolve, 4000));
  expect(agent.child.exitCode).toBeNull();
  const complaints = agent
    .log()
    .split("\n")
    .filter((line) => line.includes("controller.unreachable"));
  expect(complaints).toHaveLength(1);
  expect(complaints[0]).toContain(`127.0.0.1:${nowhere}`);
});

test("another controller's token is refused before anything secret is sent", async () => {
  const [id, secret] = (await token()).split(".").slice(1, 3);
  const agent = startAgent(
    "deceived",
    address(),
    "--join",
    `bedplate-join.${id}.${secret}.${"0".repeat(64)}`,
  );
  await expect.poll(() => agent.log(), { timeout: 15_000 }).toContain("controller.untrusted");
  expect(agent.log()).not.toContain(secret);
  expect(existsSync(join(directory, "deceived", "controller-ca.pem"))).toBe(false);
  expect(await online("deceived")()).toBe(false);
});

test("a used token is refused with its code, and the agent says what to do", async () => {
  const used = await token();
  startAgent("winner", address(), "--join", used);
  await expect.poll(online("winner"), { timeout: 30_000 }).toBe(true);
  const loser = startAgent("loser", address(), "--join", used);
  await expect.poll(() => loser.log(), { timeout: 15_000 }).toContain("enrol.token-used");
  expect(loser.child.exitCode).toBeNull();
});

const hostOf = (name: string) => api.host(name).catch(() => undefined);
const bedplate = (...argv: string[]) => {
  const run = spawnSync(
    process.execPath,
    [program, ...argv, "--client", join(directory, "controller/client.json")],
    // Operators keep what they know of hosts in their own configuration: here in the test's.
    { encoding: "utf8", env: { ...process.env, HOME: directory, XDG_CONFIG_HOME: directory } },
  );
  return { status: run.status, stdout: run.stdout, stderr: run.stderr };
};

test("a host waits, shows its fingerprint on both ends, is approved, works, and is revoked", async () => {
  const joinToken = (await api.createJoinToken({ approve: "manual" })).token;
  const agent = startAgent("waiting", address(), "--join", joinToken);
  await expect.poll(online("waiting"), { timeout: 30_000 }).toBe(true);
  const { fingerprint } = await api.host("waiting");
  expect(fingerprint).toMatch(/^([0-9A-F]{4}-){3}[0-9A-F]{4}$/);
  await expect.poll(() => agent.log()).toContain("This host waits for approval");
  expect(agent.log()).toContain(`"fingerprint":"${fingerprint}"`);
  const list = bedplate("hosts");
  expect(list.stdout).toMatch(new RegExp(`waiting +[0-9a-f]{12} +${fingerprint} +pending +online`));
  expect(list.stderr).toContain(`bedplate host approve waiting --fingerprint ${fingerprint}`);
  expect(bedplate("host", "show", "waiting").stdout).toMatch(
    new RegExp(`fingerprint: +${fingerprint}\\nstanding: +pending`),
  );
  const early = bedplate("ping", "waiting");
  expect([early.status, early.stderr]).toEqual([3, expect.stringContaining("code: host.pending")]);
  const wrong = bedplate("host", "approve", "waiting", "--fingerprint", "0000-0000-0000-0000");
  expect([wrong.status, wrong.stderr]).toEqual([
    3,
    expect.stringContaining("code: enrol.fingerprint-mismatch"),
  ]);
  const approved = bedplate("host", "approve", "waiting", "--fingerprint", fingerprint);
  expect(approved.status, approved.stderr).toBe(0);
  expect(bedplate("ping", "waiting").stdout).toContain("waiting answered in");

  expect(bedplate("host", "rename", "waiting", "worker").stdout).toContain("is called worker");
  expect(bedplate("host", "revoke", "worker").stdout).toContain("join-token create --for worker");
  await expect.poll(() => agent.log(), { timeout: 15_000 }).toContain('"code":4403');
  await expect.poll(() => agent.log(), { timeout: 15_000 }).toContain('"code":"enrol.host-revoked"');
  expect(agent.child.exitCode).toBeNull();
  expect(await online("worker")()).toBe(false);
});

test("a host set up anew takes over its name and history", async () => {
  const first = startAgent("phoenix", address(), "--join", await token());
  await expect.poll(online("phoenix"), { timeout: 30_000 }).toBe(true);
  await expect
    .poll(async () => (await api.host("phoenix")).telemetry.samples, { timeout: 30_000 })
    .toBeGreaterThan(1);
  expect(bedplate("ping", "phoenix").status).toBe(0);
  first.child.kill("SIGTERM");
  await ended(first.child);
  const before = await api.host("phoenix");
  rmSync(join(directory, "phoenix"), { recursive: true });
  const run = bedplate("join-token", "create", "--for", "phoenix");
  expect(run.stderr).toContain(`in the place of ${before.id.slice(0, 12)}`);
  startAgent("phoenix", address(), "--join", run.stdout.trim());
  await expect
    .poll(async () => (await hostOf("phoenix"))?.formerIds, { timeout: 30_000 })
    .toEqual([before.id]);
  await expect
    .poll(async () => (await hostOf("phoenix"))?.telemetry.samples, { timeout: 30_000 })
    .toBeGreaterThan(before.telemetry.samples);
  const after = await api.host("phoenix");
  expect(after.id).not.toBe(before.id);
  expect(after.formerIds).toEqual([before.id]);
  expect(await api.commands({ host: "phoenix" })).toMatchObject([{ kind: "agent.ping", state: "succeeded" }]);
  expect(bedplate("ping", "phoenix").status).toBe(0);
});

test("a controller that was set back in time is told of by its hosts, once", async () => {
  const first = startAgent("remembers", address(), "--join", await token());
  await expect.poll(online("remembers"), { timeout: 30_000 }).toBe(true);
  const remembered = join(directory, "remembers/controller-epoch");
  await expect.poll(() => existsSync(remembered)).toBe(true);
  expect(readFileSync(remembered, "utf8")).toBe("1\n");
  first.child.kill("SIGTERM");
  await ended(first.child);
  writeFileSync(remembered, "5\n", { mode: 0o600 });
  const again = startAgent("remembers", address());
  await expect.poll(() => again.log(), { timeout: 15_000 }).toContain("link.stale-epoch");
  expect(again.log()).toContain("--epoch 6");
  expect(readFileSync(remembered, "utf8")).toBe("5\n");
});

test("a backup of a controller at work is restored elsewhere, one epoch further", async () => {
  const file = join(directory, "saved.bedplate");
  const made = bedplate("controller", "backup", file);
  expect([made.status, made.stdout], made.stderr).toEqual([0, expect.stringContaining("epoch 1")]);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readdirSync(join(directory, "controller")).filter((name) => name.startsWith("backup"))).toEqual([]);
  expect(bedplate("controller", "backup", file)).toMatchObject({
    ...{ status: 3, stderr: expect.stringContaining("code: state.not-empty") },
  });
  const again = join(directory, "saved-2.bedplate");
  const named = bedplate("controller", "backup", again, "--state-directory", join(directory, "controller"));
  expect(named.status, named.stderr).toBe(0);
  const target = join(directory, "restored");
  const restored = bedplate("controller", "restore", file, "--state-directory", target, "--json");
  expect(JSON.parse(restored.stdout)).toEqual({ stateDirectory: target, epoch: 2, epochBefore: 1 });
  expect(readFileSync(join(target, "ca.pem"), "utf8")).toBe(
    readFileSync(join(directory, "controller/ca.pem"), "utf8"),
  );
  expect(existsSync(join(target, "images"))).toBe(false);
  expect(bedplate("controller", "restore", file, "--state-directory", target)).toMatchObject({
    ...{ status: 3, stderr: expect.stringContaining("code: state.not-empty") },
  });
  expect(bedplate("controller", "restore", file).status).toBe(2);
  // One that does not run is backed up from its directory.
  const still = join(directory, "still.bedplate");
  expect(bedplate("controller", "backup", still, "--state-directory", target).stdout).toContain("epoch 2");
});

test("a copied agent is found out; nothing is changed on its host until a person has said which one is true", async () => {
  startAgent("twin", address(), "--join", await token());
  await expect.poll(online("twin"), { timeout: 30_000 }).toBe(true);
  spawnSync("cp", ["-a", join(directory, "twin"), join(directory, "copy")]);
  // As on another machine: there it would be the boot that differs.
  writeFileSync(join(directory, "copy/instance"), "the-copy", { mode: 0o600 });
  const copy = startAgent("copy", address());
  await expect.poll(() => copy.log(), { timeout: 30_000 }).toContain("host.quarantined");
  expect(copy.log()).toContain("remove its state directory");
  await expect.poll(async () => (await hostOf("twin"))?.standing, { timeout: 30_000 }).toBe("quarantined");
  const view = (await hostOf("twin"))!;
  expect(view.instances.map(({ instance }) => instance)).toContain("the-copy");
  expect(bedplate("ping", "twin").status).toBe(0);
  const [first] = view.instances;
  expect(view.suggest).toContain(`bedplate host release twin --instance ${first!.instance}`);
  const listed = bedplate("hosts");
  expect(listed.stdout).toMatch(/twin .* quarantined +online/);
  const released = bedplate("host", "release", "twin", "--instance", first!.instance);
  expect(released.status, released.stderr).toBe(0);
  await expect.poll(async () => (await hostOf("twin"))?.standing).toBe("approved");
  await expect.poll(() => copy.log(), { timeout: 30_000 }).toContain('"code":"host.copy"');
  expect(await online("twin")()).toBe(true);
  expect(bedplate("ping", "twin").status).toBe(0);
});

test("two agents never share one state directory", async () => {
  startAgent("single", address(), "--join", await token());
  await expect.poll(online("single"), { timeout: 30_000 }).toBe(true);
  const second = startAgent("single", address());
  await ended(second.child);
  expect(second.child.exitCode).toBe(1);
  expect(second.log()).toContain("agent.already-running");
});

test("a key that others can read stops the agent before it is used", async () => {
  mkdirSync(join(directory, "leaky"), { mode: 0o755 });
  const agent = startAgent("leaky", address());
  await ended(agent.child);
  expect(agent.child.exitCode).toBe(3);
  expect(agent.log()).toContain("state.unsafe");
});

test("--check names file, line and key of what is wrong", () => {
  const file = join(directory, "wrong.toml");
  const check = (text: string) => {
    writeFileSync(file, text);
    // A short home: an ordinary user's sockets lie below it, and their names have room for 107 bytes.
    const env = { ...process.env, HOME: "/tmp", XDG_RUNTIME_DIR: undefined, XDG_STATE_HOME: undefined };
    const argv = [program, "agent", "--config", file, "--check"];
    return spawnSync(process.execPath, argv, { encoding: "utf8", env });
  };
  expect(check(`${address()}\n`)).toMatchObject({ status: 0 });
  const misspelt = check(`${address()}\n\n[telemetry]\nintervalMS = 5\n`);
  expect(misspelt.status).toBe(2);
  expect(misspelt.stderr).toContain(`${file}, line 4: "telemetry.intervalMS" is not a known key`);
  expect(check(`controller = "http://x"\n`).stderr).toContain("line 1");
  expect(check("controller = \n").stderr).toContain("line 1");
  if (process.geteuid?.() !== 0) {
    const long = check(`${address()}\n[executor]\nrunDirectory = "/tmp/${"x".repeat(80)}"\n`);
    expect(long.stderr).toContain('"executor.runDirectory" is 31 bytes too long');
  }
  expect(check(`${address()}\njoinToken = "nonsense"\n`).stderr).toContain("enrol.token-invalid");
});
