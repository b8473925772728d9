// What a vendor's file of sums says that an input must hash to, once its signature holds.
import { resolve } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";
import { type GoodSignature, verifyWithGpgv } from "./gpgv.ts";
import { baseName, isAddress, readSmall } from "./small-input.ts";
import { type ExpectedSum, parseSums, sumFor } from "./sums.ts";
import type { Programs } from "./tool.ts";

export interface VendorSums {
  /** A path, or an https address. */
  readonly sums: string;
  /** Of a detached signature. Without it and with a keyring, the sums must be clear-signed. */
  readonly signature?: string | undefined;
  /** A path of public keys. */
  readonly keyring?: string | undefined;
}

const [sumsBytesMax, signatureBytesMax, keyringBytesMax] = [16 << 20, 1 << 20, 16 << 20];

/**
 * @param input the path or address of what is imported: its name is looked for
 * @throws `usage`, `image.bad-sums`, `image.untrusted-sums`, `image.tool-missing`, `source.refused`, what readSmall throws
 */
export async function expectedOf(
  input: string,
  { sums, signature, keyring }: VendorSums,
  { programs, signal }: { readonly programs: Programs; readonly signal: AbortSignal },
): Promise<{ readonly expected: ExpectedSum; readonly signedBy: readonly GoodSignature[] }> {
  if (signature !== undefined && keyring === undefined) {
    throw new BedplateError("usage", "A signature is verified with a keyring: give it by --keyring.", {
      hint: "Export the vendor's keys into a file: gpg --export KEYID > vendor.gpg",
    });
  }
  if (/^http:/i.test(sums) && keyring === undefined) {
    throw new BedplateError("source.refused", `${sums} is plain http: anybody in between could change it.`, {
      hint: "Take the sums by https, or give their signature and the vendor's keyring.",
    });
  }
  const read = (source: string, bytesMax: number, what: string) =>
    readSmall(source, { bytesMax, what, signal });
  let content: Uint8Array = await read(sums, sumsBytesMax, "a file of sums");
  let signedBy: readonly GoodSignature[] = [];
  if (keyring !== undefined) {
    ({ content, signedBy } = await verifyWithGpgv({
      content,
      signature:
        signature === undefined ? null : await read(signature, signatureBytesMax, "a detached signature"),
      // Of this machine: who may name the keys decides what is trusted.
      keyring: await read(
        isAddress(keyring) ? refuseAddress(keyring) : resolve(keyring),
        keyringBytesMax,
        "a keyring",
      ),
      where: sums,
      ...{ programs, signal },
    }));
  }
  const text = Buffer.from(content).toString("utf8");
  if (keyring === undefined && text.startsWith("-----BEGIN PGP SIGNED MESSAGE-----")) {
    throw new BedplateError("usage", `${sums} is signed: give the vendor's keyring by --keyring.`);
  }
  return { expected: sumFor(parseSums(text, sums), baseName(input), sums), signedBy };
}

function refuseAddress(keyring: string): never {
  throw new BedplateError("usage", `${keyring} is an address; a keyring is a file of this machine.`, {
    hint: "Get the vendor's keys once, compare their fingerprints, and keep them.",
  });
}
