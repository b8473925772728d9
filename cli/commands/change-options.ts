// The options that every command which changes a host has in common.
import { type Command, Option } from "commander";
import type { ChangeOptions } from "../change.ts";
import type { Context } from "../context.ts";
import { linkLostOption, monthOption } from "../options.ts";

export interface GivenChangeOptions {
  readonly plan?: boolean;
  readonly yes?: boolean;
  readonly sign?: string;
  readonly wait?: boolean;
  readonly timeout?: number;
  readonly startWithin?: number;
  readonly onLinkLost?: "continue" | "pause" | "abort";
  readonly knownHosts?: string;
}

export function addChangeOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--plan", "only show what would happen; exit code 3 when the host would refuse").conflicts([
        "sign",
        "wait",
      ]),
    )
    .option("--yes", "do not ask")
    .option(
      "--sign <key>",
      "sign it with this SSH key: a file, or agent, agent:NAME, agent:SHA256:… for one in ssh-agent",
    )
    .option("--wait", "stay while other operators' signatures are missing (else exit code 9)")
    .option("--timeout <duration>", "how long it may run, enforced on the host", monthOption)
    .option(
      "--start-within <duration>",
      "how long it may wait on the host for another operation to end",
      monthOption,
    )
    .option(
      "--on-link-lost <what>",
      "continue, pause or abort when the host loses its controller before the point of no return",
      linkLostOption,
    );
}

/** What `change` is given of them. */
export async function changeOptionsOf(
  { terminal, signal, api }: Context,
  given: GivenChangeOptions,
  reference: string,
): Promise<Omit<ChangeOptions, "kind" | "arguments">> {
  const { plan = false, yes = false, sign, wait = false, timeout, startWithin, onLinkLost } = given;
  const { requireAskable } = await import("../confirm.ts");
  const { knownHostsPath } = await import("../trust/known-hosts-file.ts");
  requireAskable(terminal, plan || yes, "--plan");
  return {
    client: await api(),
    terminal,
    signal,
    reference,
    knownHostsFile: knownHostsPath(given.knownHosts),
    planOnly: plan,
    confirmed: yes,
    wait,
    ...(sign === undefined ? {} : { sign }),
    ...(timeout === undefined ? {} : { timeoutSeconds: timeout }),
    limits: {
      ...(startWithin === undefined ? {} : { startWithinSeconds: startWithin }),
      ...(onLinkLost === undefined ? {} : { onLinkLost }),
    },
  };
}
