// One host on a page: what it is, what it has, and how to name its disks.
import type { HostView } from "../protocol/api.ts";
import { Inventory } from "../protocol/inventory.ts";
import type { ApiClient } from "./api-client.ts";
import { now } from "./clock.ts";
import { type ExitCode, exitCodeOfState, exitCodes } from "./exit-codes.ts";
import { inventoryText } from "./inventory-text.ts";
import { answerOf, type KnownInventory, newestInventory } from "./newest-inventory.ts";
import { operate, outputOf, succeeded } from "./operation.ts";
import { explanationFacts, facts, formatAge, formatTime } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export { inventoryText };

export interface HostShowOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
  /** Let the host ask its optional programs and slow sources too. */
  readonly tools?: boolean;
}

const inventorySeconds = 60;
/** With programs that may each take their time. */
const toolsSeconds = 240;
/** Commands that are looked through for the newest inventory. */
const commandsMax = { online: 20, offline: 200 } as const;

/** Takes a fresh inventory of a host that is online, else the newest one known. */
export async function showHost(options: HostShowOptions): Promise<ExitCode> {
  const { client, terminal, reference } = options;
  const host = await client.host(reference);
  const answers =
    host.connection === "online" && (host.standing === "approved" || host.standing === "quarantined");
  const known = newestInventory(
    await client.commands({
      host: host.id,
      state: "succeeded",
      limit: answers ? commandsMax.online : commandsMax.offline,
    }),
  );
  const found = answers ? await takeInventory(host, known, options) : known;
  if (typeof found === "number") return found;
  const { inventory = null, takenAt = null } = found ?? {};
  terminal.document({ host, inventory, takenAt });
  terminal.print(hostText(host));
  if (inventory === null) {
    terminal.print(
      host.standing === "approved"
        ? "\nNo inventory is known: the host has been offline since it joined."
        : "\nNo inventory is known: one is taken when the host is approved.",
    );
    return exitCodes.ok;
  }
  if (host.connection === "offline") terminal.print(`inventory taken ${formatAge(takenAt, now())}`);
  terminal.print(inventoryText(inventory));
  return exitCodes.ok;
}

/** The whole is sent only when it is not what is known already. */
async function takeInventory(
  host: HostView,
  known: KnownInventory | null,
  { client, terminal, signal, tools = false }: HostShowOptions,
): Promise<KnownInventory | ExitCode> {
  // An agent that tells no groups is older than the question.
  const unless = tools || known?.inventory.groups === undefined ? undefined : known.inventory.contentHash;
  const { view } = await operate({
    client,
    terminal,
    signal,
    reference: host.id,
    kind: "host.inventory",
    arguments: { ...(tools ? { tools } : {}), ...(unless === undefined ? {} : { unless }) },
    timeoutSeconds: tools ? toolsSeconds : inventorySeconds,
  });
  if (!succeeded(view, terminal, { host })) return exitCodeOfState(view.state);
  const takenAt = view.result?.endedAt ?? null;
  const answer = answerOf(view.result?.output);
  if (answer !== null && "unchanged" in answer && known !== null)
    return { inventory: { ...known.inventory, moment: answer.moment }, takenAt };
  return { inventory: outputOf(view, Inventory), takenAt };
}

export function hostText(host: HostView): string {
  const { telemetry } = host;
  return facts([
    ["name", host.name],
    ["id", host.id],
    ["fingerprint", host.fingerprint],
    ["standing", `${host.standing} since ${formatTime(host.standingSince)}`],
    ...(host.formerIds.length === 0
      ? []
      : [["took over from", host.formerIds.map((id) => id.slice(0, 12)).join(", ")] as const]),
    ["attestation key", host.identity === null ? null : host.identity.fingerprint],
    [
      "policy",
      host.identity === null
        ? null
        : `${host.identity.policyState}${host.identity.policyDigest === null ? "" : `, SHA-256 ${host.identity.policyDigest.slice(0, 16)}…`}${host.identity.privilegeSplit === "absent" ? "; the executor runs as the agent's user: no privilege split" : ""}`,
    ],
    ...(host.auditHead === null
      ? []
      : [
          [
            "audit",
            `${host.auditHead.seq} entries, head ${host.auditHead.hash.slice(0, 16)}…, told ${formatAge(host.auditHead.at, now())}`,
          ] as const,
        ]),
    ...host.instances.map(({ instance, address, bootId }): [string, string] => [
      "instance",
      `${instance} at ${address}, boot ${bootId}`,
    ]),
    ["connection", `${host.connection} for ${formatAge(host.since, now())!.replace(" ago", "")}`],
    ["agent", `${host.agentVersion}, joined ${formatAge(host.joinedAt, now())}`],
    ["telemetry", `${telemetry.series} series, ${telemetry.samples} samples, ${telemetry.gaps} gaps`],
    ["clock", host.clockOffsetMs === null ? null : clockText(host.clockOffsetMs)],
    ...explanationFacts(host),
  ]);
}

/** `offsetMs` is the controller's clock minus the host's. */
function clockText(offsetMs: number): string {
  const ms = Math.round(offsetMs);
  return `${Math.abs(ms)} ms ${ms < 0 ? "ahead of" : "behind"} the controller's`;
}
