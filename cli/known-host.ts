// Making a host known: from the fingerprint that a person compared to the line in known_hosts.
import type { HostView } from "../protocol/api.ts";
import type { ApiClient } from "./api-client.ts";
import { monotonic, sleep } from "./clock.ts";
import { type ExitCode, exitCodes } from "./exit-codes.ts";
import type { Terminal } from "./terminal.ts";
import { requireFingerprint, verifyHost } from "./trust/identity.ts";
import { type KnownHost, parseKnownHosts, requireUnchanged, withKnownHost } from "./trust/known-hosts.ts";
import { changeKnownHosts, readKnownHosts } from "./trust/known-hosts-file.ts";

export interface KnownHostOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
  /** As the host's own log shows it. */
  readonly fingerprint: string;
  /** The file of known hosts. */
  readonly path: string;
}

/** A host that has just been let in connects anew and tells its attestation key within moments. */
const settledMs = 10_000;
const pauseMs = 250;

/** @throws as `verifyHost`; `host.key-changed` when another key is known; nothing is written then */
export async function addKnownHost(options: KnownHostOptions): Promise<ExitCode> {
  const { client, terminal, reference, path } = options;
  const host = await client.host(reference);
  const { known, attestationFingerprint } = await keep(host, options);
  terminal.document({ known, fingerprint: attestationFingerprint, path });
  terminal.print(knownText(known, attestationFingerprint, path));
  return exitCodes.ok;
}

/** @throws as `addKnownHost`, before anything is approved where the fingerprint or a known key contradicts */
export async function approveKnown(options: KnownHostOptions): Promise<ExitCode> {
  const { client, terminal, signal, reference, fingerprint, path } = options;
  const before = await client.host(reference);
  requireFingerprint(before, fingerprint);
  if (before.identity !== null) {
    const { known } = await verifyHost(before, fingerprint);
    await requireUnchanged(await readKnownHosts(path), known);
  }
  let host = await client.approveHost(before.id, fingerprint);
  const until = monotonic() + settledMs;
  const settled = () => host.identity !== null && host.connection === "online";
  while (before.connection === "online" && !settled() && monotonic() < until) {
    await sleep(pauseMs, signal);
    host = await client.host(before.id);
  }
  if (host.identity === null) {
    terminal.document({ ...host, known: null });
    terminal.print(`${host.name} is approved; its fingerprint is ${host.fingerprint}.`);
    terminal.note(
      `warning: it has told no attestation key yet, so it is not in ${path}. When it has: bedplate known-hosts add ${host.name} --fingerprint ${fingerprint}`,
    );
    return exitCodes.ok;
  }
  const { known, attestationFingerprint } = await keep(host, options);
  terminal.document({ ...host, known });
  terminal.print(`${host.name} is approved; its fingerprint is ${host.fingerprint}.`);
  terminal.print(knownText(known, attestationFingerprint, path));
  return exitCodes.ok;
}

async function keep(
  host: HostView,
  { fingerprint, path, signal }: KnownHostOptions,
): Promise<{ readonly known: KnownHost; readonly attestationFingerprint: string }> {
  const verified = await verifyHost(host, fingerprint);
  // Looked at while nobody else can change it: of two who name one host at once, the second is refused.
  await changeKnownHosts(
    path,
    async (text) => {
      await requireUnchanged({ path, hosts: parseKnownHosts(text, path) }, verified.known);
      return withKnownHost(text, verified.known);
    },
    signal,
  );
  return verified;
}

function knownText({ name }: KnownHost, fingerprint: string, path: string): string {
  return `${name} is known by its attestation key ${fingerprint} from now on (${path}).`;
}
