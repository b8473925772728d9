// Plans: the signed dry run of a command that changes a host, and what an apply quotes of it.
import Type, { type Static } from "typebox";
import { textOf, utf8 } from "./bytes.ts";
import { GuardFinding } from "./disks.ts";
import { BedplateError } from "./errors.ts";
import { CommandId, checker, Digest, HostId, UnixMs } from "./schema.ts";
import { parsePublicKey } from "./ssh-keys.ts";
import { type VerifiedSignature, verifySignature } from "./sshsig.ts";

/** `k` different operators of the sets named in `from`; `operators` are those who may, for people to read. */
export const SignatureRequirement = Type.Object(
  {
    k: Type.Integer({ minimum: 1, maximum: 256 }),
    from: Type.Array(Type.String({ maxLength: 128 }), { maxItems: 64 }),
    operators: Type.Array(Type.String({ maxLength: 128 }), { maxItems: 256 }),
  },
  { additionalProperties: false },
);
export type SignatureRequirement = Static<typeof SignatureRequirement>;

/** The document that the executor makes, keeps until it is used, and signs with the host's attestation key. */
export const Plan = Type.Object(
  {
    bedplate: Type.Literal("plan/1"),
    /** The id of the command that asked for the plan. */
    id: CommandId,
    /** 32 random bytes of the executor's, base64url: no plan is like another, whatever the clocks say. */
    nonce: Type.String({ pattern: "^[A-Za-z0-9_-]{43}$" }),
    host: HostId,
    hostname: Type.String({ maxLength: 255 }),
    /** The chassis's serial number by SMBIOS; null where the machine has none or does not tell. */
    chassisSerial: Type.Union([Type.String({ maxLength: 255 }), Type.Null()]),
    kind: Type.String({ maxLength: 64 }),
    /** What the apply must carry, member by member. */
    arguments: Type.Record(Type.String(), Type.Unknown()),
    /** What the kind's handler found, for people: the disk, bytes to write, the program to run. */
    facts: Type.Record(Type.String(), Type.Unknown()),
    /** By the host's clock. */
    issuedAt: UnixMs,
    expiresAt: UnixMs,
    /** SHA-256 of the policy file that it was made under; null without one. */
    policy: Type.Union([Digest, Type.Null()]),
    /** Null where the policy takes the kind unsigned. */
    requires: Type.Union([SignatureRequirement, Type.Null()]),
    findings: Type.Array(GuardFinding, { maxItems: 256 }),
    /** Whether apply would be let through now, signatures aside. */
    allowed: Type.Boolean(),
  },
  { additionalProperties: false },
);
export type Plan = Static<typeof Plan>;

/** A plan as it travels: the text whose very bytes are signed, and the armored signature (namespace `bedplate-plan`). */
export const PlanArtefact = Type.Object({
  text: Type.String({ maxLength: 256 * 1024 }),
  signature: Type.String({ maxLength: 8192 }),
});
export type PlanArtefact = Static<typeof PlanArtefact>;

/** What an apply quotes, within the bytes that operators sign. */
export const PlanQuote = Type.Object(
  {
    id: CommandId,
    /** SHA-256 of the plan's bytes. */
    digest: Digest,
    hostname: Type.String({ maxLength: 255 }),
    chassisSerial: Type.Union([Type.String({ maxLength: 255 }), Type.Null()]),
  },
  { additionalProperties: false },
);
export type PlanQuote = Static<typeof PlanQuote>;

/** How long a plan may be quoted, and how many are kept at once. */
export const planLimits = { validMs: 86_400_000, keptMax: 256 } as const;

const checkPlan = checker(Plan, "plan.invalid", "plan");

/** The exact bytes that are kept, hashed and signed. */
export function encodePlan(plan: Plan): Uint8Array {
  return utf8(JSON.stringify(plan, undefined, 2));
}

/** @throws `plan.invalid` */
export function decodePlan(bytes: Uint8Array): Plan {
  let value: unknown;
  try {
    value = JSON.parse(textOf(bytes));
  } catch (cause) {
    throw new BedplateError("plan.invalid", "The plan is not a JSON document.", { cause });
  }
  return checkPlan(value);
}

/**
 * Reads a plan whose signature holds by this host's attestation key (a line as in known_hosts).
 * @throws `plan.invalid`, and what `verifySignature` and `parsePublicKey` throw
 */
export async function verifyPlan(
  { text, signature }: PlanArtefact,
  attestationKey: string,
): Promise<{ readonly plan: Plan; readonly signed: VerifiedSignature }> {
  const message = utf8(text);
  const signed = await verifySignature(signature, {
    namespace: "bedplate-plan",
    message,
    keys: [parsePublicKey(attestationKey)],
  });
  return { plan: decodePlan(message), signed };
}
