// What only programs can ask the network for: neighbours by lldpctl, firmware and permanent addresses by ethtool.
import type { Nic } from "../../../../protocol/inventory-devices.ts";
import { cleanLine } from "../../facts.ts";
import { macOf } from "../nics.ts";
import { countAt, lineAt, member, parsed, type Tool } from "./tool.ts";

const nicsMax = 64;
const neighboursMax = 16;

export async function askNetwork(
  nics: readonly Nic[],
  { lldpctl, ethtool }: { readonly lldpctl: Tool; readonly ethtool: Tool },
): Promise<Nic[]> {
  const physical = nics.filter(({ kind, pciAddress }) => kind === "physical" || pciAddress !== null);
  const neighbours =
    physical.length === 0 ? new Map<string, Neighbour[]>() : parseLldp(await lldpctl.ask(["-f", "json"]));
  const asked: Nic[] = [];
  for (const nic of nics) {
    const lldp = neighbours.get(nic.name) ?? [];
    if (!physical.slice(0, nicsMax).includes(nic)) {
      asked.push({ ...nic, lldp });
      continue;
    }
    const firmware = parseFirmware(await ethtool.ask(["-i", nic.name]));
    const permanent = nic.permanentMac ?? parsePermanent(await ethtool.ask(["-P", nic.name]));
    asked.push({
      ...nic,
      lldp,
      firmware,
      permanentMac: permanent,
      from: {
        ...nic.from,
        ...(firmware === null ? {} : { firmware: "ethtool" }),
        ...(nic.permanentMac === null && permanent !== null ? { permanentMac: "ethtool" } : {}),
        ...(lldp.length === 0 ? {} : { lldp: "lldpctl" }),
      },
    });
  }
  return asked;
}

/** `firmware-version: 8.30 0x8000a4ae 20.5.13`. */
export function parseFirmware(text: string | null): string | null {
  return cleanLine(/^firmware-version:(.*)$/m.exec(text ?? "")?.[1] ?? "", 256) || null;
}

/** `Permanent address: e4:43:4b:01:02:03`. */
export function parsePermanent(text: string | null): string | null {
  return macOf(/^Permanent address:\s*(\S+)$/m.exec(text ?? "")?.[1] ?? null);
}

type Neighbour = NonNullable<Nic["lldp"]>[number];

/** lldpctl -f json: one interface is an object, several are a list of objects with one member each. */
export function parseLldp(text: string | null): ReadonlyMap<string, Neighbour[]> {
  const found = new Map<string, Neighbour[]>();
  for (const entry of listOf(member(parsed(text), "lldp", "interface"))) {
    for (const [name, seen] of Object.entries(entry)) {
      const known = found.get(name) ?? [];
      if (known.length < neighboursMax) found.set(name, [...known, neighbourOf(seen)]);
    }
  }
  return found;
}

function neighbourOf(seen: unknown): Neighbour {
  // The chassis is named by the switch's own name, or stands without one.
  const chassis = member(seen, "chassis");
  const [named] = typeof chassis === "object" && chassis !== null ? Object.entries(chassis) : [];
  const byName = named !== undefined && member(named[1], "id") !== undefined;
  const body = byName ? named[1] : chassis;
  const vlans = listOf(member(seen, "vlan")).flatMap((vlan) => countAt(vlan, "vlan-id") ?? []);
  const management = member(body, "mgmt-ip");
  return {
    chassis: lineAt(body, "id", "value"),
    system: byName ? cleanLine(named[0], 256) || null : null,
    port: lineAt(seen, "port", "id", "value"),
    portDescription: lineAt(seen, "port", "descr"),
    vlans: vlans.slice(0, 64),
    management: (Array.isArray(management) ? (management as unknown[]) : [management])
      .flatMap((address) => (typeof address === "string" ? cleanLine(address, 64) : []))
      .slice(0, 8),
  };
}

function listOf(value: unknown): readonly Record<string, unknown>[] {
  const list = Array.isArray(value) ? (value as unknown[]) : [value];
  return list.filter((each) => typeof each === "object" && each !== null).slice(0, 256) as Record<
    string,
    unknown
  >[];
}
