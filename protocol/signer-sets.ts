// Named sets of operators, and whether enough of them have signed. Pure: the signatures are verified before.
import { assert, BedplateError } from "./errors.ts";
import { type PublicKey, parsePublicKey } from "./ssh-keys.ts";
import type { VerifiedSignature } from "./sshsig.ts";

export interface Signer {
  /** Who holds the key. An operator with several keys counts once. */
  readonly operator: string;
  readonly key: PublicKey;
}

export interface SignerSet {
  readonly name: string;
  readonly signers: readonly Signer[];
}

/** `k` different operators out of the sets named in `from`, taken together. */
export interface Requirement {
  readonly k: number;
  readonly from: readonly string[];
}

export interface SignatureCount {
  readonly satisfied: boolean;
  /** The operators counted, in the order of their signatures. */
  readonly signedBy: readonly string[];
  /** How many more operators must sign. */
  readonly missing: number;
  /** The operators who may and have not, in the order of the sets. */
  readonly couldSign: readonly string[];
  /** Signatures that added nothing, by fingerprint: `repeated` by an operator already counted, or by no `signer` of the sets. */
  readonly uncounted: readonly {
    readonly fingerprint: string;
    readonly reason: "repeated" | "not-a-signer";
  }[];
  /** For people: "needs 2 of ops; has 1: alice". */
  readonly summary: string;
}

export const signerLimits = { setsMax: 64, keysMax: 256 } as const;

/**
 * Sets from what a policy holds: names to lines of public keys, each line's comment the operator's name.
 * @throws `signers.invalid` naming the set and line, with the key's own error as cause where that is at fault
 */
export function parseSignerSets(lists: Readonly<Record<string, readonly string[]>>): SignerSet[] {
  const entries = Object.entries(lists);
  if (entries.length > signerLimits.setsMax) {
    throw invalid(`There are ${entries.length} signer sets; at most ${signerLimits.setsMax} are taken.`);
  }
  const ownerOf = new Map<string, string>();
  return entries.map(([name, lines]) => {
    if (lines.length === 0) throw invalid(`The signer set "${name}" is empty.`);
    if (lines.length > signerLimits.keysMax) {
      throw invalid(
        `The signer set "${name}" has ${lines.length} keys; at most ${signerLimits.keysMax} are taken.`,
      );
    }
    const seen = new Set<string>();
    const signers = lines.map((line, index) => {
      const signer = parseSigner(line, `Key ${index + 1} of the signer set "${name}"`);
      const { encoded } = signer.key;
      if (seen.has(encoded))
        throw invalid(`The signer set "${name}" lists a key of "${signer.operator}" twice.`);
      seen.add(encoded);
      // One key with two names could sign as two operators.
      const owner = ownerOf.get(encoded) ?? signer.operator;
      if (owner !== signer.operator) {
        throw invalid(
          `One key is listed as that of "${owner}" and of "${signer.operator}"; it has one owner.`,
        );
      }
      ownerOf.set(encoded, owner);
      return signer;
    });
    return { name, signers };
  });
}

/** @throws `signers.invalid` when no signatures could ever satisfy `requirement`, or none were needed */
export function checkRequirement({ k, from }: Requirement, sets: readonly SignerSet[]): void {
  if (from.length === 0) throw invalid("Signatures are required from no signer set.");
  const unknown = from.find((name) => !sets.some((set) => set.name === name));
  if (unknown !== undefined) throw invalid(`There is no signer set "${unknown}".`);
  const operators = operatorsOf(signersOf(sets, from)).length;
  if (!Number.isInteger(k) || k < 1 || k > operators) {
    const all = operators === 1 ? "1 operator" : `${operators} operators`;
    throw invalid(
      `${k} signatures of ${from.join(" or ")} are required; it must be 1 to ${operators}, since ${all} may sign.`,
    );
  }
}

/** The keys in the sets named in `from`, each once: what signatures are verified against. */
export function keysOf(sets: readonly SignerSet[], from: readonly string[]): PublicKey[] {
  return [...new Map(signersOf(sets, from).map(({ key }) => [key.encoded, key])).values()];
}

/**
 * Counts operators, not signatures. Only what `verifySignature` returned may be passed.
 * @throws as `checkRequirement`
 */
export function countSignatures(
  signatures: readonly Pick<VerifiedSignature, "key" | "fingerprint">[],
  sets: readonly SignerSet[],
  requirement: Requirement,
): SignatureCount {
  checkRequirement(requirement, sets);
  const { k, from } = requirement;
  const signers = signersOf(sets, from);
  const signedBy: string[] = [];
  const uncounted: SignatureCount["uncounted"][number][] = [];
  for (const { key, fingerprint } of signatures) {
    const signer = signers.find((candidate) => candidate.key.encoded === key.encoded);
    if (signer === undefined) uncounted.push({ fingerprint, reason: "not-a-signer" });
    else if (signedBy.includes(signer.operator)) uncounted.push({ fingerprint, reason: "repeated" });
    else signedBy.push(signer.operator);
  }
  const missing = Math.max(0, k - signedBy.length);
  assert(signedBy.length <= operatorsOf(signers).length, "nobody but the operators is counted");
  return {
    satisfied: missing === 0,
    signedBy,
    missing,
    couldSign: operatorsOf(signers).filter((operator) => !signedBy.includes(operator)),
    uncounted,
    summary: `needs ${k} of ${from.join(" or ")}; has ${signedBy.length}${signedBy.length === 0 ? "" : `: ${signedBy.join(", ")}`}`,
  };
}

function parseSigner(line: string, what: string): Signer {
  let key: PublicKey;
  try {
    key = parsePublicKey(line);
  } catch (cause) {
    if (!(cause instanceof BedplateError)) throw cause;
    throw invalid(`${what} cannot be used: ${cause.message}`, cause);
  }
  if (key.comment === "" || key.comment.length > 128) {
    throw invalid(`${what} must end with its operator's name, of at most 128 characters.`);
  }
  return { operator: key.comment, key };
}

function signersOf(sets: readonly SignerSet[], from: readonly string[]): Signer[] {
  return sets.filter(({ name }) => from.includes(name)).flatMap(({ signers }) => signers);
}

function operatorsOf(signers: readonly Signer[]): string[] {
  return [...new Set(signers.map(({ operator }) => operator))];
}

function invalid(sentence: string, cause?: BedplateError): BedplateError {
  return new BedplateError("signers.invalid", sentence, cause === undefined ? {} : { cause });
}
