// The host's identity: its link key, made at the first start, and the id of this state directory.
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomUUID,
  sign,
} from "node:crypto";
import { BedplateError } from "../../protocol/errors.ts";
import { hostIdOf } from "../../protocol/link-proof.ts";
import type { StateDirectory } from "../host/state-directory.ts";

export interface HostKeys {
  /** SHA-256 of the public key, lower-case hexadecimal. */
  readonly hostId: string;
  /** Raw 32 bytes. */
  readonly linkKey: Uint8Array;
  /** Made with the state directory: a copied directory has the same, a restarted agent too. */
  readonly instance: string;
  sign(data: Uint8Array): Uint8Array;
}

/** Reads the host's keys, or makes them (mode 0600). @throws `state.unsafe` */
export async function openKeys(state: StateDirectory): Promise<HostKeys> {
  const privateKey = readKey(state) ?? makeKey(state);
  const jwk = createPublicKey(privateKey).export({ format: "jwk" });
  const linkKey = new Uint8Array(Buffer.from(jwk.x!, "base64url"));
  return {
    hostId: await hostIdOf(linkKey),
    linkKey,
    instance: readInstance(state),
    sign: (data) => new Uint8Array(sign(null, data, privateKey)),
  };
}

const keyFile = "link-key.pem";
const instanceFile = "instance";

function readKey(state: StateDirectory): KeyObject | undefined {
  const pem = state.read(keyFile);
  if (pem === undefined) return undefined;
  try {
    return createPrivateKey(Buffer.from(pem));
  } catch (cause) {
    throw new BedplateError("state.unsafe", `The link key ${state.file(keyFile)} cannot be read as a key.`, {
      hint: "Restore it from a backup. Without it this host must join anew, under a new identity.",
      cause,
    });
  }
}

function makeKey(state: StateDirectory): KeyObject {
  const { privateKey } = generateKeyPairSync("ed25519");
  state.write(keyFile, Buffer.from(privateKey.export({ type: "pkcs8", format: "pem" })));
  return privateKey;
}

function readInstance(state: StateDirectory): string {
  const known = state.read(instanceFile);
  if (known !== undefined) return Buffer.from(known).toString("utf8").trim();
  const instance = randomUUID();
  state.write(instanceFile, Buffer.from(instance));
  return instance;
}
