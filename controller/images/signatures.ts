// An image's signatures: a file beside its manifest, replaced in one step; each holds over the manifest's bytes by its own key.
import { open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { type ImageSignature, ImageSignatures, imageSignaturesMax } from "../../protocol/api-images.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { checker } from "../../protocol/schema.ts";
import { decodePublicKey } from "../../protocol/ssh-keys.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import { parseSignature } from "../../protocol/sshsig-format.ts";

const name = "signatures";
const check = checker(ImageSignatures, "image.corrupt", "file of the image's signatures");

/** None where there is no such file. @throws `image.corrupt` */
export async function readSignatures(directory: string): Promise<readonly ImageSignature[]> {
  const path = join(directory, name);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  try {
    return check(JSON.parse(text)).signatures;
  } catch (cause) {
    throw new BedplateError("image.corrupt", `${path} is no list of signatures.`, {
      hint: "Take the file away and sign the image anew.",
      cause,
    });
  }
}

/**
 * Adds a signature; of a key that has signed already the new one counts. Whether that key's word is worth anything, those
 * who verify the image decide.
 * @throws what `parseSignature` and `verifySignature` throw, `image.too-many`, `image.corrupt`
 */
export async function addSignature(
  directory: string,
  text: string,
  addedAt: number,
): Promise<{ readonly signatures: readonly ImageSignature[]; readonly fingerprint: string }> {
  const { fingerprint } = await verifySignature(text, {
    namespace: "bedplate-image",
    message: await readFile(join(directory, "manifest")),
    keys: [decodePublicKey(parseSignature(text).publicKey)],
  });
  const before = await readSignatures(directory);
  const added = { signature: text, fingerprint, addedAt };
  const signatures = before.some((one) => one.fingerprint === fingerprint)
    ? before.map((one) => (one.fingerprint === fingerprint ? added : one))
    : [...before, added];
  if (signatures.length > imageSignaturesMax)
    throw new BedplateError("image.too-many", `An image takes at most ${imageSignaturesMax} signatures.`);
  await replaceFile(directory, name, JSON.stringify({ signatures }));
  return { signatures, fingerprint };
}

/** Takes away the signature of one key. @throws `api.not-found`, `image.corrupt` */
export async function removeSignature(
  directory: string,
  fingerprint: string,
): Promise<readonly ImageSignature[]> {
  const before = await readSignatures(directory);
  const signatures = before.filter((one) => one.fingerprint !== fingerprint);
  if (signatures.length === before.length)
    throw new BedplateError("api.not-found", `The image has no signature by ${fingerprint}.`, {
      hint: "`bedplate image signatures IMAGE` lists those that it has.",
    });
  await replaceFile(directory, name, JSON.stringify({ signatures }));
  return signatures;
}

/** In one step that survives a crash. */
async function replaceFile(directory: string, file: string, content: string | Uint8Array): Promise<void> {
  const temporary = join(directory, `.${file}.new`);
  {
    await using handle = await open(temporary, "w", 0o600);
    await handle.writeFile(content);
    await handle.sync();
  }
  await rename(temporary, join(directory, file));
  await using parent = await open(directory, "r");
  await parent.sync();
}
