// `bedplate ping HOST`: a round trip through controller, link and agent.
import type { Command as Program } from "commander";
import { Ping } from "../../protocol/commands.ts";
import { monotonic } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodeOfState, exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { formatBytes, formatSeconds } from "../output.ts";

export function addPingCommand(program: Program, perform: Performer): void {
  const command = program
    .command("ping")
    .argument("<host>", "name, id or the beginning of an id")
    .description("ask a host's agent for a sign of life")
    .action(
      perform(async ({ terminal, signal, api }, _, [reference]) => {
        const { operate, outputOf, succeeded } = await import("../operation.ts");
        const client = await api();
        const started = monotonic();
        const { host, view } = await operate({
          client,
          terminal,
          signal,
          reference: reference!,
          kind: "agent.ping",
          timeoutSeconds: 15,
        });
        const roundTripMs = Math.round(monotonic() - started);
        if (!succeeded(view, terminal)) return exitCodeOfState(view.state);
        const ping = outputOf(view, Ping);
        terminal.document({ host: host.name, roundTripMs, ping });
        terminal.print(
          `${host.name} answered in ${roundTripMs} ms: up ${formatSeconds(ping.uptimeSeconds)}, ${formatBytes(ping.residentBytes)} resident, event loop delay p99 ${ping.eventLoopDelayP99Ms.toFixed(1)} ms`,
        );
        return exitCodes.ok;
      }),
    );
  example(command, "bedplate ping web-1");
}
