// The controller as a process of the built program, on one port and one state directory across restarts.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { type ApiClient, openApi } from "../../cli/api-client.ts";
import { mintCommandId } from "../../cli/clock.ts";
import { parseClientFile } from "../../cli/connection.ts";
import type { CommandView } from "../../protocol/api.ts";
import type { Command } from "../../protocol/commands.ts";
import { lastingPort } from "../support/lasting-port.ts";
import { builtProgram, eventually, node, type Program, startProgram } from "./programs.ts";

export interface ControllerProcess extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly ca: string;
  readonly token: string;
  readonly api: ApiClient;
  readonly stateDirectory: string;
  readonly clientFile: string;
  readonly program: Program;
  /** Starts it again after `program` ended, with other arguments before node's if wanted. */
  start(wrap?: readonly string[]): Promise<void>;
  kill(signal: NodeJS.Signals): Promise<void>;
  joinToken(uses?: number): Promise<string>;
  submit(command: Omit<Command, "id" | "limits"> & Partial<Pick<Command, "limits">>): Promise<CommandView>;
}

const startMs = 90_000;

export async function startControllerProcess(
  directory: string,
  {
    heartbeatSeconds = 2,
    wrap = [] as readonly string[],
    nodeOptions = [] as readonly string[],
    logLevel = "info",
  } = {},
): Promise<ControllerProcess> {
  const port = await lastingPort();
  const stateDirectory = join(directory, "controller");
  const configFile = join(directory, "controller.toml");
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
  writeFileSync(
    configFile,
    `listen = "127.0.0.1:${port}"\nstateDirectory = "${stateDirectory}"\nheartbeatSeconds = ${heartbeatSeconds}\nlogLevel = "${logLevel}"\n`,
  );
  const logFile = join(directory, "controller.log");
  const stopped = new AbortController();
  const start = async (wrapped: readonly string[]) => {
    await using stack = new AsyncDisposableStack();
    const program = stack.use(
      startProgram({
        argv: [...wrapped, node, ...nodeOptions, builtProgram, "controller", "--config", configFile],
        logFile,
      }),
    );
    await eventually(
      startMs,
      async () => {
        if (!program.alive)
          throw new Error(`the controller ended (${await program.ended}): ${tail(program)}`);
        return await accepts(port);
      },
      () => `the controller does not listen: ${tail(program)}`,
    );
    stack.move();
    return program;
  };
  let program = await start(wrap);
  const clientFile = join(stateDirectory, "client.json");
  const connection = await eventually(startMs, () => {
    try {
      return parseClientFile(readFileSync(clientFile, "utf8"), clientFile);
    } catch {
      return undefined;
    }
  });
  const api = openApi(connection, stopped.signal);
  return {
    url: connection.url.origin,
    port,
    ca: connection.ca,
    token: connection.token,
    api,
    stateDirectory,
    clientFile,
    get program() {
      return program;
    },
    async start(wrapped = wrap) {
      program = await start(wrapped);
    },
    async kill(signal) {
      program.kill(signal);
      await program.ended;
    },
    joinToken: async (uses = 1) => (await api.createJoinToken({ uses })).token,
    submit: (command) => api.submit({ id: mintCommandId(), limits: {}, ...command } as Command),
    async [Symbol.asyncDispose]() {
      stopped.abort();
      api[Symbol.dispose]();
      await program[Symbol.asyncDispose]();
    },
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function tail(program: Program): string {
  return program.log().split("\n").slice(-6).join(" | ").slice(-1500);
}
