// Signatures of commands and images, verified over the document's very bytes against every key that the policy knows.
import { BedplateError, type ErrorReport, reportOf } from "../../protocol/errors.ts";
import type { Namespace } from "../../protocol/link-proof.ts";
import { keysOf } from "../../protocol/signer-sets.ts";
import { type VerifiedSignature, verifySignature } from "../../protocol/sshsig.ts";
import type { PolicyRules, SignatureFacts } from "./rules.ts";

export interface CheckedSignatures extends SignatureFacts {
  readonly verified: readonly (VerifiedSignature & { readonly armored: string })[];
}

/** Signatures looked at: whoever sends more has something else in mind. */
export const signaturesMax = 64;

/** Each by itself: one that does not hold takes nothing from the others. */
export async function checkSignatures(
  armored: readonly string[],
  document: Uint8Array,
  { signers }: PolicyRules,
  namespace: Namespace = "bedplate-command",
): Promise<CheckedSignatures> {
  const keys = keysOf(
    signers,
    signers.map(({ name }) => name),
  );
  const verified: CheckedSignatures["verified"][number][] = [];
  const refused: ErrorReport[] = [];
  for (const signature of armored.slice(0, signaturesMax)) {
    try {
      const found = await verifySignature(signature, {
        namespace,
        message: document,
        keys,
      });
      verified.push({ ...found, armored: signature });
    } catch (error) {
      if (!(error instanceof BedplateError)) throw error;
      refused.push(reportOf(error));
    }
  }
  return { verified, refused };
}

export const noSignatures: CheckedSignatures = { verified: [], refused: [] };
