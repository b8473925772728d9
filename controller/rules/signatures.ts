// The signatures that a command gathers before it is offered, pure: one a key, and none too late. What they are worth the
// host alone decides.
import type { OperationState } from "../../protocol/commands.ts";

export interface KeptSignature {
  /** Armored SSHSIG. */
  readonly text: string;
  /** Of the key that it claims, `SHA256:…`. */
  readonly fingerprint: string;
  readonly addedAt: number;
}

/** As many as an offer carries. */
export const signaturesMax = 16;

/** One for each key, the later in the place of the earlier, in the order in which the keys came first. */
export function oneOfEachKey(signatures: readonly KeptSignature[]): readonly KeptSignature[] {
  const byKey = new Map<string, KeptSignature>();
  for (const signature of signatures) byKey.set(signature.fingerprint, signature);
  return [...byKey.values()];
}

export type AddedSignature =
  | { readonly status: "added"; readonly signatures: readonly KeptSignature[] }
  /** `known`: the same is there; `too-late`: it has gone to its host, or has ended; `full`: an offer carries no more. */
  | { readonly status: "known" | "too-late" | "full" };

/** Adds a signature to a command that waits. Of a key that has signed already, the new one counts. */
export function addSignature(
  command: { readonly state: OperationState; readonly signatures: readonly KeptSignature[] },
  signature: KeptSignature,
): AddedSignature {
  const known = command.signatures.find(({ fingerprint }) => fingerprint === signature.fingerprint);
  if (known?.text === signature.text) return { status: "known" };
  if (command.state !== "waiting") return { status: "too-late" };
  if (known === undefined && command.signatures.length >= signaturesMax) return { status: "full" };
  return { status: "added", signatures: oneOfEachKey([...command.signatures, signature]) };
}
