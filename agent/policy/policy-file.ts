// The text of the policy file: its schema, and every fault told with file, line and key.
import { parse } from "smol-toml";
import Type, { type Static } from "typebox";
import { commandKinds, isCommandKind } from "../../protocol/commands.ts";
import { configReader, lineOfKey } from "../../protocol/config.ts";
import { OverridableGuard } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { Name } from "../../protocol/schema.ts";
import {
  checkRequirement,
  parseSignerSets,
  type Requirement,
  type SignerSet,
} from "../../protocol/signer-sets.ts";
import { normalWwn } from "../devices/disk-identity.ts";
import type { FileDisk } from "../devices/disks.ts";
import { faultOfPlace } from "../devices/source-rules.ts";
import type { KindRules, PolicyRules } from "./rules.ts";
import { days, minuteOf, minutesOfDay, type Window } from "./windows.ts";

const closed = { additionalProperties: false } as const;
const Kinds = Type.Array(Type.String({ maxLength: 64 }), { maxItems: 256 });
/** A disk the policy allows must at least hold the marker. */
const fileDiskBytesMin = 1 << 20;
const DiskNames = Type.Array(
  Type.String({ pattern: "^(serial:.+|wwn:.+|loop:/.+|file:.+)$", maxLength: 4200 }),
  { maxItems: 4096 },
);
const TimeOfDay = Type.String({ pattern: "^([01]\\d|2[0-4]):[0-5]\\d$" });
const SignatureRule = Type.Object(
  {
    // No offer carries more signatures than this, nor does an image.
    k: Type.Integer({ minimum: 1, maximum: 16 }),
    from: Type.Array(Name, { minItems: 1, maxItems: 64, uniqueItems: true }),
  },
  closed,
);
const Argument = Type.String({ maxLength: 16_384 });

const PolicyFile = Type.Object(
  {
    /** Disks that commands may change: `serial:…`, `wwn:…`, `loop:/path/of/the/file`, `file:NAME`. */
    allowDisks: Type.Optional(DiskNames),
    /** Disks that no command changes, whatever allows them. */
    protectDisks: Type.Optional(DiskNames),
    /** Guards that a command may override on a disk that it names: see OverridableGuard. */
    allowOverrides: Type.Optional(Type.Array(OverridableGuard, { maxItems: 8, uniqueItems: true })),
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
    /**
     * Places whose images are taken, besides the controller's own: `https://mirror.example/`, `http://10.0.0.1:8080/images`,
     * `file:/srv/images`. What lies at or below them, by whole segments of the path.
     */
    imageSources: Type.Optional(Type.Array(Type.String({ maxLength: 2048 }), { maxItems: 256 })),
    /** Images are deployed only with so many operators' signatures over their manifest (`bedplate image sign`). */
    imageSignatures: Type.Optional(SignatureRule),
    /** Kinds of command that are refused. */
    denyKinds: Type.Optional(Kinds),
    /** Kinds that change the host and are taken without an operator's signature: for laboratories. */
    unsigned: Type.Optional(Kinds),
    /** Commands that overwrite disks, in any 24 hours. */
    destructivePerDay: Type.Optional(Type.Integer({ minimum: 0, maximum: 1_000_000 })),
    /** Sets of operators: lines of public keys as ssh-keygen writes them, each with its operator's name. */
    signers: Type.Optional(Type.Record(Name, Type.Array(Type.String({ maxLength: 4096 })))),
    /** Maintenance windows, UTC. */
    windows: Type.Optional(
      Type.Record(
        Name,
        Type.Object(
          {
            days: Type.Optional(Type.Array(Type.Enum([...days]), { minItems: 1, uniqueItems: true })),
            from: TimeOfDay,
            to: TimeOfDay,
          },
          closed,
        ),
      ),
    ),
    kinds: Type.Optional(
      Type.Record(
        Type.String({ maxLength: 64 }),
        Type.Object(
          {
            signatures: Type.Optional(SignatureRule),
            window: Type.Optional(Name),
            /** Of host.exec alone. */
            argv: Type.Optional(
              Type.Array(Type.Array(Argument, { minItems: 1, maxItems: 256 }), { maxItems: 1024 }),
            ),
            shell: Type.Optional(Type.Boolean()),
            environment: Type.Optional(
              Type.Array(Type.String({ pattern: "^[A-Za-z_][A-Za-z0-9_]{0,127}$" }), { maxItems: 64 }),
            ),
            directories: Type.Optional(
              Type.Array(Type.String({ pattern: "^/", maxLength: 4096 }), { maxItems: 256 }),
            ),
          },
          closed,
        ),
      ),
    ),
  },
  closed,
);
type PolicyFile = Static<typeof PolicyFile>;
type KindFile = NonNullable<PolicyFile["kinds"]>[string];

export interface PolicyContent {
  readonly allowDisks: readonly string[];
  readonly protectDisks: readonly string[];
  readonly allowOverrides: readonly OverridableGuard[];
  readonly fileDisks: readonly FileDisk[];
  readonly imageSources: readonly string[];
  readonly imageSignatures: Requirement | null;
  readonly rules: PolicyRules;
}

const readPolicyFile = configReader(PolicyFile, parse);

/** @throws `config.invalid` with file, line and key */
export function readPolicyText(text: string, path: string): PolicyContent {
  const file = readPolicyFile(text, path);
  const fail = failing(text, path);
  const { allowDisks = [], protectDisks = [], allowOverrides = [], fileDisks = [], imageSources = [] } = file;
  for (const key of ["name", "path"] as const) {
    const twice = fileDisks.find((disk, i) => fileDisks.findIndex((other) => other[key] === disk[key]) !== i);
    if (twice !== undefined) throw fail("fileDisks", `two fileDisks have the ${key} "${twice[key]}"`);
  }
  for (const [key, entries] of Object.entries({ allowDisks, protectDisks })) {
    const unknown = entries.find(
      (entry) => entry.startsWith("file:") && !fileDisks.some((disk) => `file:${disk.name}` === entry),
    );
    if (unknown !== undefined) throw fail(key, `"${key}" names ${unknown}, which no [[fileDisks]] declares`);
    // What can match no disk would protect none, and nobody would know.
    for (const entry of entries) {
      const fault = faultOfDiskName(entry);
      if (fault !== undefined) throw fail(key, `"${key}" names "${entry}": ${fault}`);
    }
  }
  for (const place of imageSources) {
    const fault = faultOfPlace(place);
    if (fault !== undefined) throw fail("imageSources", `"imageSources" has "${place}": ${fault}`);
  }
  const rules = rulesOf(file, fail);
  const imageSignatures = requirementIn(file.imageSignatures, "imageSignatures", rules.signers, fail);
  return { allowDisks, protectDisks, allowOverrides, fileDisks, imageSources, imageSignatures, rules };
}

/** Why no disk can ever have that name, if so. */
function faultOfDiskName(entry: string): string | undefined {
  const at = entry.indexOf(":");
  const value = entry.slice(at + 1).trim();
  switch (entry.slice(0, at)) {
    case "wwn":
      return normalWwn(value) === null
        ? "a wwn is written as lsblk prints it (0x5000c500a1b2c3d4), or begins with naa., eui., uuid. or nvme."
        : undefined;
    case "loop":
      return /\/(\.{0,2}\/|\.{0,2}$)/.test(value) || value.includes("\0")
        ? "the kernel tells the file behind a loop device by its plain path, without //, /./, /../ or a last /"
        : undefined;
    default:
      return value === "" ? "there is no name" : undefined;
  }
}

type Fail = (key: string, problem: string, cause?: Error) => BedplateError;

function failing(text: string, path: string): Fail {
  return (key, problem, cause) => {
    const line = lineOfKey(text, key.split("."));
    return new BedplateError(
      "config.invalid",
      `${path}${line === undefined ? "" : `, line ${line}`}: ${problem.replace(/\.$/, "")}.`,
      {
        details: { file: path, key, ...(line === undefined ? {} : { line }) },
        ...(cause === undefined ? {} : { cause }),
      },
    );
  };
}

function rulesOf(file: PolicyFile, fail: Fail): PolicyRules {
  const { denyKinds = [], unsigned = [], kinds = {} } = file;
  // A misspelt kind would deny nothing, and nobody would know.
  for (const [key, names] of Object.entries({ denyKinds, unsigned, kinds: Object.keys(kinds) })) {
    const unknown = names.find((kind) => !isCommandKind(kind));
    if (unknown === undefined) continue;
    const known = Object.keys(commandKinds).join(", ");
    throw fail(
      key === "kinds" ? `kinds.${unknown}` : key,
      `"${key}" names the kind "${unknown}"; known are ${known}`,
    );
  }
  // Nor may a rule stand there that nobody would ask for.
  const unasked = denyKinds.find((kind) => isCommandKind(kind) && commandKinds[kind].runs === "agent");
  if (unasked !== undefined)
    throw fail(
      "denyKinds",
      `"denyKinds" names ${unasked}, which the agent answers itself: no policy binds it`,
    );
  const read = Object.keys(kinds).find((kind) => isCommandKind(kind) && commandKinds[kind].effect === "read");
  if (read !== undefined)
    throw fail(
      `kinds.${read}`,
      `${read} changes nothing, so neither signatures nor windows are asked of it; "denyKinds" refuses what executors do`,
    );
  const signers = signersOf(file, fail);
  const windows = windowsOf(file, fail);
  return {
    denyKinds,
    unsigned,
    destructivePerDay: file.destructivePerDay ?? null,
    signers,
    kinds: Object.fromEntries(
      Object.entries(kinds).map(([kind, given]) => [
        kind,
        kindRules(kind, given, { signers, windows, fail }),
      ]),
    ),
  };
}

/** Set by set, so that the fault names the set it is in; then together, since no key may have two owners. */
function signersOf({ signers = {} }: PolicyFile, fail: Fail): SignerSet[] {
  const attempt = <T>(key: string, work: () => T): T => {
    try {
      return work();
    } catch (cause) {
      if (cause instanceof BedplateError) throw fail(key, cause.message, cause);
      throw cause;
    }
  };
  for (const [name, lines] of Object.entries(signers))
    attempt(`signers.${name}`, () => parseSignerSets({ [name]: lines }));
  return attempt("signers", () => parseSignerSets(signers));
}

function windowsOf({ windows = {} }: PolicyFile, fail: Fail): Map<string, Window> {
  return new Map(
    Object.entries(windows).map(([name, { days: on, from, to }]) => {
      const [fromMinute, toMinute] = [minuteOf(from), minuteOf(to)];
      if (fromMinute === undefined || toMinute === undefined || fromMinute === minutesOfDay)
        throw fail(`windows.${name}`, `the window "${name}" goes from 00:00–23:59 to 00:00–24:00`);
      if (fromMinute === toMinute) {
        throw fail(
          `windows.${name}`,
          `the window "${name}" begins and ends at ${from}; all day is "00:00" to "24:00"`,
        );
      }
      return [name, { name, days: on ?? days, fromMinute, toMinute }];
    }),
  );
}

function requirementIn(
  given: Requirement | undefined,
  key: string,
  signers: readonly SignerSet[],
  fail: Fail,
): Requirement | null {
  if (given === undefined) return null;
  try {
    checkRequirement(given, signers);
  } catch (cause) {
    if (cause instanceof BedplateError) throw fail(key, cause.message, cause);
    throw cause;
  }
  return given;
}

function kindRules(
  kind: string,
  { signatures = undefined, window, argv, shell, environment, directories }: KindFile,
  { signers, windows, fail }: { signers: SignerSet[]; windows: Map<string, Window>; fail: Fail },
): KindRules {
  const key = `kinds.${kind}`;
  const required = requirementIn(signatures, `${key}.signatures`, signers, fail);
  if (window !== undefined && !windows.has(window))
    throw fail(`${key}.window`, `there is no window "${window}"`);
  const ofExec = { argv, shell, environment, directories };
  const misplaced = Object.entries(ofExec).find(([, value]) => value !== undefined)?.[0];
  if (kind !== "host.exec" && misplaced !== undefined)
    throw fail(`${key}.${misplaced}`, `"${misplaced}" is for host.exec, not for ${kind}`);
  const wild = argv?.find(([program = ""]) => !program.startsWith("/") || program.includes("*"));
  if (wild !== undefined)
    throw fail(`${key}.argv`, `"${wild[0]}" is no program: argument vectors begin with an absolute path`);
  const inner = argv?.find((vector) => vector.slice(0, -1).includes("**"));
  if (inner !== undefined) throw fail(`${key}.argv`, '"**" stands for all that is left, so it comes last');
  return {
    signatures: required,
    window: window === undefined ? null : windows.get(window)!,
    exec:
      kind === "host.exec"
        ? {
            argv: argv ?? [],
            shell: shell ?? false,
            environment: environment ?? [],
            directories: directories ?? [],
          }
        : null,
  };
}
