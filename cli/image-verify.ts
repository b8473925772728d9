// Verifying an image as the controller serves it: its root, every group, and whose signatures hold over its manifest.
import { verifyFrames } from "../controller/images/verify.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { SignerSet } from "../protocol/signer-sets.ts";
import type { ApiClient } from "./api-client.ts";
import { createMeter } from "./image-add.ts";
import { fetchManifest } from "./image-sign.ts";
import { type SignatureVerdict, verdictsOn } from "./image-signatures.ts";
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

/** @throws `image.corrupt`, `image.truncated`, `image.bad-manifest`, `image.unsigned` */
export async function verifyImage({
  client,
  terminal,
  signal,
  reference,
  signers,
}: VerifyImageOptions): Promise<void> {
  const { image, bytes, manifest } = await fetchManifest(client, reference);
  const signatures = await verdictsOn(client, image.root, bytes, signers);
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

function verdictText({ fingerprint, operator, addedAt, fault }: SignatureVerdict): string {
  if (fault !== null) return `nobody, as ${fingerprint}: ${fault}`;
  return `${operator === null ? "" : `${operator}, `}${fingerprint}, ${formatTime(addedAt)}`;
}
