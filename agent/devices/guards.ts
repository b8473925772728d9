// The guards of destructive commands: each looks at facts only, all are evaluated before anything is written.
import type { Code } from "../../protocol/codes.ts";
import type { DiskContent, Signature } from "../../protocol/disk-content.ts";
import {
  type Disk,
  type GuardFinding,
  type OverridableGuard,
  overridableGuards,
} from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { paddedBytes } from "../../protocol/groups.ts";
import { hintOfGuard } from "../../protocol/guard-hints.ts";
import { isSharedType, protectiveType } from "./signatures/partition-types.ts";

export interface GuardFacts {
  readonly disk: Disk;
  /** Paths that the disk carries of those a destructive command must never meet. */
  readonly carries: readonly string[];
  /** Whether the host has a policy at all. */
  readonly policy: "present" | "missing";
  readonly policyPath: string;
  /** Whether the policy protects the disk from every change. */
  readonly protectedByPolicy: boolean;
  /** Whether the kernel refuses exclusive use of it; to be asked where nothing says yet who holds it. */
  readonly heldByAnother: boolean;
  /** Programs that have it open to write to it. */
  readonly writers: readonly string[];
  /** What lies on the disk; null once the operation itself has begun to write to it. */
  readonly content: DiskContent | null;
  /** Guards that the command overrides, and those that the policy lets commands override. */
  readonly overrides: readonly OverridableGuard[];
  readonly allowOverrides: readonly OverridableGuard[];
  readonly image: { readonly sizeBytes: number; readonly sectorBytes: 512 | 4096 | null };
}

type Finding = string | { readonly code: Code; readonly finding: string };

/** In the order of which counts first: the first that fails names the refusal. */
const guards: { readonly [name: string]: (facts: GuardFacts) => Finding } = {
  protected: ({ disk, protectedByPolicy, policyPath }) =>
    protectedByPolicy
      ? { code: "disk.protected", finding: `${policyPath} protects it (${nameForPolicy(disk)}).` }
      : "no policy protects it",
  allowed({ disk, policy, policyPath, protectedByPolicy }) {
    if (policy === "missing") {
      return {
        code: "policy.missing",
        finding: `There is no ${policyPath}: no disk of this host may be changed.`,
      };
    }
    if (disk.allowed) return `${policyPath} allows it`;
    return {
      code: "disk.not-allowed",
      finding: protectedByPolicy
        ? "What is protected is not allowed, whatever allowDisks says."
        : `${policyPath} does not list ${nameForPolicy(disk)} in allowDisks.`,
    };
  },
  "own-root": ({ carries }) =>
    carries.length === 0
      ? "it carries neither the host's root nor Bedplate's state"
      : { code: "disk.own-root", finding: `It carries ${carries.join(" and ")} of this host.` },
  mounted: ({ disk }) =>
    disk.mounts.length === 0
      ? "nothing of it is mounted"
      : { code: "disk.mounted", finding: `It is mounted at ${disk.mounts.slice(0, 8).join(", ")}.` },
  swap: ({ disk }) =>
    disk.swap ? { code: "disk.swap", finding: "It is in use as swap." } : "it is not in use as swap",
  held({ disk, heldByAnother, writers }) {
    if (disk.holders.length > 0)
      return { code: "disk.held", finding: `${disk.holders.slice(0, 8).join(", ")} is stacked on it.` };
    if (writers.length > 0) {
      const who = `it is open for writing by ${writers.join(", ")}.`;
      return {
        code: "disk.held",
        finding: heldByAnother
          ? `The kernel refuses exclusive use of it: ${who}`
          : `The kernel would give it to us, but ${who}`,
      };
    }
    // The kernel's no to what is mounted or swapped on here is told by the guards above.
    if (!heldByAnother || disk.mounts.length > 0 || disk.swap) return "nothing holds it or is stacked on it";
    return {
      code: "disk.held",
      finding:
        "The kernel refuses exclusive use of it: another program holds it, or it is mounted where this host's executor does not see it.",
    };
  },
  remote: ({ disk }) =>
    remoteTransports.includes(disk.transport ?? "")
      ? {
          code: "disk.remote",
          finding: `It is attached by ${disk.transport}: other hosts may reach it, and nothing here can tell.`,
        }
      : "it is attached to this host alone, as far as its transport tells",
  member({ content }) {
    if (content === null) return alreadyBegun;
    const found = signaturesOf(content).filter(({ use, shared }) => use === "member" && !shared);
    if (found.length > 0)
      return { code: "disk.member", finding: `It is a part of something larger: ${namesOf(found)}.` };
    return notLookedAt(content) ?? `no RAID, volume group, pool or cache claims it${asFarAsRead(content)}`;
  },
  "shared-storage"({ content }) {
    if (content === null) return alreadyBegun;
    const found = signaturesOf(content).filter(({ shared }) => shared);
    const types = content.partitions.filter(({ type }) => isSharedType(type));
    if (found.length === 0 && types.length === 0)
      return (
        notLookedAt(content) ?? `it carries no signature of storage that hosts share${asFarAsRead(content)}`
      );
    const typed = types
      .slice(0, 8)
      .map(({ number, typeName }) => `partition ${number} is of type ${typeName}`);
    return {
      code: "disk.shared-storage",
      finding: `Other hosts may be using it: ${[...(found.length === 0 ? [] : [namesOf(found)]), ...typed].join(", ")}.`,
    };
  },
  table({ content }) {
    if (content === null) return alreadyBegun;
    const lost = lostTable(content);
    if (lost !== undefined)
      return {
        code: "disk.table-damaged",
        finding: `It cannot be told what lies in its partitions: ${lost}.`,
      };
    return content.table === null ? "it has no partition table" : "its partition table can be read";
  },
  "read-only": ({ disk }) =>
    disk.readOnly ? { code: "disk.read-only", finding: "It is read-only." } : "it can be written",
  size({ disk, image }) {
    const needed = paddedBytes(image.sizeBytes, disk.logicalSectorBytes);
    return needed <= disk.sizeBytes
      ? `the image's ${image.sizeBytes} bytes fit its ${disk.sizeBytes}`
      : {
          code: "disk.too-small",
          finding: `The image needs ${needed} bytes; the disk has ${disk.sizeBytes}.`,
        };
  },
  "sector-size"({ disk, image }) {
    if (image.sectorBytes === null) return "the image has no partition table";
    return image.sectorBytes === disk.logicalSectorBytes
      ? `the image's partition table is for sectors of ${image.sectorBytes} bytes, as the disk's`
      : {
          code: "disk.sector-size",
          finding: `The image's partition table is for sectors of ${image.sectorBytes} bytes; the disk's have ${disk.logicalSectorBytes}: it would look blank.`,
        };
  },
};

const alreadyBegun = "this operation has begun to write to it";
/** As disk-identity.ts names them: what several hosts can be attached to. */
const remoteTransports: readonly string[] = ["fc", "iscsi", "nvme-fc", "nvme-rdma", "nvme-tcp"];

function signaturesOf({ signatures, partitions }: DiskContent): readonly Signature[] {
  return [...signatures, ...partitions.flatMap((partition) => partition.signatures)];
}

/** Where nobody could look, a signature may lie: what cannot be ruled out is not ruled out. */
function notLookedAt({ unread = [] }: DiskContent): Finding | undefined {
  if (unread.length === 0) return undefined;
  return {
    code: "disk.unreadable",
    finding: `It cannot be told what claims it: places where signatures lie were not read (${unread.slice(0, 3).join("; ")}).`,
  };
}

/** Why a table that was there does not say where partitions are: what lies in them was not looked at. */
function lostTable({ table, partitions, errors }: DiskContent): string | undefined {
  if (table?.type === "gpt")
    return table.primary === "good" || table.backup === "good"
      ? undefined
      : `neither copy of its GUID partition table is whole (${errors.slice(0, 3).join("; ")})`;
  return partitions.some(({ type }) => type === protectiveType)
    ? "its first sector says that it has a GUID partition table, and neither copy of that is there"
    : undefined;
}

/** What made no sense may have said more. */
function asFarAsRead({ errors }: DiskContent): string {
  return errors.length === 0 ? "" : `, as far as it can be read (${errors.slice(0, 3).join("; ")})`;
}

function namesOf(signatures: readonly Signature[]): string {
  return signatures
    .slice(0, 8)
    .map(({ kind, label, offset }) => `${kind}${label === null ? "" : ` "${label}"`} at byte ${offset}`)
    .join(", ");
}

/** Mount points and labels may be long; with the words around it a finding is one line of at most 4096 characters. */
const findingCharactersMax = 3500;

function bounded(found: Finding): Finding {
  if (typeof found === "string" || found.finding.length <= findingCharactersMax) return found;
  return { ...found, finding: `${found.finding.slice(0, findingCharactersMax)}…` };
}

/** Every guard's finding, whether or not another one fails. */
export function evaluateGuards(facts: GuardFacts): GuardFinding[] {
  return Object.entries(guards).map(([guard, check]) => {
    const found = bounded(check(facts));
    if (typeof found === "string") return { guard, ok: true, finding: found };
    const name = overridableGuards.find((each) => each === guard);
    if (name === undefined || !facts.overrides.includes(name)) return { guard, ok: false, ...found };
    if (facts.allowOverrides.includes(name))
      return { guard, ok: true, finding: `overridden: ${found.finding}` };
    return {
      guard,
      ok: false,
      code: "policy.override-denied",
      finding: `${found.finding} The command overrides that, which ${facts.policyPath} does not let it (allowOverrides).`,
    };
  });
}

/**
 * @param began an earlier run of the same operation has written to it
 * @throws the first failing guard's code, with all findings in the details
 */
export function requireGuards(findings: readonly GuardFinding[], disk: Disk, began = false): void {
  const failed = findings.filter((finding) => !finding.ok);
  const [first] = failed;
  if (first === undefined) return;
  throw new BedplateError(
    first.code as Code,
    `${failed.map(({ finding }) => finding).join(" ")} ${nameForPeople(disk)} is not touched${began ? " any further" : ""}.`,
    {
      hint: hintOfGuard(first.code ?? "") ?? "`--plan` shows every guard's finding.",
      details: { disk: { path: disk.path, serial: disk.serial, backing: disk.backing }, guards: findings },
    },
  );
}

/** With what stays the same from boot to boot. */
export function nameForPeople({ path, serial, wwn, backing }: Disk): string {
  const [what, name] =
    serial !== null ? ["serial", serial] : wwn !== null ? ["wwn", wwn] : ["backing", backing];
  return name === null || name === path ? path : `${path} (${what} ${name})`;
}

/** How `allowDisks` would name it. */
export function nameForPolicy(disk: Disk): string {
  if (disk.fileDisk !== null) return `file:${disk.fileDisk}`;
  if (disk.backing !== null) return `loop:${disk.backing}`;
  if (disk.serial !== null) return `serial:${disk.serial}`;
  return disk.wwn === null
    ? `${disk.path} (it has neither serial nor wwn and cannot be named)`
    : `wwn:${disk.wwn}`;
}
