// The controller's own certificate authority and server certificate, made at first start, kept as PEM files.
import { createHash, createPrivateKey, type webcrypto, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import { join } from "node:path";
import type * as x509 from "@peculiar/x509";
import { hex } from "../protocol/bytes.ts";
import { BedplateError } from "../protocol/errors.ts";
import { tlsServerName } from "../protocol/messages.ts";
import { readPrivateFile, readTextFile, writePrivateFile } from "./files.ts";
import { provideReflectMetadata } from "./reflect.ts";
import type { Random } from "./system.ts";

export interface Authority {
  /** The CA certificate, PEM: what agents and the CLI pin. */
  readonly caPem: string;
  /** SHA-256 of its DER, lower-case hexadecimal. */
  readonly caSha256: string;
  /** The server's certificate and key, PEM. */
  readonly certificatePem: string;
  readonly keyPem: string;
}

// A fresh server's clock may say 1999 or 2040: identity must not hang on it. Rotation is by overlap, not by expiry.
const validity = { notBefore: new Date("1970-01-01T00:00:00Z"), notAfter: new Date("9999-12-31T23:59:59Z") };
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const caName = "CN=Bedplate controller authority";

/**
 * Reads the authority in `directory`, or makes what is missing. The server certificate is issued again when `names` changed;
 * the authority never is: a CA without its key, or the other way round, is an error.
 * @throws `state.unsafe`
 */
export async function openAuthority(
  directory: string,
  names: readonly string[],
  random: Random,
): Promise<Authority> {
  const paths = {
    ca: join(directory, "ca.pem"),
    caKey: join(directory, "ca.key"),
    leaf: join(directory, "server.pem"),
    leafKey: join(directory, "server.key"),
  };
  let ca: Partial<Issued> = {
    certificate: await readTextFile(paths.ca),
    key: await readPrivateFile(paths.caKey),
  };
  const servedBefore = (await readTextFile(paths.leaf)) !== undefined;
  if (ca.certificate === undefined && !servedBefore) {
    ca = await makeCa(random);
    // The key first: a crash in between leaves a key without certificate, which nobody can have pinned.
    await writePrivateFile(paths.caKey, ca.key!);
    await writePrivateFile(paths.ca, ca.certificate!);
  }
  const { certificate: caPem, key: caKeyPem } = ca;
  if (caPem === undefined || caKeyPem === undefined) {
    throw new BedplateError("state.unsafe", `${directory} has one of ca.pem and ca.key without the other.`, {
      hint: "Restore the missing file from a backup: hosts trust this authority and no other.",
    });
  }
  const allNames = [...new Set([tlsServerName, "localhost", "127.0.0.1", ...names])];
  let leaf: Partial<Issued> = {
    certificate: await readTextFile(paths.leaf),
    key: await readPrivateFile(paths.leafKey),
  };
  if (
    leaf.certificate === undefined ||
    leaf.key === undefined ||
    !fits(leaf.certificate, leaf.key, caPem, allNames)
  ) {
    leaf = await makeLeaf(caPem, caKeyPem, allNames, random);
    await writePrivateFile(paths.leafKey, leaf.key!);
    await writePrivateFile(paths.leaf, leaf.certificate!);
  }
  return {
    caPem,
    caSha256: sha256OfCertificate(caPem),
    certificatePem: leaf.certificate!,
    keyPem: leaf.key!,
  };
}

/** SHA-256 of a certificate's DER, lower-case hexadecimal. */
export function sha256OfCertificate(pem: string): string {
  return hex(createHash("sha256").update(new X509Certificate(pem).raw).digest());
}

interface Issued {
  readonly certificate: string | undefined;
  readonly key: string | undefined;
}

async function makeCa(random: Random): Promise<Issued> {
  const lib = await library();
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await lib.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: serialNumber(random),
    name: caName,
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new lib.BasicConstraintsExtension(true, 0, true),
      new lib.KeyUsagesExtension(lib.KeyUsageFlags.keyCertSign | lib.KeyUsageFlags.cRLSign, true),
      await lib.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pemOf(certificate), key: await keyPem(keys.privateKey) };
}

async function makeLeaf(
  caPem: string,
  caKeyPem: string,
  names: readonly string[],
  random: Random,
): Promise<Issued> {
  const lib = await library();
  const ca = new lib.X509Certificate(caPem);
  const caKeyDer = createPrivateKey(caKeyPem).export({ type: "pkcs8", format: "der" });
  const signingKey = await crypto.subtle.importKey("pkcs8", Uint8Array.from(caKeyDer), algorithm, false, [
    "sign",
  ]);
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await lib.X509CertificateGenerator.create({
    ...validity,
    serialNumber: serialNumber(random),
    subject: `CN=${tlsServerName}`,
    issuer: ca.subject,
    signingAlgorithm: algorithm,
    signingKey,
    publicKey: keys.publicKey,
    extensions: [
      new lib.BasicConstraintsExtension(false, undefined, true),
      new lib.KeyUsagesExtension(lib.KeyUsageFlags.digitalSignature, true),
      new lib.ExtendedKeyUsageExtension([lib.ExtendedKeyUsage.serverAuth]),
      new lib.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value })),
      ),
      await lib.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await lib.AuthorityKeyIdentifierExtension.create(ca),
    ],
  });
  return { certificate: pemOf(certificate), key: await keyPem(keys.privateKey) };
}

// Whether the kept server certificate still serves: ours, with its key, and for exactly these names.
function fits(certificatePem: string, key: string, caPem: string, names: readonly string[]): boolean {
  const leaf = new X509Certificate(certificatePem);
  const found = (leaf.subjectAltName ?? "")
    .split(", ")
    .map((entry) => entry.replace(/^(DNS|IP Address):/, "").toLowerCase());
  return (
    leaf.checkIssued(new X509Certificate(caPem)) &&
    leaf.checkPrivateKey(createPrivateKey(key)) &&
    found.length === names.length &&
    names.every((name) =>
      isIP(name) === 0 ? found.includes(name.toLowerCase()) : leaf.checkIP(name) !== undefined,
    )
  );
}

// Loaded only when something must be issued: a controller that has its certificates starts without it.
async function library(): Promise<typeof x509> {
  provideReflectMetadata();
  return import("@peculiar/x509");
}

// RFC 5280, 4.1.2.2: positive and at most 20 octets; 16 random ones with the top bit clear and the next set.
function serialNumber(random: Random): string {
  const bytes = random.bytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return hex(bytes);
}

function pemOf(certificate: x509.X509Certificate): string {
  return `${certificate.toString("pem").trim()}\n`;
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey("pkcs8", key)).toString("base64");
  return `-----BEGIN PRIVATE KEY-----\n${der.replace(/.{1,64}/g, "$&\n")}-----END PRIVATE KEY-----\n`;
}
