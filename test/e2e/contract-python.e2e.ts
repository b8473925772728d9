// A client in another language, written from protocol/README.md alone, against a controller of the built program.
import { execFile, spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ControllerProcess, startControllerProcess } from "../contract/controller-process.ts";
import { type Directory, eventually, openDirectory } from "../contract/programs.ts";

// Debian's own: only it sees the python3-* packages.
const python = "/usr/bin/python3";
const scripts = fileURLToPath(new URL("../contract/python", import.meta.url));
const specification = fileURLToPath(new URL("../../protocol/README.md", import.meta.url));
const missing =
  spawnSync(python, ["-c", "import websockets.client, msgpack, cryptography, OpenSSL"]).status !== 0;
if (missing)
  console.warn(
    "skipped: the client in Python needs python3-websockets, python3-msgpack, python3-cryptography, python3-openssl",
  );

interface Said {
  readonly event: string;
  readonly [name: string]: unknown;
}

async function run(script: string, ...argv: string[]): Promise<Said[]> {
  const { stdout } = await promisify(execFile)(python, [join(scripts, script), ...argv], {
    timeout: 180_000,
    env: { PYTHONDONTWRITEBYTECODE: "1" },
  });
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Said);
}

describe.skipIf(missing)("a client in Python", () => {
  let directory: Directory;
  let controller: ControllerProcess;
  beforeAll(async () => {
    directory = await openDirectory("python");
    controller = await startControllerProcess(directory.path);
  });
  afterAll(async () => {
    await controller?.[Symbol.asyncDispose]();
    await directory?.[Symbol.asyncDispose]();
  });
  const agent = (state: string, ...argv: string[]) =>
    run("agent.py", "--controller", controller.url, "--state", join(directory.path, state), ...argv);

  let samplesStored = 0;
  test("agrees with every vector of the specification", async () => {
    const [counts] = await run("vectors.py", specification);
    expect(counts).toMatchObject({ messages: expect.any(Number), refused: expect.any(Number) });
    expect(Number(counts!.refused)).toBeGreaterThanOrEqual(16);
  });

  test("joins, proves itself, streams readings, runs a command cut off half-way once, and tells it once", async () => {
    const running = agent(
      "first",
      "--join",
      await controller.joinToken(),
      "--name",
      "py",
      "--cut-after",
      "2",
    );
    const host = await eventually(180_000, async () =>
      (await controller.api.hosts()).find(({ name }) => name === "py"),
    );
    const command = await controller.submit({
      host: host.id,
      kind: "agent.ping",
      mode: "apply",
      arguments: {},
    });
    const said = await running;
    const view = await controller.api.command(command.id);
    expect(view).toMatchObject({ state: "succeeded", runs: 1, result: { outcome: "succeeded" } });
    expect(view.result?.output).toMatchObject({ residentBytes: 1 << 24 });
    const states = view.history.map(({ state }) => state);
    expect(states).toEqual(["waiting", "offered", "received", "accepted", "running", "succeeded"]);

    const of = (event: string) => said.filter((each) => each.event === event);
    expect(of("welcome")).toHaveLength(2);
    expect(of("welcome")[0]).toMatchObject({ host: host.id, fingerprint: host.fingerprint, records: 0 });
    // Cut without an acknowledgement: what the controller had stored is not sent again, what it lacked is.
    const stored = Number(of("welcome")[1]!.records);
    // Of what was cut off the controller had some samples, or none: the second session's two go on from there.
    samplesStored = Number(of("welcome")[1]!.samples) + 2;
    expect([2, 3, 4]).toContain(samplesStored);
    const [first, second] = [said.indexOf(of("cut")[0]!), said.length];
    const seqs = (from: number, to: number) =>
      said.slice(from, to).flatMap((each) => (each.event === "sent" ? [Number(each.seq)] : []));
    expect(seqs(0, first)).toEqual([1, 2]);
    expect(seqs(first, second)).toEqual([1, 2, 3, 4].filter((seq) => seq > stored));
    expect(of("ran")).toHaveLength(1);
    expect(said.at(-1)).toEqual({ event: "done", runs: { [command.id]: 1 } });

    const { series } = await controller.api.telemetry(host.id);
    const value = (name: string) => series.find((each) => each.name === name)?.value;
    expect([value("python_first"), value("python_second"), value("python_third")]).toEqual([17, -1, 150]);
    // It has said goodbye.
    await eventually(60_000, async () => (await controller.api.host(host.id)).connection === "offline");
  });

  test("comes back without its token, and answers what it does not know", async () => {
    const host = (await controller.api.hosts()).find(({ name }) => name === "py")!;
    const command = await controller.submit({
      host: host.id,
      kind: "host.inventory",
      mode: "apply",
      arguments: {},
    });
    const said = await agent("first", "--results", "2");
    expect(said[0]).toMatchObject({ event: "welcome", records: 4, samples: samplesStored });
    expect(await controller.api.command(command.id)).toMatchObject({
      state: "refused",
      result: { error: { code: "command.unknown-kind" } },
    });
  });

  test("refuses a controller whose CA is not the join token's, before it says anything", async () => {
    const token = (await controller.joinToken()).replace(/.$/, (digit) => (digit === "0" ? "1" : "0"));
    await expect(agent("second", "--join", token)).rejects.toThrow("controller.untrusted");
    expect((await controller.api.hosts()).length).toBe(1);
  });

  test.each([
    ["version", 4409, "link.version"],
    ["extension", 4400, "frame.extension"],
    ["large", 4413, "frame.too-large"],
    ["exporter", 4401, "link.auth-failed"],
    ["stranger", 4401, "link.auth-failed"],
    ["silence", 4408, ""],
  ])("is refused as documented: %s is closed with %i", async (how, code, reason) => {
    const said = await agent("first", "--provoke", how);
    expect(said.at(-1)).toMatchObject({ event: "closed", how, code });
    expect(String(said.at(-1)!.reason)).toContain(reason);
  });
});
