// Whether what the controller says of a host's keys hangs together, from the fingerprint that a person compared.
import type { HostView } from "../../protocol/api.ts";
import { bytesOfHex } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import { verifyIdentity } from "../../protocol/identity.ts";
import { parsePublicKey } from "../../protocol/ssh-keys.ts";
import type { KnownHost } from "./known-hosts.ts";

/**
 * From fingerprint to host id, from host id to link key, from link key to attestation key and back.
 * @returns the line for known_hosts, and the attestation key's fingerprint
 * @throws `enrol.fingerprint-mismatch`, `identity.missing` when the host has told no attestation key yet, `identity.invalid`
 */
export async function verifyHost(
  host: Pick<HostView, "id" | "name" | "linkKey" | "identity">,
  fingerprint: string,
): Promise<{ readonly known: KnownHost; readonly attestationFingerprint: string }> {
  requireFingerprint(host, fingerprint);
  const { identity } = host;
  if (identity === null) {
    throw new BedplateError(
      "identity.missing",
      `The host ${host.name} has told no attestation key yet: its executor has not run since it joined.`,
      {
        hint: `When it is online: bedplate known-hosts add ${host.name} --fingerprint ${fingerprintOf(host.id)}`,
      },
    );
  }
  // The host id is not the answer's word for it but the one that the fingerprint is the beginning of.
  const attestationFingerprint = await verifyIdentity(
    { ...identity, host: host.id },
    bytesOfHex(host.linkKey),
  );
  const { type, encoded } = parsePublicKey(identity.attestationKey);
  return {
    known: { id: host.id, name: host.name, attestationKey: `${type} ${encoded}` },
    attestationFingerprint,
  };
}

/** @throws `enrol.fingerprint-mismatch` */
export function requireFingerprint({ id, name }: Pick<HostView, "id" | "name">, fingerprint: string): void {
  const digits = (text: string) => text.replace(/[-: ]/g, "").toLowerCase();
  const given = digits(fingerprint);
  // More digits are taken: they are the beginning of the id too.
  if (given.length >= digits(fingerprintOf(id)).length && id.startsWith(given)) return;
  throw new BedplateError(
    "enrol.fingerprint-mismatch",
    `The host ${name} has the fingerprint ${fingerprintOf(id)}, not ${fingerprint}.`,
    {
      hint: "Compare with what the host's own log shows. Another machine may have joined in its place, or something in between shows another one.",
      details: { host: id, given: fingerprint },
    },
  );
}
