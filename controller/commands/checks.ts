// What is refused at the door: commands that nobody could carry out, and signatures that say nothing.
import type { Command } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodePublicKey, fingerprintOfBlob } from "../../protocol/ssh-keys.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import { parseSignature } from "../../protocol/sshsig-format.ts";
import type { ImageStore } from "../images/store.ts";
import { judgeMinting, mintedAt } from "../rules/retention.ts";
import type { KeptSignature } from "../rules/signatures.ts";
import type { Store } from "../store/store.ts";

/** @throws `command.bad-arguments`, `host.unknown`, `image.unknown` */
export async function checkNewCommand(
  command: Command,
  parts: { readonly store: Pick<Store, "hosts">; readonly images: Pick<ImageStore, "find"> },
  at: number,
): Promise<void> {
  const minting = judgeMinting(command.id, at);
  if (minting !== "new") {
    const moment = new Date(mintedAt(command.id)).toISOString();
    throw new BedplateError(
      "command.bad-arguments",
      minting === "old"
        ? `The id was minted at ${moment}: it could be that of a command which ran and was forgotten.`
        : `The id was minted at ${moment}, which is ahead of this controller's clock.`,
      { hint: "Make a new id (UUID version 7), with a clock that is right.", details: { at } },
    );
  }
  if ((await parts.store.hosts.get(command.host)) === undefined) {
    throw new BedplateError("host.unknown", `There is no host ${command.host}.`, {
      hint: "A command names its host by its whole id: `bedplate host show HOST` prints it.",
    });
  }
  if (!("image" in command.arguments)) return;
  const { root, sizeBytes } = command.arguments.image;
  const image = parts.images.find(root);
  if (image.sizeBytes !== sizeBytes) {
    throw new BedplateError(
      "command.bad-arguments",
      `The image ${root} has ${image.sizeBytes} bytes, the command says ${sizeBytes}.`,
    );
  }
}

/**
 * A signature by the key that it claims, of which nothing is proved yet.
 * @throws `signature.malformed`
 */
export async function readSignature(text: string, addedAt: number): Promise<KeptSignature> {
  return { text, fingerprint: await fingerprintOfBlob(parseSignature(text).publicKey), addedAt };
}

/**
 * A signature that holds over the document by the key that it claims; whether that key may sign, the host says. Added by
 * others than the command's maker, so nobody can put a wrong one in another's name.
 * @throws what verifySignature and decodePublicKey throw
 */
export async function readHoldingSignature(
  text: string,
  document: Uint8Array,
  addedAt: number,
): Promise<KeptSignature> {
  const key = decodePublicKey(parseSignature(text).publicKey);
  const { fingerprint } = await verifySignature(text, {
    namespace: "bedplate-command",
    message: document,
    keys: [key],
  });
  return { text, fingerprint, addedAt };
}
