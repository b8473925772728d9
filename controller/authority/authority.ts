// The controller's own certificate authority and server certificate, made at first start, kept as PEM files, and changed
// with an overlap: the old authority vouches for the new one until the hosts know it.
import { join } from "node:path";
import Type, { type Static } from "typebox";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import { checker, UnixMs } from "../../protocol/schema.ts";
import { readPrivateFile, readTextFile, writePrivateFile } from "../machine/files.ts";
import type { Random } from "../machine/system.ts";
import {
  type Issued,
  makeCa,
  makeCrossCertificate,
  makeServerCertificate,
  serves,
  sha256OfCertificate,
} from "./certificates.ts";

export { sha256OfCertificate } from "./certificates.ts";

export interface Authority {
  /** The CA certificate, PEM: what join tokens pin. */
  readonly caPem: string;
  /** SHA-256 of its DER, lower-case hexadecimal. */
  readonly caSha256: string;
  /** The certificates that agents and the CLI trust now, PEM, newest first: two while they overlap. */
  readonly trustedPem: string;
  /** SHA-256 of each. */
  readonly trusted: readonly string[];
  /** The server's certificate, while authorities overlap with the one that ties them after it; and its key. PEM. */
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly rotation: Rotation;
}

/** `finished`: who knows the old authority only needs a new join token. */
export type Rotation =
  | { readonly state: "none"; readonly startedAt: null }
  | { readonly state: "overlapping" | "finished"; readonly startedAt: number };

/** What lies beside the database and cannot be made anew. The last is there once a rotation was begun. */
export const authorityFiles = { always: ["ca.pem", "ca.key"], rotation: "rotation.json" } as const;

/**
 * Written in one step, so that a rotation is begun or not, and over or not, whenever the controller dies. While it is
 * under way this file alone says what both authorities are.
 */
const RotationFile = Type.Union([
  Type.Object({
    state: Type.Literal("overlapping"),
    startedAt: UnixMs,
    oldCertificate: Type.String(),
    newCertificate: Type.String(),
    newKey: Type.String(),
    crossCertificate: Type.String(),
  }),
  Type.Object({ state: Type.Literal("finished"), startedAt: UnixMs }),
]);
type RotationFile = Static<typeof RotationFile>;
const checkRotation = checker(RotationFile, "state.unsafe", authorityFiles.rotation);

/**
 * Reads the authority in `directory`, or makes what is missing. The server certificate is issued again when `names` or the
 * authority changed; the authority never is: a CA without its key, or the other way round, is an error.
 * @throws `state.unsafe`
 */
export async function openAuthority(
  directory: string,
  names: readonly string[],
  random: Random,
): Promise<Authority> {
  const rotation = await readRotation(directory);
  const overlap = rotation?.state === "overlapping" ? rotation : undefined;
  const ca: Issued =
    overlap === undefined
      ? await openCa(directory, random)
      : { certificate: overlap.newCertificate, key: overlap.newKey };
  const allNames = [...new Set([tlsServerName, "localhost", "127.0.0.1", ...names])];
  const leaf = await openServerCertificate(directory, ca, allNames, random);
  const trusted = overlap === undefined ? [ca.certificate] : [ca.certificate, overlap.oldCertificate];
  return {
    caPem: ca.certificate,
    caSha256: sha256OfCertificate(ca.certificate),
    trustedPem: trusted.join(""),
    trusted: trusted.map(sha256OfCertificate),
    certificatePem: leaf.certificate + (overlap?.crossCertificate ?? ""),
    keyPem: leaf.key,
    rotation:
      rotation === undefined
        ? { state: "none", startedAt: null }
        : { state: rotation.state, startedAt: rotation.startedAt },
  };
}

/** Makes a new authority beside the one there is. @throws `authority.overlapping` */
export async function beginRotation(directory: string, random: Random, startedAt: number): Promise<void> {
  if ((await readRotation(directory))?.state === "overlapping") {
    throw new BedplateError("authority.overlapping", "The controller's authority is being changed already.", {
      hint: "Finish that first: bedplate controller rotate-ca --finish",
    });
  }
  const old = await openCa(directory, random);
  const made = await makeCa(random);
  await writeRotation(directory, {
    state: "overlapping",
    startedAt,
    oldCertificate: old.certificate,
    newCertificate: made.certificate,
    newKey: made.key,
    crossCertificate: await makeCrossCertificate(old, made.certificate, random),
  });
}

/** Forgets the old authority, key and all. @throws `authority.not-overlapping` */
export async function finishRotation(directory: string): Promise<void> {
  const rotation = await readRotation(directory);
  if (rotation?.state !== "overlapping") {
    throw new BedplateError("authority.not-overlapping", "No change of the authority is under way.", {
      hint: "Begin one with: bedplate controller rotate-ca",
    });
  }
  // Until the last of these is written the rotation is under way, and these two are not read.
  await writePrivateFile(join(directory, "ca.key"), rotation.newKey);
  await writePrivateFile(join(directory, "ca.pem"), rotation.newCertificate);
  await writeRotation(directory, { state: "finished", startedAt: rotation.startedAt });
}

async function openCa(directory: string, random: Random): Promise<Issued> {
  const paths = { certificate: join(directory, "ca.pem"), key: join(directory, "ca.key") };
  const certificate = await readTextFile(paths.certificate);
  const key = await readPrivateFile(paths.key);
  if (certificate !== undefined && key !== undefined) return { certificate, key };
  const servedBefore = (await readTextFile(join(directory, "server.pem"))) !== undefined;
  if (certificate !== undefined || servedBefore) {
    throw new BedplateError("state.unsafe", `${directory} has one of ca.pem and ca.key without the other.`, {
      hint: "Restore the missing file from a backup: hosts trust this authority and no other.",
    });
  }
  const made = await makeCa(random);
  // The key first: a crash in between leaves a key without certificate, which nobody can have pinned.
  await writePrivateFile(paths.key, made.key);
  await writePrivateFile(paths.certificate, made.certificate);
  return made;
}

async function openServerCertificate(
  directory: string,
  ca: Issued,
  names: readonly string[],
  random: Random,
): Promise<Issued> {
  const paths = { certificate: join(directory, "server.pem"), key: join(directory, "server.key") };
  const certificate = await readTextFile(paths.certificate);
  const key = await readPrivateFile(paths.key);
  if (certificate !== undefined && key !== undefined && serves({ certificate, key }, ca.certificate, names))
    return { certificate, key };
  const made = await makeServerCertificate(ca, names, random);
  await writePrivateFile(paths.key, made.key);
  await writePrivateFile(paths.certificate, made.certificate);
  return made;
}

async function readRotation(directory: string): Promise<RotationFile | undefined> {
  const path = join(directory, authorityFiles.rotation);
  const text = await readPrivateFile(path);
  if (text === undefined) return undefined;
  try {
    return checkRotation(JSON.parse(text));
  } catch (cause) {
    throw new BedplateError("state.unsafe", `${path} cannot be understood.`, {
      hint: "Restore it from a backup: it says which authority hosts trust.",
      cause,
    });
  }
}

async function writeRotation(directory: string, rotation: RotationFile): Promise<void> {
  const text = `${JSON.stringify(rotation, undefined, 2)}\n`;
  assert(checkRotation(JSON.parse(text)).state === rotation.state, "what is written can be read");
  await writePrivateFile(join(directory, authorityFiles.rotation), text);
}
