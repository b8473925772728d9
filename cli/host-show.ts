// One host on a page: what it is, what it has, and how to name its disks.
import type { Static } from "typebox";
import type { CommandView, HostView } from "../protocol/api.ts";
import type { Disk } from "../protocol/disks.ts";
import { Inventory } from "../protocol/inventory.ts";
import type { ApiClient } from "./api-client.ts";
import { now } from "./clock.ts";
import { selectorOf } from "./deploy.ts";
import { type ExitCode, exitCodeOfState, exitCodes } from "./exit-codes.ts";
import { operate, outputOf, succeeded } from "./operation.ts";
import { explanationFacts, facts, formatAge, formatBytes, formatTime, table } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export interface HostShowOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
}

const inventorySeconds = 60;

/** Takes a fresh inventory of a host that is online, else the newest one known. */
export async function showHost({ client, terminal, signal, reference }: HostShowOptions): Promise<ExitCode> {
  const host = await client.host(reference);
  let view: CommandView | undefined;
  if (host.connection === "online" && (host.standing === "approved" || host.standing === "quarantined")) {
    ({ view } = await operate({
      client,
      terminal,
      signal,
      reference: host.id,
      kind: "host.inventory",
      timeoutSeconds: inventorySeconds,
    }));
    if (!succeeded(view, terminal, { host })) return exitCodeOfState(view.state);
  } else {
    const commands = await client.commands({ host: host.id, state: "succeeded", limit: 200 });
    view = commands.find((command) => command.kind === "host.inventory");
  }
  const inventory = view === undefined ? null : outputOf(view, Inventory);
  const takenAt = view?.result?.endedAt ?? null;
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

export function inventoryText(inventory: Static<typeof Inventory>): string {
  const { system, cpu, memory, disks, nics } = inventory;
  const named = [system.vendor, system.product].filter((part) => part !== null).join(" ");
  return [
    facts([
      [
        "system",
        `${named === "" ? "unknown make" : named}${system.serial === null ? "" : `, serial ${system.serial}`}${system.virtual ? ", virtual" : ""}`,
      ],
      [
        "software",
        `${system.operatingSystem ?? "unknown system"}, Linux ${system.kernel}, ${system.architecture}, boot by ${system.bootMode}`,
      ],
      [
        "processor",
        `${cpu.model ?? "unknown"}: ${cpu.sockets} sockets, ${cpu.cores} cores, ${cpu.threads} threads`,
      ],
      ["memory", `${formatBytes(memory.totalBytes)}, swap ${formatBytes(memory.swapBytes)}`],
    ]),
    "",
    disks.length === 0 ? "No disks." : diskTable(disks),
    "",
    table(nics, [
      { title: "NIC", of: (nic) => nic.name },
      { title: "MAC", of: (nic) => nic.mac },
      { title: "DRIVER", of: (nic) => nic.driver },
      { title: "LINK", of: (nic) => (nic.up ? (nic.carrier ? "up" : "no carrier") : "down") },
      {
        title: "SPEED",
        of: (nic) => (nic.speedMbps === null ? null : `${nic.speedMbps} Mbit/s`),
        align: "right",
      },
      { title: "ADDRESSES", of: (nic) => nic.addresses.join(" ") },
    ]),
    ...(inventory.unreadable.length === 0
      ? []
      : [
          "",
          `not readable: ${inventory.unreadable.slice(0, 8).join("; ")}${inventory.unreadable.length > 8 ? `; and ${inventory.unreadable.length - 8} more` : ""}`,
        ]),
  ].join("\n");
}

export function diskTable(disks: readonly Static<typeof Disk>[]): string {
  return table(disks, [
    { title: "DISK", of: (disk) => disk.path },
    { title: "SIZE", of: (disk) => formatBytes(disk.sizeBytes), align: "right" },
    { title: "TYPE", of: (disk) => disk.type },
    { title: "MODEL", of: (disk) => disk.model },
    { title: "USE", of: useOf },
    { title: "ALLOWED", of: (disk) => (disk.allowed ? "yes" : "no") },
    { title: "SELECT WITH", of: selectorOf },
  ]);
}

function useOf(disk: Static<typeof Disk>): string {
  const uses = [
    ...(disk.mounts.length === 0 ? [] : [`mounted on ${disk.mounts.slice(0, 2).join(", ")}`]),
    ...(disk.swap ? ["swap"] : []),
    ...(disk.holders.length === 0 ? [] : [`held by ${disk.holders.slice(0, 2).join(", ")}`]),
    ...(disk.readOnly ? ["read-only"] : []),
  ];
  if (uses.length > 0) return uses.join("; ");
  return disk.partitions.length === 0 ? "none" : `${disk.partitions.length} partitions`;
}
