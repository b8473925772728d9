// The agent as a process of the built program on a host of its own: as root with private mounts over the fixed paths.
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openPrivateHost } from "../../cli/demo/private-host.ts";
import { builtProgram, node, type Program, type ProgramOptions, startProgram } from "./programs.ts";

export interface HostDirectories {
  readonly home: string;
  readonly agentState: string;
  readonly policyFile: string;
  readonly executorState: string;
  readonly runDirectory: string;
}

export interface TestHost extends AsyncDisposable {
  readonly directories: HostDirectories;
  /** The newest agent's process. */
  readonly agent: Program;
  /** Starts the agent, as it is started again after its end. */
  start(options?: AgentStart): Program;
  /** The command line that runs `argv` on this host: an executor, say. */
  wrap(argv: readonly [string, ...string[]]): readonly string[];
}

export interface AgentStart {
  /** In front of node: strace, faketime. */
  readonly wrap?: readonly string[];
  readonly nodeOptions?: readonly string[];
  readonly environment?: ProgramOptions["environment"];
}

export interface HostOptions {
  readonly directory: string;
  readonly name: string;
  readonly controller: string;
  readonly joinToken: string;
  readonly policy?: string;
  readonly telemetryMs?: number;
  readonly logLevel?: "debug" | "info" | "warn";
}

/** A reason as text where root may not make mounts: a real host of this machine must not be touched then. */
export async function openTestHost(options: HostOptions): Promise<TestHost | string> {
  const home = join(options.directory, options.name);
  const directories: HostDirectories = {
    home,
    agentState: join(home, "agent"),
    policyFile: join(home, "etc/policy.toml"),
    executorState: join(home, "var/executor"),
    runDirectory: join(home, "run"),
  };
  const { agentState, executorState, runDirectory, policyFile } = directories;
  for (const path of [agentState, executorState, runDirectory, join(home, "etc")])
    mkdirSync(path, { recursive: true, mode: 0o700 });
  if (!existsSync(policyFile))
    writeFileSync(policyFile, options.policy ?? "allowDisks = []\n", { mode: 0o600 });
  const root = process.geteuid?.() === 0;
  const mounts = root
    ? await openPrivateHost([
        { source: join(home, "etc"), target: "/etc/bedplate" },
        { source: join(home, "var"), target: "/var/lib/bedplate" },
        { source: runDirectory, target: "/run/bedplate" },
      ])
    : undefined;
  if (typeof mounts === "string") return mounts;
  const wrap: TestHost["wrap"] = (argv) => mounts?.wrap(argv) ?? argv;
  const config = join(home, "agent.toml");
  writeFileSync(
    config,
    `controller = "${options.controller}"
name = "${options.name}"
joinToken = "${options.joinToken}"
stateDirectory = "${agentState}"
[telemetry]
intervalMs = ${options.telemetryMs ?? 1000}
[metrics]
listen = "off"
[log]
level = "${options.logLevel ?? "info"}"
[executor]
policy = "${policyFile}"
stateDirectory = "${executorState}"
runDirectory = "${runDirectory}"
`,
    { mode: 0o600 },
  );
  let agent: Program | undefined;
  return {
    directories,
    wrap,
    get agent() {
      if (agent === undefined) throw new Error("the agent was never started");
      return agent;
    },
    start({ wrap: around = [], nodeOptions = [], environment = {} } = {}) {
      const argv = [...around, node, ...nodeOptions, builtProgram, "agent", "--config", config];
      agent = startProgram({
        argv: wrap(argv as [string, ...string[]]),
        logFile: join(home, "agent.log"),
        environment: { TMPDIR: home, ...environment },
      });
      return agent;
    },
    async [Symbol.asyncDispose]() {
      await agent?.[Symbol.asyncDispose]();
      await mounts?.[Symbol.asyncDispose]();
    },
  };
}
