// `bedplate hosts`, `host show HOST`, `host watch HOST`, and `host approve|reject|revoke|rename|release`.
import type { Command } from "commander";
import { now } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example, nameOption } from "../options.ts";
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
            { title: "FINGERPRINT", of: (host) => host.fingerprint },
            { title: "STANDING", of: (host) => host.standing },
            { title: "CONNECTION", of: (host) => host.connection },
            { title: "LAST SEEN", of: (host) => formatAge(host.lastSeenAt, now()) },
            { title: "HOSTNAME", of: (host) => host.hostname },
            { title: "AGENT", of: (host) => host.agentVersion },
            { title: "SERIES", of: (host) => `${host.telemetry.series}`, align: "right" },
            { title: "SAMPLES", of: (host) => `${host.telemetry.samples}`, align: "right" },
            { title: "GAPS", of: (host) => `${host.telemetry.gaps}`, align: "right" },
          ]),
        );
        for (const host of hosts.filter(({ standing }) => standing === "pending"))
          terminal.note(`${host.name} waits for approval: ${host.suggest}`);
        for (const host of hosts.filter(({ standing }) => standing === "quarantined"))
          terminal.note(`${host.name} is in quarantine, two machines have its key: ${host.suggest}`);
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate hosts", "bedplate hosts --json");

  const noun = program
    .command("host")
    .description("one host: its facts, its live telemetry, whether it may work");
  const show = noun
    .command("show")
    .argument(...hostArgument)
    .description("facts and disks of a host, with selectors ready to paste")
    .option(
      "--tools",
      "let it ask smartctl, nvme, lldpctl, ethtool and ipmitool too, and what answers slowly",
    )
    .action(
      perform<{ tools?: true }>(async ({ terminal, signal, api }, { tools = false }, [reference]) => {
        const { showHost } = await import("../host-show.ts");
        return showHost({ client: await api(), terminal, signal, reference: reference!, tools });
      }),
    );
  example(show, "bedplate host show web-1", "bedplate host show web-1 --tools");

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

  const approve = noun
    .command("approve")
    .argument(...hostArgument)
    .description("let a host that waits for approval work, and keep its keys in known_hosts")
    .option(
      "--fingerprint <fingerprint>",
      "what the host's own log shows; refused when its key is another. Without it nothing is kept in known_hosts",
    )
    .action(
      perform<{ fingerprint?: string; knownHosts?: string }>(
        async ({ terminal, signal, api }, { fingerprint, knownHosts }, [reference]) => {
          const client = await api();
          if (fingerprint === undefined) {
            const host = await client.approveHost(reference!);
            terminal.document(host);
            terminal.print(`${host.name} is approved; its fingerprint is ${host.fingerprint}.`);
            return exitCodes.ok;
          }
          const { approveKnown } = await import("../known-host.ts");
          const { knownHostsPath } = await import("../trust/known-hosts-file.ts");
          return approveKnown({
            client,
            terminal,
            signal,
            reference: reference!,
            fingerprint,
            path: knownHostsPath(knownHosts),
          });
        },
      ),
    );
  example(approve, "bedplate host approve web-1 --fingerprint 6D2A-91F0-33C4-0B7E");

  const reject = noun
    .command("reject")
    .argument(...hostArgument)
    .description("turn away a host that waits for approval: its key is revoked")
    .action(
      perform(async ({ terminal, api }, _, [reference]) => {
        const host = await (await api()).rejectHost(reference!);
        terminal.document(host);
        terminal.print(`${host.name} is rejected: its key is revoked.`);
        return exitCodes.ok;
      }),
    );
  example(reject, "bedplate host reject web-1");

  const revoke = noun
    .command("revoke")
    .argument(...hostArgument)
    .description(
      "shut a host out for good: it is disconnected, its key never connects again, its open commands end",
    )
    .action(
      perform(async ({ terminal, api }, _, [reference]) => {
        const host = await (await api()).revokeHost(reference!);
        terminal.document(host);
        terminal.print(
          `The key of ${host.name} is revoked.${host.suggest === null ? "" : ` For the same machine with a new key: ${host.suggest}`}`,
        );
        return exitCodes.ok;
      }),
    );
  example(revoke, "bedplate host revoke web-1");

  const rename = noun
    .command("rename")
    .argument(...hostArgument)
    .argument("<name>", "the new name; no other host may have it", nameOption)
    .description("call a host by another name; its id stays")
    .action(
      perform(async ({ terminal, api }, _, [reference, name]) => {
        const host = await (await api()).renameHost(reference!, name!);
        terminal.document(host);
        terminal.print(`${host.id.slice(0, 12)} is called ${host.name}.`);
        return exitCodes.ok;
      }),
    );
  example(rename, "bedplate host rename web-1 rack3-07");

  const release = noun
    .command("release")
    .argument(...hostArgument)
    .description(
      "end a host's quarantine: say which of the machines that answer with its key is the true one",
    )
    .requiredOption("--instance <id>", "as `bedplate host show` lists them; the other machine is shut out")
    .action(
      perform<{ instance: string }>(async ({ terminal, api }, { instance }, [reference]) => {
        const host = await (await api()).releaseHost(reference!, instance);
        terminal.document(host);
        terminal.print(
          `${host.name} is ${host.standing}; the machine with the instance ${instance} goes on.`,
        );
        return exitCodes.ok;
      }),
    );
  example(release, "bedplate host release web-1 --instance 4f6c2a7e9b1d4c58");
}
