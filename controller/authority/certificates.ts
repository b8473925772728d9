// Certificates as the controller issues them: an authority, its server certificate, and the one that ties two authorities.
import { createHash, createPrivateKey, type webcrypto, X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type * as x509 from "@peculiar/x509";
import { hex } from "../../protocol/bytes.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import type { Random } from "../machine/system.ts";
import { provideReflectMetadata } from "./reflect.ts";

/** A certificate and its private key, both PEM. */
export interface Issued {
  readonly certificate: string;
  readonly key: string;
}

// A fresh server's clock may say 1999 or 2040: identity must not hang on it. Rotation is by overlap, not by expiry.
const validity = { notBefore: new Date("1970-01-01T00:00:00Z"), notAfter: new Date("9999-12-31T23:59:59Z") };
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
// The same for every authority: a certificate that ties two of them is then self-issued, and so counts nothing towards the
// path length of 0 that they have (RFC 5280, 4.2.1.9). Which key is meant is told by the key identifiers.
const caName = "CN=Bedplate controller authority";

export async function makeCa(random: Random): Promise<Issued> {
  const lib = await library();
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await lib.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: serialNumber(random),
    name: caName,
    signingAlgorithm: algorithm,
    keys,
    extensions: await caExtensions(lib, keys.publicKey),
  });
  return { certificate: pemOf(certificate), key: await keyPem(keys.privateKey) };
}

/** The new authority's key, vouched for by the old one: what a server shows to those who know the old one only. */
export async function makeCrossCertificate(
  old: Issued,
  newCertificate: string,
  random: Random,
): Promise<string> {
  const lib = await library();
  const [issuer, subject] = [
    new lib.X509Certificate(old.certificate),
    new lib.X509Certificate(newCertificate),
  ];
  const certificate = await lib.X509CertificateGenerator.create({
    ...validity,
    serialNumber: serialNumber(random),
    subject: subject.subject,
    issuer: issuer.subject,
    signingAlgorithm: algorithm,
    signingKey: await signingKeyOf(old.key),
    publicKey: subject.publicKey,
    extensions: [
      ...(await caExtensions(lib, subject.publicKey)),
      await lib.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return pemOf(certificate);
}

export async function makeServerCertificate(
  ca: Issued,
  names: readonly string[],
  random: Random,
): Promise<Issued> {
  const lib = await library();
  const issuer = new lib.X509Certificate(ca.certificate);
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await lib.X509CertificateGenerator.create({
    ...validity,
    serialNumber: serialNumber(random),
    subject: `CN=${tlsServerName}`,
    issuer: issuer.subject,
    signingAlgorithm: algorithm,
    signingKey: await signingKeyOf(ca.key),
    publicKey: keys.publicKey,
    extensions: [
      new lib.BasicConstraintsExtension(false, undefined, true),
      new lib.KeyUsagesExtension(lib.KeyUsageFlags.digitalSignature, true),
      new lib.ExtendedKeyUsageExtension([lib.ExtendedKeyUsage.serverAuth]),
      new lib.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) === 0 ? "dns" : "ip", value })),
      ),
      await lib.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await lib.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  });
  return { certificate: pemOf(certificate), key: await keyPem(keys.privateKey) };
}

/** Whether a kept server certificate still serves: by this authority, with its key, and for exactly these names. */
export function serves(leaf: Issued, caPem: string, names: readonly string[]): boolean {
  const certificate = new X509Certificate(leaf.certificate);
  const ca = new X509Certificate(caPem);
  const found = (certificate.subjectAltName ?? "")
    .split(", ")
    .map((entry) => entry.replace(/^(DNS|IP Address):/, "").toLowerCase());
  return (
    certificate.checkIssued(ca) &&
    // Authorities share their name: whose signature it is counts.
    certificate.verify(ca.publicKey) &&
    certificate.checkPrivateKey(createPrivateKey(leaf.key)) &&
    found.length === names.length &&
    names.every((name) =>
      isIP(name) === 0 ? found.includes(name.toLowerCase()) : certificate.checkIP(name) !== undefined,
    )
  );
}

/** SHA-256 of a certificate's DER, lower-case hexadecimal. */
export function sha256OfCertificate(pem: string): string {
  return hex(createHash("sha256").update(new X509Certificate(pem).raw).digest());
}

async function caExtensions(lib: typeof x509, publicKey: x509.PublicKeyType): Promise<x509.Extension[]> {
  return [
    new lib.BasicConstraintsExtension(true, 0, true),
    new lib.KeyUsagesExtension(lib.KeyUsageFlags.keyCertSign | lib.KeyUsageFlags.cRLSign, true),
    await lib.SubjectKeyIdentifierExtension.create(publicKey),
  ];
}

function signingKeyOf(key: string): Promise<webcrypto.CryptoKey> {
  const der = Uint8Array.from(createPrivateKey(key).export({ type: "pkcs8", format: "der" }));
  return crypto.subtle.importKey("pkcs8", der, algorithm, false, ["sign"]);
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
