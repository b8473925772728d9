// Starting an executor and talking with a running one: processes and unix sockets, as the agent's operations see them.
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync } from "node:fs";
import { createConnection, type Socket } from "node:net";
import { entryUrl } from "../../assembly/built.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { cleanEnvironment } from "../host/processes.ts";
import {
  checkExecutorEvent,
  type ExecutorEvent,
  type ExecutorPaths,
  type ExecutorRequest,
  type FollowerRequest,
  lineBytesMax,
  operationSocketPath,
} from "./contract.ts";

/** How an executor came to its request. */
export interface StartedExecutor {
  /** Resolves when it is known to have ended; never where systemd runs it. */
  readonly ended: Promise<void>;
  /** The end of what it logged, for an error message. */
  logTail(): string;
}

/** An attached executor. */
export interface Following {
  /** Events in order; ends when the executor closes the connection. */
  readonly events: AsyncIterable<ExecutorEvent>;
  send(request: FollowerRequest): void;
  close(): void;
}

export interface ExecutorLauncher {
  start(request: ExecutorRequest): Promise<StartedExecutor>;
  /** Undefined when no executor listens for this operation. `afterOutput` undefined: no output is wanted. */
  attach(
    command: string,
    after: { readonly afterSeq: number; readonly afterOutput: number | undefined },
  ): Promise<Following | undefined>;
}

/** systemd hands each connection to a fresh `bedplate-executor@` instance, as root. */
export const systemdSocket = "executor.sock";
const logBytesMax = 1 << 20;
/** As in packaging/bedplate-executor@.service. */
const executorNiceness = 10;
/**
 * Of Node, as in packaging/bedplate-executor@.service: what is hot runs in WebAssembly and in Node itself, so its
 * JavaScript stays bytecode, and what it throws away is collected early. 20 MB less with four workers, at no cost. The
 * last one keeps V8 from mapping its built-in code once more for each thread: 8 MB less.
 */
export const executorFlags = [
  "--no-opt",
  "--no-maglev",
  "--max-semi-space-size=1",
  "--no-short-builtin-calls",
] as const;

export function createExecutorLauncher(options: {
  readonly paths: ExecutorPaths;
  readonly logFile: string;
}): ExecutorLauncher {
  const { paths, logFile } = options;
  return {
    async start(request) {
      const line = `${JSON.stringify(request)}\n`;
      const activated = `${paths.runDirectory}/${systemdSocket}`;
      if (existsSync(activated)) {
        const socket = await connect(activated);
        if (socket === undefined)
          throw new BedplateError("executor.failed", `Nothing listens on ${activated}.`, {
            hint: "systemctl start bedplate-executor.socket",
          });
        socket.on("error", () => undefined);
        socket.end(line);
        return {
          ended: new Promise(() => undefined),
          logTail: () => "see journalctl -u 'bedplate-executor@*'",
        };
      }
      return startChild(line, paths, logFile);
    },
    async attach(command, { afterSeq, afterOutput }) {
      const socket = await connect(operationSocketPath(paths.runDirectory, command));
      if (socket === undefined) return undefined;
      socket.on("error", () => undefined);
      const send = (request: FollowerRequest) => void socket.write(`${JSON.stringify(request)}\n`);
      send({ attach: { afterSeq, ...(afterOutput === undefined ? {} : { afterOutput }) } });
      return { events: eventsOf(socket), send, close: () => socket.destroy() };
    },
  };
}

// Detached, in a process group of its own and with a file for its output: it outlives the agent's death by any signal.
function startChild(line: string, paths: ExecutorPaths, logFile: string): StartedExecutor {
  const fresh = existsSync(logFile) && statSync(logFile).size > logBytesMax;
  const log = openSync(logFile, fresh ? "w" : "a", 0o600);
  mkdirSync(paths.runDirectory, { recursive: true, mode: 0o750 });
  const fixed = process.geteuid?.() === 0;
  const program = entryUrl("agent/executor/executor.ts").pathname;
  const { policy, stateDirectory, runDirectory } = paths;
  const argv = [
    ...executorFlags,
    program,
    ...(fixed ? [] : ["--policy", policy, "--state", stateDirectory, "--run", runDirectory]),
  ];
  // From the first thread on it gives way to the agent; the executor itself could only say so for threads to come.
  const child = spawn("nice", ["-n", String(executorNiceness), process.execPath, ...argv], {
    detached: true,
    cwd: "/",
    env: cleanEnvironment,
    stdio: ["pipe", log, log],
  });
  closeSync(log);
  const ended = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(line);
  child.unref();
  return {
    ended,
    logTail: () => readFileSync(logFile, "utf8").slice(-2000).trim().split("\n").slice(-3).join(" | "),
  };
}

function connect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", () => resolve(undefined));
  });
}

// Pulled, never pushed: while the caller does not ask for the next event, the executor's writes wait in the kernel.
async function* eventsOf(socket: Socket): AsyncGenerator<ExecutorEvent> {
  let begun: Buffer[] = [];
  let bytes = 0;
  for await (const part of partsOf(socket)) {
    let from = 0;
    for (let end = part.indexOf(10); end >= 0; end = part.indexOf(10, from)) {
      const line = Buffer.concat([...begun, part.subarray(from, end)]).toString("utf8");
      begun = [];
      bytes = 0;
      from = end + 1;
      yield checkExecutorEvent(JSON.parse(line));
    }
    begun.push(part.subarray(from));
    bytes += part.length - from;
    if (bytes > lineBytesMax) return;
  }
}

async function* partsOf(socket: Socket): AsyncGenerator<Buffer> {
  try {
    yield* socket as AsyncIterable<Buffer>;
  } catch {
    // Broken off by either side: what was said until then counts.
  }
}
