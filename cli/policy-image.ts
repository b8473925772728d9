// The image of a command that a policy is asked about: its manifest, held against the root that the command names, and its
// signatures; from an exported directory, or from the controller that has the command.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readManifest } from "../controller/images/verify.ts";
import { ImageSignatures } from "../protocol/api-images.ts";
import { decodeCommand } from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import { checker } from "../protocol/schema.ts";
import type { ApiClient } from "./api-client.ts";
import { unreadable } from "./unreadable.ts";

export interface SignedManifest {
  readonly manifest: Uint8Array;
  /** Armored. */
  readonly signatures: readonly string[];
}

export interface ImagePlaces {
  readonly directory: string | undefined;
  readonly controller: { readonly client: ApiClient } | undefined;
}

/**
 * Undefined where the command deploys no image, and where nobody was named who has it.
 * @throws `image.bad-manifest` for another image than the command's; `file.unreadable`, and what the API throws
 */
export async function imageToExplain(
  document: Uint8Array,
  { directory, controller }: ImagePlaces,
): Promise<SignedManifest | undefined> {
  const command = decodeCommand(document);
  if (command.kind !== "image.deploy") {
    if (directory === undefined) return undefined;
    throw new BedplateError("usage", `--image is for a deploy; this command is ${command.kind}.`);
  }
  const { root } = command.arguments.image;
  const found =
    directory === undefined
      ? controller && (await fromController(controller.client, root))
      : await fromDirectory(directory);
  if (found !== undefined) readManifest(found.manifest, root);
  return found;
}

async function fromDirectory(directory: string): Promise<SignedManifest> {
  const check = checker(ImageSignatures, "file.unreadable", "file of the image's signatures");
  const manifest = await fileOf(join(directory, "manifest"));
  const path = join(directory, "signatures");
  try {
    const { signatures } = check(JSON.parse((await fileOf(path)).toString("utf8")));
    return { manifest, signatures: signatures.map(({ signature }) => signature) };
  } catch (cause) {
    if (cause instanceof SyntaxError)
      throw new BedplateError("file.unreadable", `${path} is no list of signatures.`, { cause });
    throw cause;
  }
}

/** One that the controller has no more is not known. */
async function fromController(client: ApiClient, root: string): Promise<SignedManifest | undefined> {
  try {
    const [manifest, signatures] = [await client.manifest(root), await client.imageSignatures(root)];
    return { manifest, signatures: signatures.map(({ signature }) => signature) };
  } catch (error) {
    if (error instanceof BedplateError && error.code === "image.unknown") return undefined;
    throw error;
  }
}

async function fileOf(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw unreadable(path, cause, "Give a directory that `bedplate image export` wrote.");
  }
}
