// Whether an image's manifest is signed by those whom the host's policy asks for: over the very bytes that were fetched.
import { BedplateError } from "../../protocol/errors.ts";
import { countSignatures, type Requirement } from "../../protocol/signer-sets.ts";
import type { PolicyRules } from "./rules.ts";
import { checkSignatures } from "./signatures.ts";

export interface ImageSigners {
  readonly path: string;
  readonly rules: PolicyRules;
  readonly requirement: Requirement;
}

/** @throws `image.unsigned` */
export async function requireSigned(
  manifest: Uint8Array,
  armored: readonly string[],
  { path, rules, requirement }: ImageSigners,
): Promise<void> {
  const { verified, refused } = await checkSignatures(armored, manifest, rules, "bedplate-image");
  const { satisfied, summary, couldSign } = countSignatures(verified, rules.signers, requirement);
  if (satisfied) return;
  throw new BedplateError(
    "image.unsigned",
    `The image lacks signatures: imageSignatures of ${path} ${summary}.`,
    {
      hint: "Sign it: bedplate image sign IMAGE --key ~/.ssh/id_ed25519",
      details: { ...requirement, couldSign, refused },
    },
  );
}
