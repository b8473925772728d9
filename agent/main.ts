// The agent's entry: options to configuration to run(signal) to exit code.
import { destination, pino } from "pino";
import { runDaemon } from "./agent.ts";
import { defaultConfigFile, loadAgentConfig } from "./config.ts";
import { createLogLines } from "./operations/log-lines.ts";

export interface AgentOptions {
  readonly configFile?: string | undefined;
  /** Overrides the file's. */
  readonly joinToken?: string | undefined;
  /** Only read and check the configuration. */
  readonly check?: boolean | undefined;
}

/**
 * Runs the agent until `signal` aborts; logs JSON lines to standard output.
 * @throws BedplateError when the configuration or the state directory cannot be used
 */
export async function runAgent(options: AgentOptions, signal: AbortSignal): Promise<void> {
  const config = loadAgentConfig(options.configFile ?? defaultConfigFile(), { joinToken: options.joinToken });
  if (options.check === true) return;
  // What the agent writes is for its own user alone, also the files that SQLite makes.
  process.umask(0o077);
  const output = destination({ fd: 1, sync: true });
  const lines = createLogLines();
  const log = pino(
    { name: "bedplate-agent", level: config.logLevel },
    {
      write(line: string) {
        output.write(line);
        lines.add(line);
      },
    },
  );
  await runDaemon(config, log, lines, signal);
}
