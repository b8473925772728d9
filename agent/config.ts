// The agent's configuration file: its schema, its defaults, and reading it.
import { homedir } from "node:os";
import { parse } from "smol-toml";
import Type, { type Static } from "typebox";
import { configReader } from "../protocol/config.ts";
import { BedplateError } from "../protocol/errors.ts";
import { parseJoinToken } from "../protocol/join-token.ts";
import { Name } from "../protocol/schema.ts";
import { type ExecutorPaths, operationSocketPath, rootPaths } from "./door/contract.ts";
import { readText } from "./host/state-directory.ts";

const closed = { additionalProperties: false } as const;
const Path = Type.String({ pattern: "^/", maxLength: 4096 });

const AgentFile = Type.Object(
  {
    /** Where the controller is: https://ADDRESS:PORT. */
    controller: Type.String({ pattern: "^https://[^/]+/?$", maxLength: 512 }),
    stateDirectory: Type.Optional(Path),
    /** The host's name at its first join; default its hostname. */
    name: Type.Optional(Name),
    /** Needed once, to join. */
    joinToken: Type.Optional(Type.String()),
    joinTokenFile: Type.Optional(Path),
    telemetry: Type.Optional(
      Type.Object({ intervalMs: Type.Optional(Type.Integer({ minimum: 100, maximum: 60_000 })) }, closed),
    ),
    metrics: Type.Optional(
      Type.Object(
        { listen: Type.Optional(Type.String({ pattern: "^(off|(127\\.0\\.0\\.1|\\[::1\\]):\\d{1,5})$" })) },
        closed,
      ),
    ),
    /** Ignored where the executor runs as root: its paths are fixed there. */
    executor: Type.Optional(
      Type.Object(
        {
          policy: Type.Optional(Path),
          stateDirectory: Type.Optional(Path),
          runDirectory: Type.Optional(Path),
        },
        closed,
      ),
    ),
    log: Type.Optional(
      Type.Object({ level: Type.Optional(Type.Enum(["debug", "info", "warn", "error"])) }, closed),
    ),
  },
  closed,
);

export interface AgentConfig {
  readonly controller: URL;
  readonly stateDirectory: string;
  readonly name: string | undefined;
  readonly joinToken: string | undefined;
  readonly telemetryIntervalMs: number;
  /** `ADDRESS:PORT`, or undefined when off. */
  readonly metricsListen: string | undefined;
  readonly executor: ExecutorPaths;
  readonly logLevel: string;
}

export interface AgentOverrides {
  readonly joinToken?: string | undefined;
}

const readFile = configReader(AgentFile, parse);

export function defaultConfigFile(): string {
  return "/etc/bedplate/agent.toml";
}

/** @throws `config.unreadable`, `config.invalid` (file, line, key), `enrol.token-invalid` */
export function loadAgentConfig(file: string, overrides: AgentOverrides = {}): AgentConfig {
  const config: Static<typeof AgentFile> = readFile(readText(file), file);
  if (config.joinToken !== undefined && config.joinTokenFile !== undefined) {
    throw new BedplateError("config.invalid", `${file}: give "joinToken" or "joinTokenFile", not both.`, {
      details: { file, key: "joinToken" },
    });
  }
  const joinToken =
    overrides.joinToken ??
    config.joinToken ??
    (config.joinTokenFile === undefined ? undefined : readText(config.joinTokenFile).trim());
  if (joinToken !== undefined) parseJoinToken(joinToken);
  const root = process.geteuid?.() === 0;
  const base = root
    ? "/var/lib/bedplate"
    : `${process.env.XDG_STATE_HOME ?? `${homedir()}/.local/state`}/bedplate`;
  const stateDirectory = config.stateDirectory ?? `${base}/agent`;
  const executor = root ? rootPaths : executorPaths(config, base, stateDirectory);
  const socketBytes = Buffer.byteLength(operationSocketPath(executor.runDirectory, anyCommandId));
  if (socketBytes > socketPathBytesMax) {
    throw new BedplateError(
      "config.invalid",
      `${file}: "executor.runDirectory" is ${socketBytes - socketPathBytesMax} bytes too long for the sockets in it: ${executor.runDirectory}.`,
      {
        hint: "Give a shorter one, such as /run/user/1000/bedplate.",
        details: { file, key: "executor.runDirectory" },
      },
    );
  }
  return {
    controller: new URL(config.controller),
    stateDirectory,
    name: config.name,
    joinToken,
    telemetryIntervalMs: config.telemetry?.intervalMs ?? 1000,
    metricsListen:
      config.metrics?.listen === "off" ? undefined : (config.metrics?.listen ?? "127.0.0.1:9464"),
    executor,
    logLevel: config.log?.level ?? "info",
  };
}

/** What a unix socket's path may have at most (sun_path without its ending zero). */
const socketPathBytesMax = 107;
const anyCommandId = "00000000-0000-7000-8000-000000000000";

function executorPaths(
  { executor }: Static<typeof AgentFile>,
  base: string,
  stateDirectory: string,
): ExecutorPaths {
  return {
    policy: executor?.policy ?? rootPaths.policy,
    stateDirectory: executor?.stateDirectory ?? `${base}/executor`,
    runDirectory: executor?.runDirectory ?? `${stateDirectory}/run`,
  };
}
