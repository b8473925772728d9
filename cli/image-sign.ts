// Signing an image: its manifest is fetched, proved to be that of the root, shown, signed with an SSH key, and the signature sent.
import { writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { readManifest } from "../controller/images/verify.ts";
import type { ImageView } from "../protocol/api.ts";
import type { ImageSignature } from "../protocol/api-images.ts";
import { hex } from "../protocol/bytes.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { Manifest } from "../protocol/manifest.ts";
import type { ApiClient } from "./api-client.ts";
import { facts, formatBytes } from "./output.ts";
import { readSignatureFile } from "./sign.ts";
import type { Terminal } from "./terminal.ts";
import { signCommand, verifyOwn } from "./trust/ssh-keygen.ts";

const namespace = "bedplate-image";

export type SignImageAction =
  | { readonly do: "sign"; readonly key: string }
  /** Writes the manifest, to be signed on another machine. */
  | { readonly do: "output"; readonly file: string }
  /** Adds a signature that was made there. */
  | { readonly do: "add"; readonly file: string };

export interface SignImageOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  /** Name, root or the root's beginning. */
  readonly reference: string;
  readonly action: SignImageAction;
}

export async function signImage({
  client,
  terminal,
  signal,
  reference,
  action,
}: SignImageOptions): Promise<void> {
  const { image, bytes, manifest } = await fetchManifest(client, reference);
  const digest = await sha256(bytes);
  terminal.print(
    facts([
      ["image", manifest.name],
      ["root", image.root],
      ["size", `${formatBytes(manifest.sizeBytes)} in ${manifest.frameBytes.length} groups`],
      ["imported from", manifest.importedFrom],
      ["manifest", `SHA-256 ${digest}`],
    ]),
  );
  if (action.do === "output") {
    await exportManifest(bytes, action.file);
    terminal.document({ image, manifestSha256: digest, file: action.file });
    terminal.print(exportedText(action.file, digest, image.root));
    return;
  }
  const signature =
    action.do === "add"
      ? await readSignatureFile(action.file)
      : (await signCommand(bytes, { key: action.key, namespace, terminal, signal })).signature;
  const { fingerprint } = await verifyOwn(signature, bytes, namespace);
  const signatures = await client.signImage(image.root, signature);
  terminal.document({ image, manifestSha256: digest, signedBy: fingerprint, signatures });
  terminal.print(`Signed by ${fingerprint}; ${countText(signatures)}.`);
}

export interface FetchedManifest {
  readonly image: ImageView;
  readonly bytes: Uint8Array;
  readonly manifest: Manifest;
}

/**
 * The manifest of what was named. When that was a root, the controller cannot give that of another image.
 * @throws `image.bad-manifest`
 */
export async function fetchManifest(client: ApiClient, reference: string): Promise<FetchedManifest> {
  const image = await client.image(reference);
  const bytes = await client.manifest(image.root);
  const manifest = readManifest(bytes, image.root);
  if (manifest.sizeBytes === image.sizeBytes && manifest.name === image.name)
    return { image, bytes, manifest };
  throw new BedplateError(
    "image.bad-manifest",
    `The manifest is of ${manifest.name} with ${manifest.sizeBytes} bytes; the controller told of ${image.name} with ${image.sizeBytes}.`,
  );
}

export async function sha256(bytes: Uint8Array): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", Uint8Array.from(bytes))));
}

async function exportManifest(bytes: Uint8Array, file: string): Promise<void> {
  try {
    await writeFile(file, bytes, { flag: "wx", mode: 0o600 });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new BedplateError("file.unreadable", `${file} cannot be written: ${code ?? String(cause)}.`, {
      ...(code === "EEXIST" ? { hint: "It is there already, and is not written over." } : {}),
      cause,
    });
  }
}

function exportedText(file: string, digest: string, root: string): string {
  const name = basename(file);
  return `
The manifest is in ${file}. Where your key is, compare and sign:

  sha256sum ${name}      # ${digest}
  ssh-keygen -Y sign -n ${namespace} -f KEY ${name}

then bring ${name}.sig back here:

  bedplate image sign ${root} --signature ${file}.sig`;
}

function countText(signatures: readonly ImageSignature[]): string {
  return signatures.length === 1
    ? "it is the image's only signature"
    : `the image has ${signatures.length} signatures`;
}
