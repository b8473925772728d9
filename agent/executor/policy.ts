// The host's policy: what its administrator allows, which no controller can change. Read anew for each operation.
import { parse } from "smol-toml";
import Type from "typebox";
import { configReader } from "../../protocol/config.ts";
import type { Disk } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { Name } from "../../protocol/schema.ts";
import { normalWwn } from "../devices/disk-identity.ts";
import { errnoOf, type Files, parentOf } from "../host/files.ts";

const closed = { additionalProperties: false } as const;
const Kinds = Type.Array(Type.String({ maxLength: 64 }), { maxItems: 256 });
/** A disk the policy allows must at least hold the marker. */
const fileDiskBytesMin = 1 << 20;

const PolicyFile = Type.Object(
  {
    /** Disks that commands may change: `serial:…`, `wwn:…`, `loop:/path/of/the/file`, `file:NAME`. */
    allowDisks: Type.Optional(
      Type.Array(Type.String({ pattern: "^(serial:.+|wwn:.+|loop:/.+|file:.+)$", maxLength: 4200 }), {
        maxItems: 4096,
      }),
    ),
    /** Files that stand for disks. */
    fileDisks: Type.Optional(
      Type.Array(
        Type.Object(
          {
            name: Name,
            path: Type.String({ pattern: "^/", maxLength: 4096 }),
            sizeBytes: Type.Integer({ minimum: fileDiskBytesMin, multipleOf: 512 }),
          },
          closed,
        ),
        { maxItems: 256 },
      ),
    ),
    /** Kinds of command that are refused. */
    denyKinds: Type.Optional(Kinds),
    /** Reserved for the kinds that are taken without an operator's signature; without effect yet. */
    unsigned: Type.Optional(Kinds),
  },
  closed,
);

export interface FileDisk {
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
}

export interface Policy {
  readonly path: string;
  /** A missing file allows reading, and no disk. */
  readonly state: "present" | "missing";
  readonly fileDisks: readonly FileDisk[];
  readonly denyKinds: readonly string[];
  allows(disk: Disk): boolean;
}

const policyBytesMax = 1 << 20;
const readPolicyFile = configReader(PolicyFile, parse);

/**
 * @param owner the effective user: file and directory must be its own, or root's
 * @throws `policy.unsafe`, `config.invalid` (file, line, key), `config.unreadable`
 */
export function loadPolicy(files: Files, path: string, owner: number): Policy {
  let bytes: Uint8Array;
  try {
    // The directory first: whoever may change it may put another file there.
    requireSafe(files, parentOf(path), "directory", owner);
    requireSafe(files, path, "file", owner);
    bytes = files.readBytes(path, policyBytesMax);
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    if (errnoOf(cause) === "ENOENT")
      return { path, state: "missing", fileDisks: [], denyKinds: [], allows: () => false };
    throw new BedplateError("config.unreadable", `${path} cannot be read: ${errnoOf(cause)}.`, {
      details: { path },
      cause,
    });
  }
  return parsePolicy(new TextDecoder().decode(bytes), path);
}

/** @throws `config.invalid` with file, line and key */
export function parsePolicy(text: string, path: string): Policy {
  const { allowDisks = [], fileDisks = [], denyKinds = [] } = readPolicyFile(text, path);
  for (const key of ["name", "path"] as const) {
    const twice = fileDisks.find((disk, i) => fileDisks.findIndex((other) => other[key] === disk[key]) !== i);
    if (twice !== undefined) {
      throw new BedplateError("config.invalid", `${path}: two fileDisks have the ${key} "${twice[key]}".`, {
        details: { file: path, key: "fileDisks" },
      });
    }
  }
  const unknown = allowDisks.find(
    (entry) => entry.startsWith("file:") && !fileDisks.some((disk) => `file:${disk.name}` === entry),
  );
  if (unknown !== undefined) {
    throw new BedplateError(
      "config.invalid",
      `${path}: "allowDisks" names ${unknown}, which no [[fileDisks]] declares.`,
      {
        details: { file: path, key: "allowDisks" },
      },
    );
  }
  const allowed = new Set(allowDisks.map(normalEntry));
  return {
    path,
    state: "present",
    fileDisks,
    denyKinds,
    allows: (disk) => {
      // What stands for a disk is allowed by its file alone.
      if (disk.type === "file") return allowed.has(`file:${disk.fileDisk}`);
      if (disk.type === "loop") return allowed.has(`loop:${disk.backing}`);
      return (
        (disk.serial !== null && allowed.has(`serial:${disk.serial}`)) ||
        (disk.wwn !== null && allowed.has(`wwn:${disk.wwn}`))
      );
    },
  };
}

function normalEntry(entry: string): string {
  const at = entry.indexOf(":");
  const value = entry.slice(at + 1).trim();
  return `${entry.slice(0, at)}:${entry.startsWith("wwn:") ? (normalWwn(value) ?? value) : value}`;
}

function requireSafe(files: Files, path: string, kind: "directory" | "file", owner: number): void {
  const status = kind === "directory" ? files.status(path) : files.linkStatus(path);
  const problem =
    status.kind !== kind
      ? `is a ${status.kind}, not a ${kind}`
      : status.uid !== owner && status.uid !== 0
        ? `belongs to user ${status.uid}`
        : (status.mode & 0o022) !== 0
          ? `can be written by others (mode ${status.mode.toString(8).padStart(4, "0")})`
          : undefined;
  if (problem === undefined) return;
  throw new BedplateError(
    "policy.unsafe",
    `The policy's ${kind} ${path} ${problem}, so the policy is not trusted.`,
    {
      hint: `It must belong to ${owner === 0 ? "root" : "root or the executor's user"} and be writable by its owner only: chmod go-w ${path}.`,
      details: { path },
    },
  );
}
