// The agent's entry: options to configuration to run(signal) to exit code.
import { destination, pino } from "pino";
import { runAgent } from "./agent.ts";
import { defaultConfigFile, loadAgentConfig } from "./config.ts";

export interface AgentOptions {
  readonly configFile?: string | undefined;
  /** Overrides the file's. */
  readonly joinToken?: string | undefined;
  /** Read the configuration, say what it means, and run nothing. */
  readonly check?: boolean | undefined;
}

/**
 * Runs the agent until `signal` aborts; logs JSON lines to standard output.
 * @throws BedplateError when the configuration or the state directory cannot be used
 */
export async function agentMain(options: AgentOptions, signal: AbortSignal): Promise<void> {
  const config = loadAgentConfig(options.configFile ?? defaultConfigFile(), { joinToken: options.joinToken });
  if (options.check === true) {
    const { controller, joinToken, ...rest } = config;
    process.stdout.write(
      `${JSON.stringify({ controller: controller.href, joinToken: joinToken === undefined ? "none" : "given", ...rest }, undefined, 2)}\n`,
    );
    return;
  }
  const log = pino({ name: "bedplate-agent", level: config.logLevel }, destination({ fd: 1, sync: true }));
  await runAgent(config, log, signal);
}
