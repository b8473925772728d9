// How disks are named on the wire: by stable identity only, never by a name that the next boot may give to another.
import Type, { type Static } from "typebox";
import { BedplateError } from "./errors.ts";
import { Count, checker, Line, Name } from "./schema.ts";

/** Which one disk is meant. All given members must hold; at least one of the identities must be given. */
export const DiskSelector = Type.Object(
  {
    serial: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
    wwn: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
    byId: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
    hctl: Type.Optional(Type.String({ pattern: "^\\d+:\\d+:\\d+:\\d+$" })),
    /** A loop device, by the absolute path of the file behind it. */
    loop: Type.Optional(Type.String({ pattern: "^/", maxLength: 4096 })),
    /** A file-backed disk, by the name that the host's policy gives it. */
    file: Type.Optional(Name),
    /** Constraints, not identities. */
    sizeBytes: Type.Optional(Count),
    type: Type.Optional(
      Type.Union([
        Type.Literal("ssd"),
        Type.Literal("hdd"),
        Type.Literal("nvme"),
        Type.Literal("loop"),
        Type.Literal("file"),
      ]),
    ),
  },
  { additionalProperties: false },
);
export type DiskSelector = Static<typeof DiskSelector>;

const identities = ["serial", "wwn", "byId", "hctl", "loop", "file"] as const;
const constraints = ["sizeBytes", "type"] as const;

const check = checker(DiskSelector, "command.bad-arguments", "disk selector");

/** @throws `command.bad-arguments` when the value is no selector or holds no identity */
export function checkDiskSelector(value: unknown): DiskSelector {
  const selector = check(value);
  if (identities.some((key) => selector[key] !== undefined)) return selector;
  throw new BedplateError(
    "command.bad-arguments",
    `A disk is selected by ${identities.join(", ")}; size and type alone never select one.`,
    {
      hint: "Run `bedplate host show HOST` for the serials of its disks.",
    },
  );
}

/**
 * Reads `serial=S3Z9,type=ssd`. A value may hold `=` but no comma.
 * @throws `command.bad-arguments`
 */
export function parseDiskSelector(text: string): DiskSelector {
  const members: Record<string, unknown> = {};
  for (const part of text.split(",")) {
    const at = part.indexOf("=");
    const key = part.slice(0, Math.max(at, 0)).trim();
    const value = part.slice(at + 1).trim();
    if (!([...identities, ...constraints] as readonly string[]).includes(key) || value === "") {
      throw new BedplateError("command.bad-arguments", `"${part}" selects no disk.`, {
        hint: `Write KEY=VALUE with one of ${[...identities, ...constraints].join(", ")}, such as serial=S3Z9NX0M.`,
      });
    }
    members[key] = key === "sizeBytes" ? Number(value) : value;
  }
  return checkDiskSelector(members);
}

export function formatDiskSelector(selector: DiskSelector): string {
  return Object.entries(selector)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

/** What must be the same when a plan is applied as when it was made. */
export const Fingerprint = Type.Object({
  /** Stable: these must hold on every resume too. */
  serial: Type.Union([Type.String(), Type.Null()]),
  wwn: Type.Union([Type.String(), Type.Null()]),
  /** The file behind a loop device or file-backed disk. */
  backing: Type.Union([Type.String(), Type.Null()]),
  model: Type.Union([Type.String(), Type.Null()]),
  sizeBytes: Count,
  logicalSectorBytes: Count,
  physicalSectorBytes: Count,
  /** Of this moment: the kernel's sequence number of the disk (0 where it has none), with the boot it belongs to. */
  diskSequence: Count,
  bootId: Type.String(),
  /** BLAKE3 of the first and last MiB, lower-case hexadecimal: the partition table and its backup. */
  edges: Type.String({ pattern: "^[0-9a-f]{64}$" }),
  /** BLAKE3 of what the guards found on the disk, its partitions' inside too; absent in plans of older agents. */
  content: Type.Optional(Type.String({ pattern: "^[0-9a-f]{64}$" })),
});
export type Fingerprint = Static<typeof Fingerprint>;

/** Guards that judge by what somebody left on a disk or how it is attached: where the policy lets them, operators may know better. */
export const overridableGuards = ["remote", "member", "shared-storage", "table"] as const;
export const OverridableGuard = Type.Union([
  Type.Literal("remote"),
  Type.Literal("member"),
  Type.Literal("shared-storage"),
  Type.Literal("table"),
]);
export type OverridableGuard = Static<typeof OverridableGuard>;

/** One guard's finding. `ok: false` refuses the command with `code`. */
export const GuardFinding = Type.Object({
  guard: Type.String(),
  ok: Type.Boolean(),
  code: Type.Optional(Type.String()),
  finding: Line,
  /** The path of the disk that it is about, where a command names several. */
  disk: Type.Optional(Type.String({ maxLength: 4096 })),
});
export type GuardFinding = Static<typeof GuardFinding>;

/** One disk of a host, as inventory and candidates list it. */
export const Disk = Type.Object({
  /** Of this moment only: `/dev/sda`, or the path of a file-backed disk. */
  path: Type.String(),
  type: Type.Union([
    Type.Literal("ssd"),
    Type.Literal("hdd"),
    Type.Literal("nvme"),
    Type.Literal("loop"),
    Type.Literal("file"),
  ]),
  sizeBytes: Count,
  logicalSectorBytes: Count,
  physicalSectorBytes: Count,
  serial: Type.Union([Type.String(), Type.Null()]),
  wwn: Type.Union([Type.String(), Type.Null()]),
  model: Type.Union([Type.String(), Type.Null()]),
  vendor: Type.Union([Type.String(), Type.Null()]),
  firmware: Type.Union([Type.String(), Type.Null()]),
  hctl: Type.Union([Type.String(), Type.Null()]),
  byId: Type.Array(Type.String()),
  transport: Type.Union([Type.String(), Type.Null()]),
  readOnly: Type.Boolean(),
  removable: Type.Boolean(),
  diskSequence: Count,
  /** Loop: the file behind it. File-backed: the file. */
  backing: Type.Union([Type.String(), Type.Null()]),
  /** File-backed: its name in the policy. */
  fileDisk: Type.Union([Type.String(), Type.Null()]),
  partitions: Type.Array(
    Type.Object({ path: Type.String(), number: Count, startBytes: Count, sizeBytes: Count }),
  ),
  mounts: Type.Array(Type.String()),
  swap: Type.Boolean(),
  holders: Type.Array(Type.String()),
  /** Whether the host's policy allows destructive commands on it. */
  allowed: Type.Boolean(),
  /** The kernel's word for how its device is: running, live, offline; null where there is none. */
  state: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  /** A multipath device: the disks that are its paths, which are never used themselves. */
  paths: Type.Optional(Type.Array(Type.String())),
});
export type Disk = Static<typeof Disk>;
