// host.exec by real executor processes: what a program is given, what becomes of what it prints, and that it ends whole.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ExecutorEvent, operationSocketPath } from "../../agent/door/contract.ts";
import { spoolBytesMax } from "../../agent/executor/output-spool.ts";
import { createStreamHasher } from "../../assembly/index.ts";
import { hex } from "../../protocol/bytes.ts";
import { type Command, type ExecArguments, ExecOutput } from "../../protocol/commands.ts";
import { checker } from "../../protocol/schema.ts";
import {
  attach,
  type ExecutorHost,
  hostId,
  hurried,
  isRoot,
  mintId,
  openExecutorHost,
  resultOf,
  runRequest,
} from "../support/executor-host.ts";

/** Real processes, on machines that may be busy. */
const busy = { timeout: 180_000 } as const;
const mib = 1 << 20;
let host: ExecutorHost;
beforeAll(async () => {
  host = await openExecutorHost();
  // Programs of the tests lie where nobody else's do; the policy's own rules are policy.test.ts's.
  await mkdir(join(host.directory, "bin"));
  await host.writePolicy(
    [
      'unsigned = ["host.exec"]',
      '[kinds."host.exec"]',
      `argv = [["/bin/sh", "**"], ["/usr/bin/env"], ${JSON.stringify([process.execPath, "**"])}, ${programs.map((name) => JSON.stringify([at(name), "**"])).join(", ")}, ["/bin/no-such-program"], ["/etc"]]`,
      "shell = true",
      'environment = ["COLOUR", "PATH"]',
      `directories = ${JSON.stringify([host.directory, "/no/such", "/etc/hostname", "/etc", "/nowhere/to/be/found", "/etc/passwd"])}`,
    ].join("\n"),
  );
});
afterAll(() => host[Symbol.asyncDispose]());

const programs = ["plain", "forbidden", "orphan", "script"];
const at = (name: string) => join(host.directory, "bin", name);
const exec = (asked: Partial<ExecArguments>, more: Partial<Command> = {}) =>
  ({
    id: mintId(),
    host: hostId,
    kind: "host.exec",
    mode: "apply",
    arguments: asked,
    limits: {},
    ...more,
  }) as Command;
const shell = (text: string, ...rest: string[]) => ["/bin/sh", "-c", text, "sh", ...rest];
const checkOutput = checker(ExecOutput, "internal", "output of host.exec");

type Piece = Extract<ExecutorEvent, { type: "output" }>;
const piecesOf = (events: readonly ExecutorEvent[]) =>
  events.filter((event): event is Piece => event.type === "output");
const bytesOf = (pieces: readonly Piece[]) =>
  Buffer.concat(pieces.map(({ data }) => Buffer.from(data, "base64")));

async function run(command: Command, afterOutput = 0, options: readonly string[] = []) {
  const executor = host.start(runRequest(command), [], options);
  const follower = await attach(host, command.id, 0, { afterOutput });
  const last = await follower.last;
  follower.close();
  const exit = await executor.ended;
  return { last, events: follower.events, pieces: piecesOf(follower.events), exit, log: executor.log() };
}
const lives = (pid: number) => {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]![0] !== "Z";
  } catch {
    return false;
  }
};
async function untilTrue(what: string, check: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  for (const began = performance.now(); performance.now() - began < ms; await sleep(25))
    if (await check()) return;
  throw new Error(`not within ${ms} ms: ${what}`);
}
const fileHas = (path: string, lines: number) =>
  existsSync(path) && readFileSync(path, "utf8").trim().split("\n").filter(Boolean).length >= lines;
const pidsIn = (path: string) => readFileSync(path, "utf8").trim().split("\n").map(Number);

test("both streams, their order and digest; the output comes before the result", busy, async () => {
  const { last, events, pieces } = await run(
    exec({ argv: shell("printf one; sleep 0.2; printf two >&2; sleep 0.2; printf three") }),
  );
  const { outcome, output } = resultOf(last);
  expect(outcome).toBe("succeeded");
  const text = "onetwothree";
  expect(
    pieces.map(({ stream, offset, data }) => [stream, offset, Buffer.from(data, "base64").toString()]),
  ).toEqual([
    ["stdout", 0, "one"],
    ["stderr", 3, "two"],
    ["stdout", 6, "three"],
  ]);
  const hasher = await createStreamHasher();
  hasher.update(Buffer.from(text));
  expect(checkOutput(output)).toMatchObject({
    exitCode: 0,
    signal: null,
    stdoutBytes: 8,
    stderrBytes: 3,
    bytes: 11,
    digest: hex(hasher.digest()),
    tail: { text, truncated: false },
    endsWithExecutor: true,
  });
  expect(events.filter(({ type }) => type !== "progress").map(({ type }) => type)).toEqual([
    "accepted",
    "running",
    "output",
    "output",
    "output",
    "result",
  ]);
});

test(
  "a clean environment plus the given names, the given directory, an empty input, the usual umask",
  busy,
  async () => {
    const command = exec({ argv: ["/usr/bin/env"], environment: { COLOUR: "red" } });
    const { last } = await run(command);
    const { tail } = checkOutput(resultOf(last).output);
    expect(tail.text.trim().split("\n").sort()).toEqual([
      `BEDPLATE_OPERATION=${command.id}`,
      "COLOUR=red",
      "LANG=C.UTF-8",
      "LC_ALL=C.UTF-8",
      "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ]);
    const asked = shell("pwd; umask; wc -c; ps -o pgid=,sid= -p $$ | tr -s ' '; echo $$");
    const [directory, umask, count, groups, pid] = checkOutput(
      resultOf((await run(exec({ argv: asked, directory: host.directory }))).last).output,
    ).tail.text.split("\n");
    expect([directory, umask, count]).toEqual([host.directory, "0022", "0"]);
    // A pipe that a script can open by its name.
    const named = "echo out > /dev/stdout; echo err > /dev/stderr";
    expect(resultOf((await run(exec({ argv: shell(named) }))).last)).toMatchObject({
      outcome: "succeeded",
      output: { stdoutBytes: 4, stderrBytes: 4 },
    });
    // In a session and group of its own.
    expect(groups!.trim().split(" ")).toEqual([pid, pid]);
  },
);

test("an exit code and a signal are failures that keep the output", busy, async () => {
  const failed = resultOf((await run(exec({ argv: shell("echo before; exit 3") }))).last);
  expect(failed).toMatchObject({
    outcome: "failed",
    error: { code: "exec.failed", details: { exitCode: 3 } },
    output: { exitCode: 3, signal: null, tail: { text: "before\n" } },
  });
  const killed = resultOf((await run(exec({ argv: shell("echo before; kill -SEGV $$") }))).last);
  expect(killed).toMatchObject({
    outcome: "failed",
    error: { code: "exec.failed", details: { signal: "SIGSEGV" } },
    output: { exitCode: null, signal: "SIGSEGV", tail: { text: "before\n" } },
  });
});

describe("what cannot be started is told in words, and nothing runs", busy, () => {
  beforeAll(async () => {
    await writeFile(at("plain"), `echo ran > ${at("ran")}\n`, { mode: 0o755 });
    await writeFile(at("forbidden"), "#!/bin/sh\n", { mode: 0o644 });
    await writeFile(at("orphan"), "#!/no/such/interpreter\n", { mode: 0o755 });
    await chmod(at("forbidden"), 0o644);
  });
  test.each<[string, () => Partial<ExecArguments>, string, string]>([
    [
      "a missing program",
      () => ({ argv: ["/bin/no-such-program"] }),
      "exec.not-started",
      "there is no /bin/no-such-program",
    ],
    ["a directory", () => ({ argv: ["/etc"] }), "exec.not-started", "it is a directory"],
    [
      "a file that may not be executed",
      () => ({ argv: [at("forbidden")] }),
      "exec.not-started",
      "may not be executed",
    ],
    [
      "a text that a C library would hand to a shell",
      () => ({ argv: [at("plain")] }),
      "exec.not-started",
      "neither a compiled program nor a script",
    ],
    [
      "a script without its interpreter",
      () => ({ argv: [at("orphan")] }),
      "exec.not-started",
      "/no/such/interpreter",
    ],
    [
      "a missing directory",
      () => ({ argv: ["/usr/bin/env"], directory: "/no/such" }),
      "exec.not-started",
      "/usr/bin/env cannot be started: there is no /no/such",
    ],
    [
      "a file as the directory",
      () => ({ argv: ["/usr/bin/env"], directory: "/etc/hostname" }),
      "exec.not-started",
      "is no directory",
    ],
  ])("%s", async (_, asked, code, words) => {
    const result = resultOf((await run(exec(asked()))).last);
    expect(result).toMatchObject({ outcome: "failed", error: { code } });
    expect(result.error!.message).toContain(words);
    expect(existsSync(at("ran"))).toBe(false);
  });
});

test("a plan says what would run, and runs nothing", busy, async () => {
  await writeFile(at("script"), `#!/bin/sh\necho ran > ${at("script-ran")}\n`, { mode: 0o755 });
  const asked = { argv: [at("script"), "a b"], environment: { COLOUR: "red" } };
  const result = resultOf((await run(exec(asked, { mode: "plan" }))).last);
  expect(result).toMatchObject({
    outcome: "succeeded",
    output: {
      argv: asked.argv,
      directory: "/",
      environment: { COLOUR: "red" },
      program: { path: at("script"), mode: "0755", interpreter: "/bin/sh" },
      endsWithExecutor: true,
    },
  });
  expect(existsSync(at("script-ran"))).toBe(false);
});

test(
  "a program does not start where the policy does not let it: a build does what lies there",
  busy,
  async () => {
    const { last } = await run(exec({ argv: ["/usr/bin/env"], directory: join(host.directory, "bin") }));
    expect(last).toMatchObject({ type: "refused", error: { code: "policy.exec-not-allowed" } });
  },
);

test("a plan tells nothing of files that the policy does not let run", busy, async () => {
  const plans = [];
  for (const path of ["/etc/passwd", "/nowhere/to/be/found"]) {
    const result = resultOf((await run(exec({ argv: [path], directory: path }, { mode: "plan" }))).last);
    expect(result).toMatchObject({ outcome: "succeeded", output: { argv: [path], program: null } });
    const { artefact } = result.output as { artefact: { text: string } };
    plans.push(JSON.parse(artefact.text) as { allowed: boolean; findings: { code?: string }[] });
  }
  for (const { allowed, findings } of plans) {
    expect(allowed).toBe(false);
    expect(findings.map(({ code }) => code)).toContain("policy.exec-not-allowed");
  }
});

test("a plan of a program that is listed does not tell which directories there are", busy, async () => {
  const facts = [];
  for (const directory of ["/etc", "/nowhere/to/be/found", "/etc/passwd"]) {
    const asked = { argv: ["/usr/bin/env"], directory };
    const result = resultOf((await run(exec(asked, { mode: "plan" }))).last);
    const { artefact: _, ...output } = result.output as { artefact: unknown };
    facts.push([result.outcome, { ...output, directory: "" }]);
  }
  expect(facts[1]).toEqual(facts[0]);
  expect(facts[2]).toEqual(facts[0]);
});

describe("ended whole", busy, () => {
  /** A family of three that ignores TERM, whose ids stand in a file. */
  const stubborn = (pids: string) =>
    shell(
      `trap "" TERM; echo $$ >> ${pids}; (trap "" TERM; echo started; /bin/sh -c 'trap "" TERM; echo $$ >> ${pids}; while :; do sleep 1; done' & echo $! > /dev/null; while :; do sleep 1; done) & echo $! >> ${pids}; while :; do sleep 1; done`,
    );

  test("a cancel: TERM, and five seconds later KILL for those that ignore it, grandchildren too", async () => {
    const pids = join(host.directory, "cancelled");
    const command = exec({ argv: stubborn(pids) });
    const executor = host.start(runRequest(command), [], hurried);
    const follower = await attach(host, command.id, 0, { afterOutput: 0 });
    await untilTrue("the family lives", () => fileHas(pids, 3));
    const began = performance.now();
    follower.cancel("enough");
    expect(await follower.until((event) => event.type === "cancel")).toMatchObject({ answer: "cancelling" });
    const result = resultOf(await follower.last);
    expect(performance.now() - began).toBeGreaterThan(490);
    expect(result).toMatchObject({
      outcome: "cancelled",
      error: { code: "command.cancelled" },
      output: { signal: "SIGKILL", tail: { text: "started\n" } },
    });
    expect(pidsIn(pids).filter(lives)).toEqual([]);
    follower.close();
    expect(await executor.ended).toBe(0);
  });

  test("a time limit, for a program that heeds TERM: at once", async () => {
    const limited = exec({ argv: shell("echo here; exec sleep 100") }, { limits: { runForSeconds: 3 } });
    const result = resultOf((await run(limited)).last);
    expect(result).toMatchObject({
      outcome: "timed-out",
      error: { code: "command.timed-out" },
      output: { signal: "SIGTERM", tail: { text: "here\n" } },
    });
    const { seconds } = checkOutput(result.output);
    expect([seconds > 2, seconds < 8]).toEqual([true, true]);
  });

  test("no progress is no output", async () => {
    const limited = exec(
      { argv: shell("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done; exec sleep 100") },
      { limits: { stallAfterSeconds: 5 } },
    );
    const result = resultOf((await run(limited, 0, hurried)).last);
    expect(result).toMatchObject({
      outcome: "timed-out",
      error: { code: "command.stalled" },
      output: { tail: { text: "1\n2\n3\n4\n5\n6\n7\n8\n" } },
    });
  });

  test("an output limit: as many bytes as are allowed, and the end", async () => {
    const result = resultOf(
      (await run(exec({ argv: shell("while :; do echo 0123456789; done"), outputBytesMax: 1000 }))).last,
    );
    expect(result).toMatchObject({
      outcome: "failed",
      error: { code: "exec.output-limit" },
      output: { bytes: 1000, tail: { text: "0123456789\n".repeat(91).slice(0, 1000) } },
    });
  });

  test("what a program leaves behind ends with it, also what made a session, a group and an environment of its own", async () => {
    const pids = join(host.directory, "left");
    const asked = shell(
      `sleep 300 & echo $! >> ${pids}; setsid /bin/sh -c 'echo $$ >> ${pids}; exec sleep 300' > /dev/null 2>&1 & setsid env -i /bin/sh -c 'echo $$ >> ${pids}; sleep 300; true' > /dev/null 2>&1 & while [ $(wc -l < ${pids}) -lt 3 ]; do sleep 0.05; done; echo done`,
    );
    const result = resultOf((await run(exec({ argv: asked }))).last);
    expect(result).toMatchObject({ outcome: "succeeded", output: { tail: { text: "done\n" } } });
    const left = pidsIn(pids).filter(lives);
    for (const pid of left) process.kill(pid, "SIGKILL");
    // Without a cgroup the last one is a child of nobody that is known, and is not found.
    const missed = checkOutput(result.output).confinedBy === "cgroup" ? 0 : 1;
    expect(left.length).toBeLessThanOrEqual(missed);
  });
});

describe("much output", busy, () => {
  /** Writes `mib` MiB whose every byte follows from its place, and keeps nothing of it. */
  const printer = (count: number) =>
    `const block = Buffer.from(Uint8Array.from({ length: ${mib} }, (_, i) => 32 + (i * 31 + (i >> 12)) % 90));
     const fs = require("fs"); let n = 0;
     const put = (bytes) => { for (let at = 0; at < bytes.length; ) try { at += fs.writeSync(1, bytes, at); } catch (e) { if (e.code !== "EAGAIN") throw e; } };
     for (; n < ${count}; n++) put(block); fs.writeFileSync(process.argv[1], String(Date.now()));`;
  const block = Buffer.from(Uint8Array.from({ length: mib }, (_, i) => 32 + ((i * 31 + (i >> 12)) % 90)));

  async function hugestOf(pid: number): Promise<number> {
    return 1024 * Number(/VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, "utf8"))![1]);
  }
  async function measured(count: number) {
    const command = exec({
      argv: [process.execPath, "-e", printer(count), join(host.directory, `done-${count}`)],
    });
    const executor = host.start(runRequest(command));
    const follower = await attach(host, command.id, 0, { afterOutput: 0 });
    const result = resultOf(await follower.last);
    // It stays while its follower does.
    const peakBytes = await hugestOf(executor.process.pid!);
    follower.close();
    await executor.ended;
    return { result, peakBytes, pieces: piecesOf(follower.events), command };
  }

  test("100 MiB: the executor does not grow with it; digest, count and tail are right", async () => {
    const small = await measured(1);
    const large = await measured(100);
    const output = checkOutput(large.result.output);
    const hasher = await createStreamHasher();
    for (let i = 0; i < 100; i++) hasher.update(block);
    expect(output).toMatchObject({ exitCode: 0, bytes: 100 * mib, digest: hex(hasher.digest()) });
    expect(output.tail.text).toBe(block.subarray(-64 * 1024).toString());
    expect(output.tail.truncated).toBe(true);
    console.log(
      `executor's peak: ${small.peakBytes / mib} MiB for 1 MiB, ${large.peakBytes / mib} MiB for 100 MiB`,
    );
    expect(large.peakBytes - small.peakBytes).toBeLessThan(48 * mib);
    // Each byte that came stands at its offset.
    let next = 0;
    for (const { offset, data } of large.pieces) {
      expect(offset).toBeGreaterThanOrEqual(next);
      const bytes = Buffer.from(data, "base64");
      next = offset + bytes.length;
      const place = offset % mib;
      const wanted = Buffer.concat([block.subarray(place), block]).subarray(0, bytes.length);
      expect(Buffer.compare(bytes, wanted)).toBe(0);
    }
    expect(next).toBe(100 * mib);
    expect((await stat(join(host.stateDirectory, "output", large.command.id))).mode & 0o777).toBe(0o600);
    expect((await stat(join(host.stateDirectory, "output", large.command.id))).size).toBeLessThanOrEqual(
      spoolBytesMax + 4096,
    );
  });

  test("a follower that does not read keeps nobody waiting, and gets the newest before the result", async () => {
    const done = join(host.directory, "done-20");
    const command = exec({ argv: [process.execPath, "-e", printer(20), done] });
    const executor = host.start(runRequest(command));
    const slow = await attach(host, command.id, 0, { afterOutput: 0 });
    slow.readOn(false);
    await untilTrue("the program has ended", () => existsSync(done));
    const quick = await attach(host, command.id);
    const result = resultOf(await quick.last);
    quick.close();
    expect(checkOutput(result.output).bytes).toBe(20 * mib);
    slow.readOn(true);
    await slow.last;
    const pieces = piecesOf(slow.events);
    const { offset, data } = pieces.at(-1)!;
    expect(offset + Buffer.from(data, "base64").length).toBe(20 * mib);
    const jumps = pieces.filter(
      ({ offset: from }, index) =>
        index > 0 &&
        from !== pieces[index - 1]!.offset + Buffer.from(pieces[index - 1]!.data, "base64").length,
    );
    expect(jumps).toHaveLength(1);
    const afterJump = 20 * mib - jumps[0]!.offset;
    expect(afterJump).toBeGreaterThan(spoolBytesMax - 2 * 32 * 1024);
    expect(slow.events.at(-1)!.type).toBe("result");
    slow.close();
    expect(await executor.ended).toBe(0);
  });
});

test(
  "who detaches at any place and attaches again gets every byte once; also after the executor is gone",
  busy,
  async () => {
    const lines = 4000;
    const text = `i=0; while [ $i -lt ${lines} ]; do echo "line $i of the output"; [ $((i % 3)) = 0 ] && echo "error $i" >&2; [ $((i % 400)) = 0 ] && sleep 0.1; i=$((i+1)); done`;
    const command = exec({ argv: shell(text) });
    const executor = host.start(runRequest(command));
    let got = Buffer.alloc(0);
    const digest = createHash("sha256");
    for (let turn = 0; ; turn++) {
      // A few pieces in full, then in the middle of one as an agent that dies before it stored the rest.
      const follower = await attach(host, command.id, 0, { afterOutput: got.length });
      const wanted = got.length + 1 + ((turn * 7919) % 20_000);
      const end = await follower.until(
        (event) => event.type === "result" || (event.type === "output" && event.offset + 1 >= wanted),
      );
      const all = bytesOf(piecesOf(follower.events));
      follower.close();
      const kept =
        end.type === "result" || turn > 12 ? all : all.subarray(0, Math.max(1, wanted - got.length));
      expect(piecesOf(follower.events)[0]?.offset ?? got.length).toBe(got.length);
      digest.update(kept);
      got = Buffer.concat([got, kept]);
      if (end.type === "result") {
        expect(checkOutput(resultOf(end).output).bytes).toBe(got.length);
        break;
      }
      expect(turn).toBeLessThan(500);
    }
    const text2 = got.toString();
    for (const i of [0, 1, 399, 400, lines - 1])
      expect(text2.split(`line ${i} of the output\n`)).toHaveLength(2);
    expect(text2.match(/line \d+ of the output\n/g)).toHaveLength(lines);
    await executor.ended;

    const replay = host.start({ request: "follow", command: command.id });
    const late = await attach(host, command.id, 0, { afterOutput: 1234 });
    await late.last;
    expect(bytesOf(piecesOf(late.events)).equals(got.subarray(1234))).toBe(true);
    expect(late.events.at(-1)!.type).toBe("result");
    late.close();
    expect(await replay.ended).toBe(0);
  },
);

describe("while another one has the lane", busy, () => {
  const holding = async () => {
    const command = exec({ argv: shell("echo begun; exec sleep 100") });
    const executor = host.start(runRequest(command));
    const follower = await attach(host, command.id, 0, { afterOutput: 0 });
    await follower.until((event) => event.type === "output");
    return async () => {
      follower.cancel("");
      await follower.last;
      follower.close();
      await executor.ended;
    };
  };

  test("it is accepted, waits, and is cancelled there; another waits as long as it may; neither runs", async () => {
    const release = await holding();
    const ran = join(host.directory, "waited-ran");
    const waiting = (seconds: number) =>
      exec({ argv: shell(`echo ran >> ${ran}`) }, { limits: { startWithinSeconds: seconds } });
    const first = waiting(600);
    const executor = host.start(runRequest(first));
    const follower = await attach(host, first.id);
    await follower.until((event) => event.type === "accepted");
    expect(resultOf((await run(waiting(1))).last)).toMatchObject({
      outcome: "timed-out",
      error: { code: "command.expired" },
    });
    follower.cancel("enough");
    expect(await follower.until((event) => event.type === "cancel")).toMatchObject({
      answer: "cancelling",
      reason: "it has not begun, and will not",
    });
    expect(resultOf(await follower.last)).toMatchObject({ outcome: "cancelled" });
    expect(follower.events.map(({ type }) => type)).not.toContain("running");
    follower.close();
    await executor.ended;
    const third = waiting(600);
    const runs = run(third);
    await attach(host, third.id).then(async (one) => {
      await one.until((event) => event.type === "accepted");
      one.close();
    });
    await release();
    expect(resultOf((await runs).last)).toMatchObject({ outcome: "succeeded" });
    expect(readFileSync(ran, "utf8")).toBe("ran\n");
  });
});

test(
  "a lane that is held by nobody known is asked for again: whoever had it is just giving it back",
  busy,
  async () => {
    const command = exec({ argv: shell("true") });
    const held = new DatabaseSync(join(host.stateDirectory, "lane.db"));
    held.exec("BEGIN EXCLUSIVE");
    const running = run(command);
    await sleep(700);
    held.close();
    expect(resultOf((await running).last)).toMatchObject({ outcome: "succeeded" });
  },
);

describe("cut off", busy, () => {
  test("an executor whose socket was taken away lives: its program is neither ended nor given up", async () => {
    const marks = join(host.directory, "marks");
    const command = exec({ argv: shell(`echo began >> ${marks}; sleep 8; echo ended >> ${marks}`) });
    const request = runRequest(command);
    const first = host.start(request);
    await untilTrue("it runs", () => fileHas(marks, 1));
    await rm(operationSocketPath(host.runDirectory, command.id));
    expect(await host.start(request).ended).toBe(0);
    await first.ended;
    expect(readFileSync(marks, "utf8")).toBe("began\nended\n");
    const { last, events } = await run(command);
    expect(resultOf(last)).toMatchObject({ outcome: "succeeded" });
    expect(events.filter(({ type }) => type === "running" || type === "result")).toHaveLength(2);
  });

  test("an executor killed with KILL: no child is left, grandchildren neither; it ends indeterminate and never runs again", async () => {
    const pids = join(host.directory, "killed");
    const ran = join(host.directory, "killed-ran");
    const asked = shell(
      `echo run >> ${ran}; echo $$ >> ${pids}; /bin/sh -c 'echo $$ >> ${pids}; while :; do sleep 1; done' & while :; do sleep 1; done`,
    );
    const command = exec({ argv: asked });
    const executor = host.start(runRequest(command));
    await untilTrue("both live", () => fileHas(pids, 2));
    executor.process.kill("SIGKILL");
    await executor.ended;
    const [child] = pidsIn(pids);
    await untilTrue("the kernel has ended the child", () => !lives(child!), 10_000);
    const { last } = await run(command);
    expect(resultOf(last)).toMatchObject({
      outcome: "indeterminate",
      error: { code: "command.indeterminate", details: { leftover: "ended" } },
    });
    expect(pidsIn(pids).filter(lives)).toEqual([]);
    // Once more, as an agent does that was told nothing.
    expect((await run(command)).last).toEqual(last);
    expect(readFileSync(ran, "utf8")).toBe("run\n");
  });

  const cgroups = "/sys/fs/cgroup";
  const unified = [`${cgroups}/unified`, cgroups].find((path) => existsSync(`${path}/cgroup.procs`));
  test.skipIf(!isRoot || unified === undefined)(
    "what its program started is found in the cgroup that it had, also by an executor that lives in another one",
    async () => {
      const pids = join(host.directory, "elsewhere");
      const own = `${unified}/bedplate-test-${process.pid}`;
      const shed = `echo $$ >> ${pids}; while :; do sleep 1; done`;
      const command = exec({ argv: shell(`setsid env -i /bin/sh -c '${shed}' & sleep 100`) });
      const enter = `mkdir ${own} && echo $$ > ${own}/cgroup.procs && exec "$@"`;
      const executor = host.start(runRequest(command), ["/bin/sh", "-c", enter, "sh"]);
      try {
        await untilTrue("it lives", () => fileHas(pids, 1));
        executor.process.kill("SIGKILL");
        await executor.ended;
        const [shedPid] = pidsIn(pids);
        expect(lives(shedPid!)).toBe(true);
        expect(resultOf((await run(command)).last)).toMatchObject({
          outcome: "indeterminate",
          error: { details: { leftover: "ended" } },
        });
        expect(lives(shedPid!)).toBe(false);
      } finally {
        for (const pid of pidsIn(pids).filter(lives)) process.kill(pid, "SIGKILL");
        await untilTrue("nothing is left in it", () => {
          for (const name of existsSync(own) ? readdirSync(own) : [])
            if (name.startsWith("bedplate-exec-")) spawnSync("rmdir", [join(own, name)]);
          spawnSync("rmdir", [own]);
          return !existsSync(own);
        });
      }
    },
  );

  test("another command that changes the host sees it gone first", async () => {
    const pids = join(host.directory, "before");
    const command = exec({
      argv: shell(
        `echo $$ >> ${pids}; /bin/sh -c 'echo $$ >> ${pids}; while :; do sleep 1; done' & while :; do sleep 1; done`,
      ),
    });
    const executor = host.start(runRequest(command));
    await untilTrue("both live", () => fileHas(pids, 2));
    executor.process.kill("SIGKILL");
    await executor.ended;
    const grandchild = pidsIn(pids)[1]!;
    expect(lives(grandchild)).toBe(true);
    // Dead, though perhaps nobody has asked for it yet.
    const look = `sed -n 's/^State:.*\\([RSD]\\) .*/\\1/p' /proc/${grandchild}/status; true`;
    const next = resultOf((await run(exec({ argv: shell(look) }))).last);
    expect(next).toMatchObject({ outcome: "succeeded", output: { tail: { text: "" } } });
    expect(resultOf((await run(command)).last)).toMatchObject({ outcome: "indeterminate" });
  });

  test("an executor told to stop ends the program and says so, with what it had printed", async () => {
    const command = exec({ argv: shell("echo so far; exec sleep 100") });
    const executor = host.start(runRequest(command));
    const follower = await attach(host, command.id, 0, { afterOutput: 0 });
    await follower.until((event) => event.type === "output");
    executor.process.kill("SIGTERM");
    expect(resultOf(await follower.last)).toMatchObject({
      outcome: "indeterminate",
      error: { code: "command.indeterminate" },
      output: { signal: "SIGTERM", tail: { text: "so far\n" } },
    });
    follower.close();
    await executor.ended;
  });
});

test(
  "output that is damaged while the program runs is lost, and said to be; the program and its result are not",
  busy,
  async () => {
    const go = join(host.directory, "go-on");
    const command = exec({
      argv: shell(`echo lost; while [ ! -e ${go} ]; do sleep 0.05; done; sleep 0.5; echo kept`),
    });
    const executor = host.start(runRequest(command));
    const first = await attach(host, command.id, 0, { afterOutput: 0 });
    await first.until((event) => event.type === "output");
    await truncate(join(host.stateDirectory, "output", command.id), 100);
    const second = await attach(host, command.id, 0, { afterOutput: 0 });
    await writeFile(go, "");
    expect(resultOf(await second.last)).toMatchObject({
      outcome: "succeeded",
      output: { bytes: 10, tail: { text: "kept\n", truncated: true } },
    });
    expect(piecesOf(second.events).map(({ offset }) => offset)).toEqual([5]);
    first.close();
    second.close();
    expect(await executor.ended).toBe(0);
  },
);

test("output files go with the operations that the journal forgets", busy, async () => {
  const directory = join(host.stateDirectory, "output");
  const stranger = join(directory, mintId());
  await writeFile(stranger, "x");
  const before = await readdir(directory);
  await run(exec({ argv: shell("echo x") }));
  const after = await readdir(directory);
  expect(after).not.toContain(stranger.split("/").at(-1));
  expect(after.length).toBe(before.length);
  await rm(stranger, { force: true });
});
