// A busy controller and a busy agent at their most talkative: nothing that they log has a secret in it.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { ClientFile, CommandView, JoinTokenView, TokenView } from "../../protocol/api.ts";
import { documentOf } from "../support/commands.ts";
import { type Answer, callApi } from "../support/controller.ts";
import { smallImage } from "../support/images.ts";
import { newLinkKey, openLink, prove } from "../support/link-client.ts";
import { openPrivateRoot, type PrivateRoot } from "../support/private-root.ts";
import { programPath } from "../support/programs.ts";

const program = programPath("bedplate");
let directory: string;
let client: ClientFile;
const children: ChildProcess[] = [];
/** Everything that any of them printed. */
let said = "";
let root: PrivateRoot;

const ended = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve();
    else child.once("exit", () => resolve());
  });
function start(...argv: string[]): ChildProcess {
  const [first, ...rest] = root.wrap([process.execPath, program, ...argv]);
  const child = spawn(first, rest, { stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  for (const stream of [child.stdout!, child.stderr!])
    stream.on("data", (text) => {
      said += text;
    });
  return child;
}
const until = (done: () => unknown) => vi.waitFor(done, { timeout: 30_000, interval: 100 });
const call = <T>(
  method: string,
  path: string,
  { token = client.token, json, bytes }: { token?: string; json?: unknown; bytes?: Uint8Array } = {},
): Promise<Answer<T>> =>
  callApi<T>(client, method, path, {
    headers: {
      authorization: `Bearer ${token}`,
      ...(json === undefined ? {} : { "content-type": "application/json" }),
      ...(bytes === undefined ? {} : { "content-type": "application/octet-stream" }),
    },
    ...(json === undefined ? {} : { body: Buffer.from(JSON.stringify(json)) }),
    ...(bytes === undefined ? {} : { body: bytes }),
  });

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-secrets-"));
  root = await openPrivateRoot(directory);
  writeFileSync(
    join(directory, "controller.toml"),
    `listen = "127.0.0.1:0"\nstateDirectory = "${directory}/controller"\nlogLevel = "debug"\n`,
  );
  start("controller", "--config", join(directory, "controller.toml"));
  await until(() => expect(said).toContain("the controller listens"));
  client = JSON.parse(readFileSync(join(directory, "controller/client.json"), "utf8"));
});
afterAll(async () => {
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(children.map(ended));
  await root[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

/** The private part of a PEM file, as it would be recognised: its longest line. */
function keyMaterial(path: string): string[] {
  const text = readFileSync(path, "utf8");
  return [
    ...text.matchAll(/-----BEGIN [A-Z ]*PRIVATE KEY-----(?:\\n|\n)([A-Za-z0-9+/=\\n\s]+?)-----END/g),
  ].flatMap((match) => match[1]!.split(/\\n|\n/).filter((line) => line.length > 30));
}
const forms = (bytes: Uint8Array) =>
  (["hex", "base64", "base64url"] as const).map((form) => Buffer.from(bytes).toString(form));

test("no secret is in what controller, agent and executor log", async () => {
  const secrets = new Map<string, string>([["the first API token", client.token]]);
  const makeJoinToken = async (more: object = {}) => {
    const { token } = (await call<JoinTokenView>("POST", "/v1/join-tokens", { json: more })).body;
    secrets.set(`join token ${token.split(".")[1]}`, token.split(".")[2]!);
    return token;
  };
  // Tokens that are used, used twice, wrong, and revoked.
  const joinToken = await makeJoinToken();
  writeFileSync(join(directory, "token"), joinToken, { mode: 0o600 });
  writeFileSync(
    join(directory, "agent.toml"),
    `controller = "${client.url}"\nname = "talker"\nstateDirectory = "${directory}/agent"\njoinTokenFile = "${directory}/token"\n[metrics]\nlisten = "off"\n[log]\nlevel = "debug"\n`,
  );
  start("agent", "--config", join(directory, "agent.toml"));
  await until(async () =>
    expect((await call<{ connection: string }>("GET", "/v1/hosts/talker")).body.connection).toBe("online"),
  );
  for (const wrong of [
    joinToken,
    `${joinToken.slice(0, -70)}x${joinToken.slice(-69)}`,
    "bedplate-join.a.b.c",
  ]) {
    using link = await openLink(client);
    await prove(link, { key: newLinkKey(), joinToken: wrong });
    await link.closed;
  }
  const unused = await makeJoinToken({ approve: "manual", cidr: "10.0.0.0/8" });
  using refused = await openLink(client);
  await prove(refused, { key: newLinkKey(), joinToken: unused });
  await refused.closed;

  for (const scope of ["read", "operate", "admin"]) {
    const { token, id } = (await call<TokenView>("POST", "/v1/tokens", { json: { scope } })).body;
    secrets.set(`API token ${scope}`, token.split(".").at(-1)!);
    await call("GET", "/v1/hosts", { token });
    await call("POST", "/v1/join-tokens", { token, json: { ttlSeconds: -1 } });
    await call("POST", `/v1/tokens/${id}/revoke`);
    await call("GET", `/v1/hosts?token=${encodeURIComponent(token)}`, { token });
    await call("GET", `/v1/nothing/${token}`);
  }

  // A command with a bearer for an image, and some that fail.
  const image = smallImage("spoken", 5000, 3);
  await call("PUT", `/v1/images/${image.root}/manifest`, { bytes: image.manifest });
  await call("PUT", `/v1/images/${image.root}/frames`, { bytes: image.frames });
  const { id } = (await call<{ id: string }>("GET", "/v1/hosts/talker")).body;
  const submit = (more: object = {}) =>
    call<CommandView>("POST", "/v1/commands", {
      json: { document: documentOf(id, { ...more }), signatures: [] },
    });
  await submit({
    ...{ kind: "image.deploy", mode: "plan" },
    arguments: { image: { root: image.root, sizeBytes: 5000 }, disk: { serial: "NONE" } },
  });
  const ping = (await submit()).body;
  await until(async () =>
    expect((await call<CommandView>("GET", `/v1/commands/${ping.id}`)).body.state).toBe("succeeded"),
  );
  await submit({ kind: "host.exec", arguments: { argv: ["/bin/true"] } });
  await call("POST", "/v1/authority/rotate");
  const backup = spawnSync(
    process.execPath,
    [
      program,
      "controller",
      "backup",
      join(directory, "b"),
      "--client",
      join(directory, "controller/client.json"),
    ],
    { encoding: "utf8" },
  );
  said += backup.stdout + backup.stderr;
  await until(() =>
    expect(readFileSync(join(directory, "agent/controller-ca.pem"), "utf8").length).toBeGreaterThan(1000),
  );
  // The executor that tells who it is has run by then.
  await new Promise((resolve) => setTimeout(resolve, 4000));

  const collected = new DatabaseSync(join(directory, "agent/agent.db"), { readOnly: true });
  for (const { rest } of collected.prepare("SELECT rest FROM operations").all())
    for (const [bearer] of String(rest).matchAll(/(?<="bearer":")[^"]+/g))
      secrets.set("image bearer", bearer);
  collected.close();
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(children.map(ended));
  const store = new DatabaseSync(join(directory, "controller/controller.db"), { readOnly: true });
  for (const { key, value } of store.prepare("select key, value from meta where key like 'secret.%'").all())
    for (const form of forms(value as Uint8Array)) secrets.set(`${String(key)} ${form.length}`, form);
  store.close();
  for (const folder of ["controller", "agent"])
    for (const name of readdirSync(join(directory, folder)))
      if (/\.(pem|key|json)$/.test(name) && statSync(join(directory, folder, name)).isFile())
        for (const line of keyMaterial(join(directory, folder, name))) secrets.set(`${folder}/${name}`, line);
  const executorLog = join(directory, "agent/executor.log");
  if (existsSync(executorLog)) said += readFileSync(executorLog, "utf8");

  // What is looked for is really there to be found.
  for (const name of ["image bearer", "agent/link-key.pem", "controller/ca.key", "controller/rotation.json"])
    expect([...secrets.keys()]).toContain(name);
  expect([...secrets.keys()].some((name) => name.startsWith("secret.audit-key"))).toBe(true);
  expect(secrets.size).toBeGreaterThan(15);
  for (const phrase of ["an agent connected", "connected to the controller", "answered", "enrol.token-used"])
    expect(said).toContain(phrase);
  for (const [name, secret] of secrets) {
    expect(secret.length, name).toBeGreaterThanOrEqual(20);
    expect(said.includes(secret), `${name} was logged`).toBe(false);
  }
  // The name of a token is no secret: it is how an operator finds it.
  expect(said).toContain(joinToken.split(".")[1]);
}, 120_000);
