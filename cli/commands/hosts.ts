// `bedplate hosts`, `host show HOST`, `host watch HOST`.
import type { Command } from "commander";
import { now } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { formatAge, table } from "../output.ts";

const hostArgument = ["<host>", "name, id or the beginning of an id"] as const;

export function addHostCommands(program: Command, perform: Performer): void {
  const list = program
    .command("hosts")
    .description("list the hosts")
    .action(
      perform(async ({ terminal, api }) => {
        const hosts = await (await api()).hosts();
        terminal.document({ hosts });
        if (hosts.length === 0) {
          terminal.print(
            "No host has joined. Make a token with `bedplate join-token create` and start `bedplate agent --join TOKEN` there.",
          );
          return exitCodes.ok;
        }
        terminal.print(
          table(hosts, [
            { title: "NAME", of: (host) => host.name },
            { title: "ID", of: (host) => host.id.slice(0, 12) },
            { title: "CONNECTION", of: (host) => host.connection },
            { title: "LAST SEEN", of: (host) => formatAge(host.lastSeenAt, now()) },
            { title: "HOSTNAME", of: (host) => host.hostname },
            { title: "AGENT", of: (host) => host.agentVersion },
            { title: "SERIES", of: (host) => `${host.telemetry.series}`, align: "right" },
            { title: "SAMPLES", of: (host) => `${host.telemetry.samples}`, align: "right" },
            { title: "GAPS", of: (host) => `${host.telemetry.gaps}`, align: "right" },
          ]),
        );
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate hosts", "bedplate hosts --json");

  const noun = program.command("host").description("one host: its facts, its live telemetry");
  const show = noun
    .command("show")
    .argument(...hostArgument)
    .description("facts and disks of a host, with selectors ready to paste")
    .action(
      perform(async ({ terminal, signal, api }, _, [reference]) => {
        const { showHost } = await import("../host-show.ts");
        return showHost({ client: await api(), terminal, signal, reference: reference! });
      }),
    );
  example(show, "bedplate host show web-1");

  const watch = noun
    .command("watch")
    .argument(...hostArgument)
    .description("live telemetry of a host, until interrupted")
    .action(
      perform(
        async ({ terminal, signal, api }, _, [reference]) => {
          const { watchHost } = await import("../watch.ts");
          await watchHost({ client: await api(), terminal, signal, reference: reference! });
          return exitCodes.ok;
        },
        { lines: true },
      ),
    );
  example(watch, "bedplate host watch web-1");
}
