// Entry of the executor process: one request on standard input, then everything goes to the journal and the operation's
// own socket. Standard output and error are logs that nobody need read.
import { parseArgs } from "node:util";
import { BedplateError } from "../../protocol/errors.ts";
import { boundedReport } from "../../protocol/schema.ts";
import type { Host } from "../commands/command.ts";
import { createFacts } from "../devices/facts.ts";
import {
  checkExecutorRequest,
  type ExecutorPaths,
  type ExecutorRequest,
  lineBytesMax,
  rootPaths,
} from "../door/contract.ts";
import { systemClock } from "../host/clock.ts";
import { systemFiles } from "../host/files.ts";
import { giveWay } from "../host/priority.ts";
import { cleanEnvironment, systemProcesses } from "../host/processes.ts";
import { systemRandom } from "../host/random.ts";
import { type ExecutorEnd, execute, refuseRequest } from "./run.ts";

/** The process's exit codes. Whoever started it need not look: what happened is in the journal. */
export const exitCodes = {
  ended: 0,
  noted: 0,
  failed: 1,
  usage: 2,
  conflict: 3,
  interrupted: 4,
} as const satisfies Record<ExecutorEnd | "failed" | "usage", number>;

const requestSecondsMax = 30;
const niceness = 10;

process.exitCode = await main(process.argv.slice(2));
// Nothing that is left (a kept-alive connection, an idle worker) keeps the process.
process.exit();

async function main(argv: readonly string[]): Promise<number> {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  // Nothing of the caller's environment reaches a worker or a child.
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, cleanEnvironment);
  process.umask(0o077);
  const stopping = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stopping.abort());
  process.on("SIGHUP", () => {});
  try {
    // The agent's link and telemetry go first.
    giveWay(niceness);
    const user = process.geteuid!();
    const paths = pathsOf(argv, user);
    const host: Host = {
      clock: systemClock,
      random: systemRandom,
      files: systemFiles,
      processes: systemProcesses,
      facts: () => createFacts(systemFiles),
    };
    const options = { paths, user, separated: startedBySystemd(user), host, stopping: stopping.signal, log };
    let request: ExecutorRequest;
    try {
      request = await readRequest(stopping.signal);
    } catch (error) {
      refuseRequest(error, options);
      throw error;
    }
    return exitCodes[await execute(request, options)];
  } catch (error) {
    const report = boundedReport(error);
    process.stderr.write(
      `${JSON.stringify({ error: report, stack: report.code === "internal" ? (error as Error).stack : undefined })}\n`,
    );
    return report.code === "usage" ? exitCodes.usage : exitCodes.failed;
  }
}

/** Another root than systemd is the agent itself, or a person: neither is kept from anything that this process may. */
function startedBySystemd(user: number): boolean {
  return user === 0 && createFacts(systemFiles).optionalText(`/proc/${process.ppid}/comm`) === "systemd";
}

/** @throws `usage` */
function pathsOf(argv: readonly string[], user: number): ExecutorPaths {
  if (user === 0) {
    // Whoever may start it as root must not choose which policy binds it.
    if (argv.length > 0)
      throw new BedplateError("usage", "As root the executor takes no argument: its paths are fixed.");
    return rootPaths;
  }
  const option = { type: "string" } as const;
  let given: { policy?: string; state?: string; run?: string };
  try {
    given = parseArgs({ args: [...argv], options: { policy: option, state: option, run: option } }).values;
  } catch (cause) {
    throw new BedplateError("usage", (cause as Error).message, { cause });
  }
  const { policy, state, run } = given;
  if (![policy, state, run].every((path) => path?.startsWith("/"))) {
    throw new BedplateError(
      "usage",
      "The executor needs --policy FILE, --state DIRECTORY and --run DIRECTORY, all absolute.",
    );
  }
  return {
    policy: policy!,
    stateDirectory: state!.replace(/\/+$/, ""),
    runDirectory: run!.replace(/\/+$/, ""),
  };
}

/** @throws `executor.failed` */
async function readRequest(stopping: AbortSignal): Promise<ExecutorRequest> {
  const late = new BedplateError(
    "executor.failed",
    `No request came on standard input within ${requestSecondsMax} s.`,
  );
  using deadline = systemClock.deadline(requestSecondsMax * 1000, stopping, late);
  const expire = () => process.stdin.destroy(late);
  deadline.addEventListener("abort", expire, { once: true });
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of process.stdin as AsyncIterable<Buffer>) {
    const end = piece.indexOf(10);
    pieces.push(end < 0 ? piece : piece.subarray(0, end));
    length += piece.length;
    if (end >= 0) break;
    if (length > lineBytesMax)
      throw new BedplateError("executor.failed", `The request is longer than ${lineBytesMax} bytes.`);
  }
  deadline.removeEventListener("abort", expire);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.concat(pieces).toString("utf8"));
  } catch (cause) {
    throw new BedplateError("executor.failed", "The request on standard input is not one line of JSON.", {
      cause,
    });
  }
  return checkExecutorRequest(value);
}

function log(text: string): void {
  process.stderr.write(
    `${JSON.stringify({ at: new Date(systemClock.now()).toISOString(), message: text })}\n`,
  );
}
