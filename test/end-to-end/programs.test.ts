// Programs end to end: what they print reaches the controller once, through a killed agent; cancels are answered; logs are read.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Child, programArguments, startChild } from "../../cli/demo/children.ts";
import { type DemoHost, openHost, openStage } from "../../cli/demo/stage.ts";
import type { CommandView } from "../../protocol/api.ts";
import { type Command, type ExecOutput, isTerminal, type LogsOutput } from "../../protocol/commands.ts";
import { newCommandId } from "../support/commands.ts";

const stop = new AbortController();
let stage: Awaited<ReturnType<typeof openStage>>;
let host: DemoHost;
let second: Child | undefined;
let hostId: string;

beforeAll(async () => {
  stage = await openStage({ signal: stop.signal });
  const { token } = await stage.client.createJoinToken({});
  host = await openHost(stage, {
    diskBytes: 4 << 20,
    joinToken: token,
    policy: () =>
      'unsigned = ["host.exec"]\n[kinds."host.exec"]\nargv = [["/bin/sh", "-c", "**"]]\nshell = true\n',
    signal: stop.signal,
  });
  hostId = (await stage.client.host(host.name)).id;
}, 60_000);

afterAll(async () => {
  await second?.[Symbol.asyncDispose]();
  await host?.[Symbol.asyncDispose]();
  await stage?.[Symbol.asyncDispose]();
});

const command = (kind: string, asked: object, limits: Command["limits"] = {}) =>
  ({ id: newCommandId(), host: hostId, kind, mode: "apply", arguments: asked, limits }) as Command;
const shell = (text: string) => ({ argv: ["/bin/sh", "-c", text] });

async function until(id: string, fits: (view: CommandView) => boolean, ms = 60_000): Promise<CommandView> {
  let view = await stage.client.command(id);
  for (const began = performance.now(); !fits(view); await sleep(100)) {
    expect(performance.now() - began, JSON.stringify(view)).toBeLessThan(ms);
    view = await stage.client.command(id);
  }
  return view;
}
const ended = (id: string) => until(id, ({ state }) => isTerminal(state));

/** All that the controller keeps of a command's output. */
async function outputOf(id: string) {
  const pieces: { stream: string; offset: number; data: Buffer }[] = [];
  for (let after = 0; ; ) {
    const { to, pieces: more } = await stage.client.output(id, after);
    for (const { stream, offset, data } of more)
      pieces.push({ stream, offset, data: Buffer.from(data, "base64") });
    if (more.length === 0) return pieces;
    after = to;
  }
}

const endOf = async (id: string) => {
  const last = (await outputOf(id)).at(-1);
  return last === undefined ? 0 : last.offset + last.data.length;
};

test("the agent is killed twice while a program prints: every byte is there once, in its place", async () => {
  const done = join(stage.directory, "done");
  const line = (i: number) => `line ${i} ${"x".repeat(60)}\n`;
  // It waits twice for the test, with an agent killed each time, and prints the most just before and after.
  const gate = (number: number) => join(stage.directory, `go-${number}`);
  const part = (from: number, to: number) =>
    `i=${from}; while [ $i -lt ${to} ]; do echo "line $i ${"x".repeat(60)}"; i=$((i+1)); done`;
  const wait = (number: number) => `while [ ! -e ${gate(number)} ]; do sleep 0.1; done`;
  const sent = command(
    "host.exec",
    shell(
      `${part(0, 2000)}; ${wait(0)}; ${part(2000, 4000)}; ${wait(1)}; ${part(4000, 6000)}; echo end >&2; echo done > ${done}`,
    ),
  );
  await stage.client.submit(sent);
  let pid = host.pid;
  let had = 0;
  for (let kills = 0; kills < 2; kills++) {
    // Some of this part is there, and more is under way.
    while ((await endOf(sent.id)) <= had) await sleep(20);
    had = Array.from({ length: 2000 * (kills + 1) }, (_, i) => line(i)).join("").length;
    expect(existsSync(done)).toBe(false);
    process.kill(pid, "SIGKILL");
    await second?.[Symbol.asyncDispose]();
    await sleep(400);
    second = startChild({
      name: "agent",
      argv: host.rights.wrap([
        ...programArguments(),
        "agent",
        "--config",
        join(stage.directory, "host/agent.toml"),
      ]),
      logFile: join(stage.directory, `agent-${kills}.log`),
      home: join(stage.directory, "host"),
    });
    pid = second.pid;
    await writeFile(gate(kills), "");
  }
  const view = await ended(sent.id);
  expect(view.state, JSON.stringify(view.result)).toBe("succeeded");
  expect(existsSync(done)).toBe(true);
  const output = view.result!.output as ExecOutput;
  const pieces = await outputOf(sent.id);
  let next = 0;
  for (const { offset, data } of pieces) {
    expect(offset).toBe(next);
    next += data.length;
  }
  const text = `${Array.from({ length: 6000 }, (_, i) => line(i)).join("")}end\n`;
  expect(next).toBe(output.bytes);
  expect(output.bytes).toBe(text.length);
  const digest = (data: Buffer | string) => createHash("sha256").update(data).digest("hex");
  const all = Buffer.concat(pieces.map(({ data }) => data));
  // The last word goes another way: only the order across the two is not promised to the byte.
  expect(digest(all.toString().replace("end\n", ""))).toBe(digest(text.replace("end\n", "")));
  expect(pieces.filter(({ stream }) => stream === "stderr").map(({ data }) => data.toString())).toEqual([
    "end\n",
  ]);
}, 120_000);

test("a cancel is answered, and the program is gone with all that it started", async () => {
  const pids = join(stage.directory, "pids");
  const sent = command("host.exec", shell(`echo $$ > ${pids}; sleep 300 & echo $! >> ${pids}; wait`));
  await stage.client.submit(sent);
  await until(sent.id, ({ state }) => state === "running");
  while (!existsSync(pids) || readFileSync(pids, "utf8").trim().split("\n").length < 2) await sleep(50);
  await stage.client.cancel(sent.id);
  const view = await ended(sent.id);
  expect(view).toMatchObject({
    state: "cancelled",
    result: { error: { code: "command.cancelled" } },
    cancelAnswer: { answer: "cancelling" },
  });
  for (const pid of readFileSync(pids, "utf8").trim().split("\n")) {
    const state = existsSync(`/proc/${pid}/stat`)
      ? readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]![0]
      : "gone";
    expect(["gone", "Z"]).toContain(state);
  }
});

test("logs: the agent's own and its executors', the newest lines, no token in them", async () => {
  for (const [source, word] of [
    ["agent", "the agent runs"],
    ["executor", ": start"],
  ] as const) {
    const sent = command("agent.logs", { source, lines: 500 });
    await stage.client.submit(sent);
    const view = await ended(sent.id);
    expect(view.state, JSON.stringify(view.result)).toBe("succeeded");
    const { lines } = view.result!.output as LogsOutput;
    expect(lines.join("\n")).toContain(word);
    expect(lines.join("\n")).not.toMatch(/bedplate-join\.[^.]+\.(?!\(secret\))/);
  }
});
