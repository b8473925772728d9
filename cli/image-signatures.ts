// The signatures that the controller has of an image: whose they are, whether they hold, and taking one away.
import type { ImageView } from "../protocol/api.ts";
import type { ImageSignature } from "../protocol/api-images.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { SignerSet } from "../protocol/signer-sets.ts";
import { decodePublicKey } from "../protocol/ssh-keys.ts";
import { verifySignature } from "../protocol/sshsig.ts";
import { parseSignature } from "../protocol/sshsig-format.ts";
import type { ApiClient } from "./api-client.ts";
import { fetchManifest } from "./image-sign.ts";
import { facts, formatTime, table } from "./output.ts";

/** Of one signature that the controller has. */
export interface SignatureVerdict {
  readonly fingerprint: string;
  /** Out of the signers given; null when it is none of theirs, or none were given. */
  readonly operator: string | null;
  readonly addedAt: number;
  /** Why it does not hold; null when it does. */
  readonly fault: string | null;
}

export interface ListedSignatures {
  readonly image: ImageView;
  readonly signatures: readonly SignatureVerdict[];
}

/** Each is verified here, over the manifest of the image's root. @throws `image.unknown`, `image.bad-manifest` */
export async function listSignatures(
  client: ApiClient,
  reference: string,
  signers: SignerSet | undefined,
): Promise<ListedSignatures> {
  const { image, bytes } = await fetchManifest(client, reference);
  return { image, signatures: await verdictsOn(client, image.root, bytes, signers) };
}

export function signaturesText({ image, signatures }: ListedSignatures, withOperators: boolean): string {
  const about = facts([
    ["image", image.name],
    ["root", image.root],
  ]);
  if (signatures.length === 0) return `${about}\n\nNobody has signed it.`;
  const operators = [{ title: "OPERATOR", of: ({ operator }: SignatureVerdict) => operator }];
  return `${about}\n\n${table(signatures, [
    { title: "FINGERPRINT", of: ({ fingerprint }) => fingerprint },
    ...(withOperators ? operators : []),
    { title: "ADDED", of: ({ addedAt }) => formatTime(addedAt) },
    { title: "HOLDS", of: ({ fault }) => (fault === null ? "yes" : `no: ${fault}`) },
  ])}`;
}

/** What the controller has of the image of this root, held against the manifest's bytes. */
export async function verdictsOn(
  client: ApiClient,
  root: string,
  manifest: Uint8Array,
  signers: SignerSet | undefined,
): Promise<SignatureVerdict[]> {
  const signatures = await client.imageSignatures(root);
  return await Promise.all(signatures.map((one) => verdictOn(one, manifest, signers)));
}

async function verdictOn(
  { signature, fingerprint, addedAt }: ImageSignature,
  message: Uint8Array,
  signers: SignerSet | undefined,
): Promise<SignatureVerdict> {
  try {
    const claimed = decodePublicKey(parseSignature(signature).publicKey);
    const verified = await verifySignature(signature, {
      namespace: "bedplate-image",
      message,
      keys: [claimed],
    });
    const signer = signers?.signers.find(({ key }) => key.encoded === verified.key.encoded);
    // The fingerprint is that of the key, whatever the controller says.
    return { fingerprint: verified.fingerprint, operator: signer?.operator ?? null, addedAt, fault: null };
  } catch (error) {
    if (!(error instanceof BedplateError)) throw error;
    return { fingerprint, operator: null, addedAt, fault: error.message };
  }
}
