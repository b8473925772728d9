// `bedplate known-hosts add|list|remove`: the operator's own record of which keys hosts sign their plans with.
import type { Command } from "commander";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf as fingerprintOfHost } from "../../protocol/identifiers.ts";
import { fingerprintOf, parsePublicKey } from "../../protocol/ssh-keys.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { table } from "../output.ts";

interface Options {
  readonly knownHosts?: string;
}

export function addKnownHostsCommands(program: Command, perform: Performer): void {
  const noun = program
    .command("known-hosts")
    .description("the keys of hosts that you know, in a file of your own: what plans are held against");
  const add = noun
    .command("add")
    .argument("<host>", "name, id or the beginning of an id")
    .description(
      "verify a host's keys from its fingerprint, and keep them; a key that differs from the known one is refused",
    )
    .requiredOption("--fingerprint <fingerprint>", "what the host's own log shows")
    .action(
      perform<Options & { fingerprint: string }>(
        async ({ terminal, signal, api }, { fingerprint, knownHosts }, [reference]) => {
          const { addKnownHost } = await import("../known-host.ts");
          const { knownHostsPath } = await import("../trust/known-hosts-file.ts");
          return addKnownHost({
            client: await api(),
            terminal,
            signal,
            reference: reference!,
            fingerprint,
            path: knownHostsPath(knownHosts),
          });
        },
      ),
    );
  example(add, "bedplate known-hosts add web-1 --fingerprint 6D2A-91F0-33C4-0B7E");

  const list = noun
    .command("list")
    .description("the hosts that you know")
    .action(
      perform<Options>(async ({ terminal }, { knownHosts }) => {
        const { knownHostsPath, readKnownHosts } = await import("../trust/known-hosts-file.ts");
        const { path, hosts } = await readKnownHosts(knownHostsPath(knownHosts));
        const listed = await Promise.all(
          hosts.map(async (host) => ({
            ...host,
            fingerprint: fingerprintOfHost(host.id),
            attestationFingerprint: await fingerprintOf(parsePublicKey(host.attestationKey)),
          })),
        );
        terminal.document({ path, hosts: listed });
        terminal.print(
          listed.length === 0
            ? `No host is known in ${path}.`
            : table(listed, [
                { title: "NAME", of: ({ name }) => name },
                { title: "FINGERPRINT", of: ({ fingerprint }) => fingerprint },
                { title: "ATTESTATION KEY", of: ({ attestationFingerprint }) => attestationFingerprint },
              ]),
        );
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate known-hosts list", "bedplate known-hosts list --known-hosts ~/lab/known_hosts");

  const remove = noun
    .command("remove")
    .argument("<host>", "name or id, as in the file")
    .description("forget a host's keys")
    .action(
      perform<Options>(async ({ terminal, signal }, { knownHosts }, [reference]) => {
        const { changeKnownHosts, knownHostsPath, readKnownHosts } = await import(
          "../trust/known-hosts-file.ts"
        );
        const { withoutKnownHost } = await import("../trust/known-hosts.ts");
        const { path, hosts } = await readKnownHosts(knownHostsPath(knownHosts));
        const known = hosts.find(({ id, name }) => name === reference || id === reference);
        if (known === undefined) {
          throw new BedplateError("host.unknown", `No host "${reference}" is in ${path}.`, {
            hint: "See `bedplate known-hosts list`.",
          });
        }
        await changeKnownHosts(path, (text) => withoutKnownHost(text, known.id), signal);
        terminal.document({ removed: known, path });
        terminal.print(`${known.name} is not known any more (${path}).`);
        return exitCodes.ok;
      }),
    );
  example(remove, "bedplate known-hosts remove web-1");
}
