// image.deploy and image.verify: what they are told, what their plans say, and what they return.
import Type, { type Static } from "typebox";
import { Disk, DiskSelector, Fingerprint, GuardFinding, OverridableGuard } from "./disks.ts";
import { wrongGroupsMax } from "./groups.ts";
import { Outcome } from "./outcome.ts";
import { PlanArtefact } from "./plans.ts";
import { Count, Digest, Name, Report } from "./schema.ts";

const Image = Type.Object(
  {
    /** The image's BLAKE3 root: what `b3sum` prints for the raw image. */
    root: Digest,
    sizeBytes: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    name: Type.Optional(Name),
  },
  { additionalProperties: false },
);

/** Seconds that a disk may still take to appear; 0 if absent. */
const WaitSeconds = Type.Optional(Type.Integer({ minimum: 0, maximum: 3600 }));

/** Bytes a second, of all workers together; as fast as it goes if absent. */
const RateMax = Type.Optional(Type.Integer({ minimum: 1 << 16, maximum: 2 ** 40 }));

/** How hard a deploy may press on the host: on its disks by what is written, on its network by what is fetched. */
const DeployLimits = Type.Optional(
  Type.Object(
    { bytesPerSecondMax: RateMax, fetchBytesPerSecondMax: RateMax },
    { additionalProperties: false },
  ),
);
/** How hard a verification may press on the host: on its disk, by what is read. */
const VerifyLimits = Type.Optional(
  Type.Object({ bytesPerSecondMax: RateMax }, { additionalProperties: false }),
);

/** Guards that are to let the disk of this very fingerprint pass, where the policy allows that. */
const Overrides = Type.Optional(Type.Array(OverridableGuard, { maxItems: 8, uniqueItems: true }));

export const VerifyArguments = Type.Object(
  { image: Image, disk: DiskSelector, waitSeconds: WaitSeconds, limits: VerifyLimits },
  { additionalProperties: false },
);

/** Disks of one image.deploy: the first one, and those in `also`. */
export const deployDisksMax = 16;
const also = { minItems: 1, maxItems: deployDisksMax - 1 } as const;
const PlannedDisk = Type.Object(
  { disk: DiskSelector, overrides: Overrides },
  { additionalProperties: false },
);
/** `fingerprint`: as the plan returned it; apply refuses when the host finds another. */
const AppliedDisk = Type.Object(
  { ...PlannedDisk.properties, fingerprint: Fingerprint },
  { additionalProperties: false },
);
const toEachDisk = { image: Image, waitSeconds: WaitSeconds, limits: DeployLimits } as const;
export const DeployPlan = Type.Object(
  {
    ...toEachDisk,
    ...PlannedDisk.properties,
    /** Further disks that get the same image. */
    also: Type.Optional(Type.Array(PlannedDisk, also)),
  },
  { additionalProperties: false },
);
export const DeployApply = Type.Object(
  { ...toEachDisk, ...AppliedDisk.properties, also: Type.Optional(Type.Array(AppliedDisk, also)) },
  { additionalProperties: false },
);

/** What a plan says of one disk. `bytesToFetchMax`: for it alone. */
const DiskPlan = Type.Object({
  disk: Disk,
  fingerprint: Fingerprint,
  bytesToFetchMax: Count,
  bytesToWriteMax: Count,
});
export type DiskPlan = Static<typeof DiskPlan>;

/** Output of image.deploy in mode plan: every guard's finding, and what apply must quote. */
export const DeployPlanOutput = Type.Object({
  /** Absent from hosts that do not sign their plans yet. */
  artefact: Type.Optional(PlanArtefact),
  image: Image,
  ...DiskPlan.properties,
  /** The further disks, in the command's order. */
  also: Type.Optional(Type.Array(DiskPlan, { maxItems: deployDisksMax - 1 })),
  /** Of every disk; where there are several, each says of which it is. */
  guards: Type.Array(GuardFinding),
  /** Whether every guard would let apply pass now. */
  allowed: Type.Boolean(),
});
export type DeployPlanOutput = Static<typeof DeployPlanOutput>;

const Seconds = Type.Number({ minimum: 0 });

/** A group that a disk gave back wrong, twice. */
export const WrongGroup = Type.Object({
  group: Count,
  /** From the disk's beginning, in bytes. */
  offset: Count,
  /** The first logical block of the disk, and how many. */
  lba: Count,
  blocks: Count,
  /** Chaining values of the group: the image's, and of what the disk gave. */
  expected: Digest,
  found: Digest,
});
export type WrongGroup = Static<typeof WrongGroup>;

const DiskName = Type.Object({
  path: Type.String(),
  serial: Type.Union([Type.String(), Type.Null()]),
  backing: Type.Union([Type.String(), Type.Null()]),
});

/** Output of image.deploy onto one disk. */
export const DeployOutput = Type.Object({
  root: Digest,
  sizeBytes: Count,
  disk: DiskName,
  groups: Count,
  bytesFetched: Count,
  bytesWritten: Count,
  /** Already right on the disk: neither fetched nor written. */
  bytesSkipped: Count,
  bytesZeroed: Count,
  /** Runs of this operation before this one, and what they left. */
  resumed: Type.Object({ times: Count, groupsKept: Count, groupsRechecked: Count, groupsRewritten: Count }),
  /** BLAKE3 root computed from what the disk gave back, and whether the page cache was bypassed. */
  readback: Type.Object({
    root: Digest,
    direct: Type.Boolean(),
    /** Groups that were read once more because they were wrong the first time. */
    rereads: Type.Optional(Count),
    /** Groups that were wrong also then: each was written once more, alone, and is right now. The first ones are named. */
    repaired: Type.Optional(Count),
    repairedGroups: Type.Optional(Type.Array(WrongGroup, { maxItems: wrongGroupsMax })),
  }),
  /** What came from each source of the offer, in its order; `gaveUp`: why a worker took another one. */
  sources: Type.Optional(
    Type.Array(
      Type.Object({
        url: Type.String(),
        bytes: Count,
        gaveUp: Type.Optional(Type.String({ maxLength: 64 })),
      }),
      { maxItems: 8 },
    ),
  ),
  seconds: Type.Object({
    prepare: Seconds,
    write: Seconds,
    readback: Seconds,
    seal: Seconds,
    total: Seconds,
  }),
});
export type DeployOutput = Static<typeof DeployOutput>;

/** What came of one disk of several. `untouched`: nothing of this command was written to it. */
const DiskOutcome = Type.Union([Outcome, Type.Literal("untouched")]);
export type DiskOutcome = Static<typeof DiskOutcome>;

/** Output of image.deploy onto several disks: of the first, its own output's members where it succeeded; of the others `also`. */
export const DeploysOutput = Type.Object({
  ...Type.Partial(DeployOutput).properties,
  disk: DiskName,
  outcome: DiskOutcome,
  error: Type.Optional(Report),
  also: Type.Array(
    Type.Object({
      disk: DiskName,
      outcome: DiskOutcome,
      error: Type.Optional(Report),
      output: Type.Optional(DeployOutput),
    }),
    { maxItems: deployDisksMax - 1 },
  ),
});
export type DeploysOutput = Static<typeof DeploysOutput>;

/** Output of image.verify. `matches` false is an outcome `failed` with code disk.readback-mismatch. */
export const VerifyOutput = Type.Object({
  root: Digest,
  expectedRoot: Digest,
  matches: Type.Boolean(),
  direct: Type.Boolean(),
  groups: Count,
  /** The first groups that differ, at most 64. */
  wrongGroups: Type.Array(Count),
  wrongGroupCount: Count,
  /** The same groups, with where they lie and what was read. */
  wrong: Type.Optional(Type.Array(WrongGroup, { maxItems: wrongGroupsMax })),
  /** Groups that were read once more because they were wrong the first time. */
  rereads: Type.Optional(Count),
  seconds: Seconds,
});
export type VerifyOutput = Static<typeof VerifyOutput>;

export type ImageReference = Static<typeof Image>;
export type DeployPlanArguments = Static<typeof DeployPlan>;
export type VerifyArguments = Static<typeof VerifyArguments>;
export type DeployArguments = Static<typeof DeployApply>;
export type PlannedDisk = Static<typeof PlannedDisk>;
export type AppliedDisk = Static<typeof AppliedDisk>;
