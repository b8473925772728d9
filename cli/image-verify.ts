// Verifying an image as the controller serves it: its root, every group, and whose signatures hold over its manifest.
import { verifyFrames } from "../controller/images/verify.ts";
import type { ImageSignature } from "../protocol/api-images.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { SignerSet } from "../protocol/signer-sets.ts";
import { decodePublicKey } from "../protocol/ssh-keys.ts";
import { verifySignature } from "../protocol/sshsig.ts";
import { parseSignature } from "../protocol/sshsig-format.ts";
import type { ApiClient } from "./api-client.ts";
import { createMeter } from "./image-add.ts";
import { fetchManifest } from "./image-sign.ts";
import { facts, formatBytes, formatTime } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export interface VerifyImageOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
  /** Whose signature is asked for: one of them at least must have signed. */
  readonly signers?: SignerSet;
}

/** Of one signature that the controller has. */
export interface SignatureVerdict {
  readonly fingerprint: string;
  /** Out of the signers given; null when it is none of theirs, or none were given. */
  readonly operator: string | null;
  readonly addedAt: number;
  /** Why it does not hold; null when it does. */
  readonly fault: string | null;
}

/** @throws `image.corrupt`, `image.truncated`, `image.bad-manifest`, `image.unsigned` */
export async function verifyImage({
  client,
  terminal,
  signal,
  reference,
  signers,
}: VerifyImageOptions): Promise<void> {
  const { image, bytes, manifest } = await fetchManifest(client, reference);
  const signatures = await Promise.all(
    (await client.imageSignatures(image.root)).map((one) => verdictOn(one, bytes, signers)),
  );
  const meter = createMeter(terminal, "verify");
  const total = manifest.frameBytes.reduce((sum, length) => sum + length, 0);
  try {
    await verifyFrames({
      manifest,
      signal,
      frames: await client.frames(image.root),
      onProgress: (done) => meter(done, total),
    });
  } finally {
    terminal.status("");
  }
  const operators = [
    ...new Set(signatures.flatMap(({ operator, fault }) => (fault === null ? (operator ?? []) : []))),
  ];
  if (signers !== undefined && operators.length === 0) {
    throw new BedplateError(
      "image.unsigned",
      `None of the signers in ${signers.name} has signed the image.`,
      {
        hint: `Its groups are good. To sign it: bedplate image sign ${image.root} --key FILE`,
        details: { root: image.root, signatures },
      },
    );
  }
  terminal.document({ image, groups: manifest.frameBytes.length, signedBy: operators, signatures });
  terminal.print(
    facts([
      ["image", `${image.name}  ${image.root}`],
      ["groups", `all ${manifest.frameBytes.length} are the image's (${formatBytes(manifest.sizeBytes)})`],
      ...signatures.map((verdict): [string, string] => ["signed by", verdictText(verdict)]),
      ...(signatures.length === 0 ? ([["signed by", "nobody"]] as [string, string][]) : []),
    ]),
  );
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

function verdictText({ fingerprint, operator, addedAt, fault }: SignatureVerdict): string {
  if (fault !== null) return `nobody, as ${fingerprint}: ${fault}`;
  return `${operator === null ? "" : `${operator}, `}${fingerprint}, ${formatTime(addedAt)}`;
}
