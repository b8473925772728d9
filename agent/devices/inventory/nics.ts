// The network interfaces, from /sys/class/net: what each is, what it hangs on, and how they are joined.
import type { Nic } from "../../../protocol/inventory-devices.ts";
import { cleanLine, type Facts } from "../facts.ts";
import { parseUevent, virtualFunctionsOf } from "./pci.ts";
import {
  type Addresses,
  bounded,
  countOf,
  flagOf,
  lineOf,
  linkName,
  pciAddressIn,
  pciAddressOfPath,
  type Source,
} from "./source.ts";

const at = "/sys/class/net";
const nicsMax = 1024;
const membersMax = 256;
const addressesMax = 64;

export const nics: Source<Nic[]> = {
  sources: [
    `${at}/*/{address,addr_assign_type,mtu,operstate,carrier,speed,duplex,type,uevent,phys_port_id,phys_switch_id}`,
    `${at}/*/{device,device/driver,device/numa_node,device/sriov_*,device/physfn,master}`,
    `${at}/*/{bonding/*,bonding_slave/perm_hwaddr,bridge/*,brif}`,
    "/proc/net/vlan/config",
    "getifaddrs(3) for addresses",
  ],
  collect({ facts, note, addresses }) {
    const vlans = parseVlans(facts.optionalText("/proc/net/vlan/config") ?? "");
    const names = facts.list(at).filter((name) => name !== "lo" && facts.exists(`${at}/${name}/type`));
    return bounded(names, nicsMax, "network interfaces", note).map((name) =>
      readNic(facts, name, { vlans, addresses }),
    );
  },
  absent: [],
};

function readNic(
  facts: Facts,
  name: string,
  { vlans, addresses }: { vlans: Vlans; addresses: Addresses },
): Nic {
  const nic = `${at}/${name}`;
  const device = facts.realPath(`${nic}/device`);
  const mac = macOf(facts.optionalText(`${nic}/address`));
  const assignment = assignments[countOf(facts, `${nic}/addr_assign_type`) ?? -1] ?? null;
  const permanent = permanentMac(facts, nic, mac, assignment);
  const bond = bondOf(facts, nic);
  const bridge = bridgeOf(facts, nic);
  const vlan = vlans.get(name) ?? null;
  return {
    name: cleanLine(name, 64),
    mac,
    driver: linkName(facts, `${nic}/device/driver`),
    mtu: countOf(facts, `${nic}/mtu`),
    up: facts.optionalText(`${nic}/operstate`) === "up",
    carrier: facts.optionalNumber(`${nic}/carrier`) === 1,
    // -1 is the kernel's word for not known.
    speedMbps: countOf(facts, `${nic}/speed`),
    duplex: knownDuplex(facts.optionalText(`${nic}/duplex`)),
    pciAddress: pciAddressOfPath(device),
    addresses: [...(addresses.get(name) ?? [])].slice(0, addressesMax).sort(),
    kind: kindOf(facts, nic, { device, bond: bond !== null, bridge: bridge !== null, vlan: vlan !== null }),
    macAssignment: assignment,
    permanentMac: permanent.mac,
    firmware: null,
    numaNode: countOf(facts, `${nic}/device/numa_node`),
    physicalPort: lineOf(facts, `${nic}/phys_port_id`),
    physicalSwitch: lineOf(facts, `${nic}/phys_switch_id`),
    master: linkName(facts, `${nic}/master`),
    vlan,
    bond,
    bridge,
    virtualFunctions: virtualFunctionsOf(facts, `${nic}/device`),
    physicalFunction: pciAddressIn(linkName(facts, `${nic}/device/physfn`)),
    infinibandGuid: infinibandGuid(mac),
    lldp: [],
    from: permanent.from === null ? {} : { permanentMac: permanent.from },
  };
}

/** include/uapi/linux/netdevice.h: NET_ADDR_*. */
const assignments: { readonly [type: number]: string } = {
  0: "permanent",
  1: "random",
  2: "stolen",
  3: "set",
};

/** Of a bond's member its address is the bond's; its own stands elsewhere. */
function permanentMac(
  facts: Facts,
  nic: string,
  mac: string | null,
  assignment: string | null,
): { readonly mac: string | null; readonly from: string | null } {
  const member = `${nic}/bonding_slave/perm_hwaddr`;
  const own = macOf(facts.optionalText(member));
  if (own !== null) return { mac: own, from: member };
  return assignment === "permanent" && mac !== null
    ? { mac, from: `${nic}/address` }
    : { mac: null, from: null };
}

const infiniband = 32;

function kindOf(
  facts: Facts,
  nic: string,
  { device, bond, bridge, vlan }: { device: string | null; bond: boolean; bridge: boolean; vlan: boolean },
): string {
  if (bond) return "bond";
  if (bridge) return "bridge";
  const kind = parseUevent(facts.optionalText(`${nic}/uevent`) ?? "").get("DEVTYPE");
  if (kind !== undefined) return cleanLine(kind, 32);
  if (vlan) return "vlan";
  if (device === null) return "virtual";
  return countOf(facts, `${nic}/type`) === infiniband ? "infiniband" : "physical";
}

function bondOf(facts: Facts, nic: string): NonNullable<Nic["bond"]> | null {
  // "802.3ad 4"
  const mode = lineOf(facts, `${nic}/bonding/mode`);
  if (mode === null) return null;
  return {
    mode: mode.replace(/ \d+$/, ""),
    members: (lineOf(facts, `${nic}/bonding/slaves`, 4096) ?? "")
      .split(" ")
      .filter((member) => member !== "")
      .slice(0, membersMax)
      .sort(),
    active: lineOf(facts, `${nic}/bonding/active_slave`),
    monitorMs: countOf(facts, `${nic}/bonding/miimon`),
  };
}

function bridgeOf(facts: Facts, nic: string): NonNullable<Nic["bridge"]> | null {
  const id = lineOf(facts, `${nic}/bridge/bridge_id`);
  if (id === null) return null;
  return {
    id,
    stp: flagOf(facts, `${nic}/bridge/stp_state`),
    ports: facts
      .list(`${nic}/brif`)
      .slice(0, membersMax)
      .map((port) => cleanLine(port, 64)),
  };
}

type Vlans = ReadonlyMap<string, { readonly id: number; readonly over: string }>;

/** `bond0.120      | 120  | bond0`, after two lines of titles. */
export function parseVlans(text: string): Vlans {
  return new Map(
    text.split("\n").flatMap((line) => {
      const match = /^\s*(\S+)\s*\|\s*(\d{1,4})\s*\|\s*(\S+)\s*$/.exec(line);
      return match === null
        ? []
        : [[match[1]!, { id: Number(match[2]), over: cleanLine(match[3]!, 64) }] as const];
    }),
  );
}

/** Six bytes, or the twenty of InfiniBand. */
export function macOf(text: string | null): string | null {
  const mac = text?.toLowerCase() ?? "";
  return /^([0-9a-f]{2}:){5}([0-9a-f]{2}|([0-9a-f]{2}:){14}[0-9a-f]{2})$/.test(mac) && !/^(00:)+00$/.test(mac)
    ? mac
    : null;
}

/** The port's GUID is the last eight bytes of its address. */
function infinibandGuid(mac: string | null): string | null {
  const bytes = mac?.split(":") ?? [];
  return bytes.length === 20 ? bytes.slice(12).join(":") : null;
}

function knownDuplex(text: string | null): string | null {
  return text === "full" || text === "half" ? text : null;
}
