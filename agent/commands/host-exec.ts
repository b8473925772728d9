// host.exec: runs one program, no shell between, and ends it whole: with all that it started, as far as that can be found.
import { createStreamHasher, type StreamHasher } from "../../assembly/index.ts";
import { hex } from "../../protocol/bytes.ts";
import type { ExecArguments, ExecOutput, OutputStream } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { bootIdOf } from "../devices/system.ts";
import type { Cgroup } from "../host/cgroup.ts";
import { errnoOf } from "../host/files.ts";
import { cleanEnvironment, type StartedProcess } from "../host/processes.ts";
import { programFault } from "../policy/rules.ts";
import type { Command, CommandContext, CommandEnd } from "./command.ts";
import { cgroupNameOf, endFamily, operationVariable } from "./process-family.ts";
import { markOf, noteGroup } from "./process-group.ts";
import { notStarted, requireDirectory, requireProgram } from "./program.ts";

/** What the result itself carries of the output; the rest is had from the spool. */
const tailBytesMax = 64 << 10;
/** After the program's group has ended, what left it may still hold its output open. */
const stragglersMs = 1000;
const usualSeconds = 3600;

export const hostExec: Command<"host.exec"> = {
  runForSeconds: usualSeconds,
  async run({ id, kind, mode, arguments: asked }, context, signal) {
    // Whoever may ask for plans is not told thereby which files there are: only of what the policy lets run.
    const unlisted =
      mode === "plan" && programFault(context.policy.rules, { kind, arguments: asked }) !== undefined;
    const program = unlisted ? null : requireProgram(asked, context.host.files);
    if (mode === "apply") requireDirectory(asked, context.host.files);
    const keeper = await findKeeper(context, signal);
    if (mode === "plan") {
      const { directory = "/", environment = {} } = asked;
      const endsWithExecutor = keeper.length > 0;
      return { output: { argv: asked.argv, directory, environment, program, endsWithExecutor } };
    }
    if (keeper.length === 0)
      context.log("no setpriv of util-linux: the program may outlive an executor that is killed");
    return runProgram(id, asked, keeper, context, signal);
  },
};

async function runProgram(
  id: string,
  asked: ExecArguments,
  keeper: readonly string[],
  context: CommandContext,
  signal: AbortSignal,
): Promise<CommandEnd> {
  const { host, output } = context;
  const hasher = await createStreamHasher();
  context.phase({ name: "run", total: 0, unit: "bytes", done: () => output.bytes });
  await context.pause.safePoint();
  const startedMs = host.clock.monotonic();
  const cgroup = host.processes.cgroup(cgroupNameOf(id), "make");
  using _cgroup = { [Symbol.dispose]: () => cgroup?.remove() };
  const { started, stopped } = await startProgram(id, asked, { keeper, cgroup }, context, hasher);
  const mark = markOf(host.files, started.pid, bootIdOf(host.facts()));
  const family = { operation: id, group: started.pid, groupStartTicks: mark?.startTicks, cgroup };
  let why: Error | undefined;
  try {
    if (mark !== undefined)
      noteGroup(context.notes, { ...mark, ...(cgroup === undefined ? {} : { cgroup: cgroup.directory }) });
    why = await firstOf(started, stopped, signal);
    if (why === undefined && !signal.aborted) context.pointOfNoReturn("the program has ended by itself");
  } catch (error) {
    await endFamily(family, host);
    throw error;
  }
  // Ended whole, also when the program ended by itself: nothing of it changes the host after its result.
  const ended = await endFamily(family, host);
  await Promise.race([started.closed, host.clock.sleep(stragglersMs, new AbortController().signal)]);
  started.release();
  const end = ended ? await started.exited : { exitCode: null, signal: null };
  const tail = output.tail(tailBytesMax);
  const report: ExecOutput = {
    ...end,
    stdoutBytes: output.stdoutBytes,
    stderrBytes: output.stderrBytes,
    bytes: output.bytes,
    digest: hex(hasher.digest()),
    tail: { text: textOfTail(tail), truncated: output.bytes > tail.length },
    endsWithExecutor: keeper.length > 0,
    confinedBy: cgroup === undefined ? "descent" : "cgroup",
    seconds: (host.clock.monotonic() - startedMs) / 1000,
  };
  const error = why ?? failureOf(asked.argv[0]!, end);
  if (!ended) return { output: report, error: stuck(error, started.pid) };
  return { output: report, ...(error === undefined ? {} : { error }) };
}

/** `stopped` resolves when the program prints more than it may, or its output cannot be kept. */
async function startProgram(
  id: string,
  { argv, directory = "/", environment = {}, outputBytesMax = Number.POSITIVE_INFINITY }: ExecArguments,
  { keeper, cgroup }: { readonly keeper: readonly string[]; readonly cgroup: Cgroup | undefined },
  { host, output }: CommandContext,
  hasher: StreamHasher,
): Promise<{ readonly started: StartedProcess; readonly stopped: Promise<Error> }> {
  const stop = Promise.withResolvers<Error>();
  const onOutput = (stream: OutputStream, bytes: Uint8Array) => {
    try {
      const kept = bytes.subarray(0, Math.min(bytes.length, outputBytesMax - output.bytes));
      if (kept.length > 0) {
        output.append(stream, kept);
        hasher.update(kept);
      }
      if (kept.length < bytes.length) stop.resolve(tooMuch(outputBytesMax));
    } catch (error) {
      // A full disk: the program is not left to print into nothing.
      stop.resolve(error as Error);
    }
  };
  try {
    const started = await host.processes.start([...keeper, ...argv] as [string, ...string[]], {
      directory,
      environment: { ...programEnvironment, ...environment, [operationVariable]: id },
      onOutput,
      cgroup,
    });
    return { started, stopped: stop.promise };
  } catch (cause) {
    throw notStarted(argv[0]!, errnoOf(cause), { cause });
  }
}

/** Undefined when the program ended by itself, else why it is to be ended. */
async function firstOf(
  started: StartedProcess,
  stopped: Promise<Error>,
  signal: AbortSignal,
): Promise<Error | undefined> {
  const aborted = Promise.withResolvers<Error>();
  const abort = () => aborted.resolve(signal.reason as Error);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([started.exited.then(() => undefined), stopped, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** No tuning of this program's own memory, no locale of anybody's. */
const programEnvironment = {
  PATH: cleanEnvironment.PATH,
  LANG: cleanEnvironment.LANG,
  LC_ALL: cleanEnvironment.LC_ALL,
};

/** The beginning of a command line that lets the kernel end the program with this process; empty where there is none. */
async function findKeeper({ host }: CommandContext, signal: AbortSignal): Promise<readonly string[]> {
  const facts = host.facts();
  const path = cleanEnvironment.PATH.split(":")
    .map((directory) => `${directory}/setpriv`)
    .find((candidate) => facts.exists(candidate));
  if (path === undefined) return [];
  const keeper = [path, "--pdeathsig", "KILL", "--"] as const;
  // util-linux before 2.33 has a setpriv that cannot do it.
  const tried = await host.processes.run([...keeper, path, "--version"], { signal });
  return tried !== "missing" && tried.exitCode === 0 ? keeper : [];
}

function tooMuch(outputBytesMax: number): BedplateError {
  return new BedplateError(
    "exec.output-limit",
    `The program printed more than ${outputBytesMax} bytes, and was ended.`,
    { details: { outputBytesMax } },
  );
}

function failureOf(
  program: string,
  { exitCode, signal }: Awaited<StartedProcess["exited"]>,
): BedplateError | undefined {
  if (exitCode === 0) return undefined;
  const how = exitCode === null ? `was ended by ${signal}` : `ended with exit code ${exitCode}`;
  return new BedplateError("exec.failed", `${program} ${how}.`, { details: { exitCode, signal } });
}

function stuck(error: Error | undefined, group: number): BedplateError {
  const before = error === undefined ? "" : `${error.message} `;
  return new BedplateError(
    error instanceof BedplateError ? error.code : "exec.failed",
    `${before}Processes of the program do not end, even by KILL: they wait in the kernel.`,
    {
      hint: `On the host: ps -o pid,stat,wchan,args -g ${group}`,
      details: { group },
      ...(error === undefined ? {} : { cause: error }),
    },
  );
}

/** From the first whole character on. */
function textOfTail(bytes: Uint8Array): string {
  const start = bytes.findIndex((byte) => (byte & 0xc0) !== 0x80);
  return new TextDecoder().decode(bytes.subarray(start > 0 && start < 4 ? start : 0));
}
