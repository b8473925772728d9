// The controller's configuration: a TOML file, overridden by the command line, completed by defaults.
import { homedir } from "node:os";
import { join } from "node:path";
import { parse } from "smol-toml";
import Type from "typebox";
import { configReader } from "../protocol/config.ts";
import { BedplateError } from "../protocol/errors.ts";
import { readConfigFile } from "./machine/files.ts";
import { type LogLevel, logLevels } from "./machine/log.ts";

const File = Type.Object(
  {
    /** HOST:PORT to listen on; port 0 takes a free one. */
    listen: Type.Optional(Type.String()),
    stateDirectory: Type.Optional(Type.String({ minLength: 1 })),
    /** More names and addresses that the certificate is valid for. */
    names: Type.Optional(Type.Array(Type.String({ pattern: "^[A-Za-z0-9.:-]{1,253}$" }), { maxItems: 64 })),
    heartbeatSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 3600 })),
    /** How long telemetry is kept. */
    telemetryHours: Type.Optional(Type.Integer({ minimum: 1, maximum: 24 * 366 })),
    logLevel: Type.Optional(Type.Union(logLevels.map((level) => Type.Literal(level)))),
  },
  { additionalProperties: false },
);
const read = configReader(File, (text) => parse(text));

export interface ControllerConfig {
  readonly listen: ListenAddress;
  readonly stateDirectory: string;
  readonly names: readonly string[];
  readonly heartbeatMs: number;
  readonly telemetryHours: number;
  readonly logLevel: LogLevel;
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export interface ConfigOptions {
  readonly configFile?: string | undefined;
  readonly stateDirectory?: string | undefined;
  readonly listen?: string | undefined;
}

/** What holds where neither file nor command line says otherwise. */
const defaults = {
  listen: "127.0.0.1:7443",
  heartbeatSeconds: 10,
  telemetryHours: 24,
  logLevel: "info",
} as const;

/**
 * The configuration that a controller started with these options would have.
 * @throws `config.invalid` naming file, line and key; `config.unreadable`
 */
export function checkControllerConfig(options: ConfigOptions = {}): ControllerConfig {
  const file =
    options.configFile === undefined ? {} : read(readConfigFile(options.configFile), options.configFile);
  return {
    listen: parseListen(options.listen ?? file.listen ?? defaults.listen),
    stateDirectory:
      options.stateDirectory ??
      file.stateDirectory ??
      defaultStateDirectory(process.env, process.geteuid?.() === 0),
    names: file.names ?? [],
    heartbeatMs: 1000 * (file.heartbeatSeconds ?? defaults.heartbeatSeconds),
    telemetryHours: file.telemetryHours ?? defaults.telemetryHours,
    logLevel: file.logLevel ?? defaults.logLevel,
  };
}

/** Where the controller keeps its state, and the CLI looks for client.json, unless told otherwise. */
export function defaultStateDirectory(
  environment: Readonly<Record<string, string | undefined>>,
  root: boolean,
): string {
  if (root) return "/var/lib/bedplate/controller";
  const base = environment.XDG_STATE_HOME ?? "";
  // The XDG specification: a relative path is invalid and to be ignored.
  return join(base.startsWith("/") ? base : join(homedir(), ".local/state"), "bedplate/controller");
}

/** @throws `config.invalid` */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new BedplateError("config.invalid", `"${text}" is no address to listen on.`, {
      hint: 'Give HOST:PORT, for example "127.0.0.1:7443" or "[::]:7443"; port 0 takes a free one.',
      details: { key: "listen" },
    });
  }
  return { host: match[1] ?? match[2]!, port };
}
