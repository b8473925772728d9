// The stable identities of a disk: serial, world-wide name, address on its bus, and how it is attached.
import { cleanText, type Facts } from "./facts.ts";

const identityMax = 256;

export interface DiskIdentity {
  readonly serial: string | null;
  readonly wwn: string | null;
  readonly model: string | null;
  readonly vendor: string | null;
  readonly firmware: string | null;
  /** Host:channel:target:lun. */
  readonly hctl: string | null;
  readonly transport: string | null;
}

/** Member to the file that it came from. */
export type IdentitySources = Readonly<Record<string, string>>;

/** Each identity is that of the first source that has one. `name` as in /sys/block, `number` its MAJOR:MINOR. */
export function identifyDisk(
  facts: Facts,
  name: string,
  number: string,
): { readonly identity: DiskIdentity; readonly from: IdentitySources } {
  const disk = `/sys/block/${name}`;
  const device = `${disk}/device`;
  const database = `/run/udev/data/b${number}`;
  const udev = parseUdev(facts.optionalText(database) ?? "");
  const page = facts.optionalBytes(`${device}/vpd_pg80`);
  const address = (facts.link(device) ?? "").split("/").at(-1)!;
  const text = (path: string) => [path, known(facts.optionalText(path))] as const;
  const property = (key: string) => [database, known(udev.get(key) ?? null)] as const;
  const from: Record<string, string> = {};
  const first = (field: keyof DiskIdentity, ...choices: readonly (readonly [string, string | null])[]) => {
    const choice = choices.find(([, value]) => value !== null);
    if (choice !== undefined) from[field] = choice[0];
    return choice?.[1] ?? null;
  };
  const wwn = ([path, value]: readonly [string, string | null]) => [path, normalWwn(value ?? "")] as const;
  return {
    identity: {
      serial: first(
        "serial",
        [`${device}/vpd_pg80`, known(page === null ? null : parseSerialPage(page))],
        text(`${device}/serial`),
        text(`${disk}/serial`),
        property("ID_SERIAL_SHORT"),
      ),
      wwn: first("wwn", wwn(text(`${disk}/wwid`)), wwn(text(`${device}/wwid`)), wwn(property("ID_WWN"))),
      model: first("model", text(`${device}/model`)),
      vendor: first("vendor", text(`${device}/vendor`)),
      firmware: first("firmware", text(`${device}/firmware_rev`), text(`${device}/rev`)),
      hctl: /^\d+:\d+:\d+:\d+$/.test(address) ? address : null,
      transport: transportOf(facts.realPath(disk) ?? "", nvmeTransport(facts, device)),
    },
    from,
  };
}

/** The Unit Serial Number page of SCSI (SPC, page 80h): four bytes of header, then ASCII; null when it is none. */
export function parseSerialPage(page: Uint8Array): string | null {
  if (page.length < 5 || page[1] !== 0x80) return null;
  const length = (page[2]! << 8) | page[3]!;
  return cleanText(page.subarray(4, 4 + length));
}

/** Properties of a device in udev's database: the lines `E:KEY=VALUE`. */
export function parseUdev(text: string): ReadonlyMap<string, string> {
  const properties = new Map<string, string>();
  for (const line of text.split("\n")) {
    const match = /^E:([A-Za-z0-9_]+)=(.*)$/.exec(line);
    if (match !== null) properties.set(match[1]!, match[2]!);
  }
  return properties;
}

/**
 * `0x5000c500a1b2c3d4` (as lsblk prints what the kernel calls naa.), `eui.…`, `uuid.…`, `nvme.…`; null for what names
 * a disk only within its vendor (t10.).
 */
export function normalWwn(text: string): string | null {
  const lower = text.trim().toLowerCase();
  if (/^(naa\.|0x)[0-9a-f]{16,32}$/.test(lower)) return `0x${lower.replace(/^(naa\.|0x)/, "")}`;
  return /^(eui\.[0-9a-f]{16,32}|uuid\.[0-9a-f-]{32,36}|nvme\.[0-9a-f-]+)$/.test(lower) ? lower : null;
}

/**
 * Of the controller; a namespace that several may reach belongs to their subsystem, which has no transport of its own
 * (drivers/nvme/host/core.c: nvme_init_subsystem links the controllers into it). One that is not in this machine is enough.
 */
function nvmeTransport(facts: Facts, device: string): string | null {
  const own = facts.optionalText(`${device}/transport`);
  if (own !== null) return own;
  const transports = facts
    .list(device)
    .filter((name) => /^nvme\d+$/.test(name))
    .map((controller) => facts.optionalText(`${device}/${controller}/transport`));
  return transports.find((each) => each !== null && each !== "pcie") ?? transports[0] ?? null;
}

/** By the way the device's path in sysfs takes; `nvme` is NVMe's own word for its transport (pcie, tcp, rdma, fc). */
export function transportOf(path: string, nvme: string | null): string | null {
  if (/\/nvme\d+/.test(path)) return nvme === null || nvme === "pcie" ? "nvme" : `nvme-${nvme}`;
  if (path.includes("/session")) return "iscsi";
  if (path.includes("/rport-")) return "fc";
  if (path.includes("/usb")) return "usb";
  if (path.includes("/end_device-")) return "sas";
  if (/\/ata\d+\//.test(path)) return "sata";
  if (/\/virtio\d+/.test(path)) return "virtio";
  return path.includes("/mmc_host/") ? "mmc" : null;
}

/** One line; blanks within stay as they are, since selectors are compared with it. */
function known(text: string | null): string | null {
  const trimmed = (text ?? "")
    .replace(/\p{C}+/gu, " ")
    .trim()
    .slice(0, identityMax)
    .trim();
  return trimmed === "" ? null : trimmed;
}
