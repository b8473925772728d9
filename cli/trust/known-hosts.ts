// The keys of hosts that the operator knows, as text: one line a host, `HOSTID NAME ssh-ed25519 AAAA…`. Pure.
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf as fingerprintOfHost } from "../../protocol/identifiers.ts";
import type { HostIdentity } from "../../protocol/identity.ts";
import { checker, HostId, Name } from "../../protocol/schema.ts";
import { fingerprintOf, parsePublicKey } from "../../protocol/ssh-keys.ts";

export interface KnownHost {
  /** SHA-256 of its link key. */
  readonly id: string;
  /** What the operator calls it: as the controller did when it was approved. */
  readonly name: string;
  /** `ssh-ed25519 AAAA…`: the key that signs its plans. */
  readonly attestationKey: string;
}

export interface KnownHosts {
  /** For messages. */
  readonly path: string;
  readonly hosts: readonly KnownHost[];
}

/** Of the whole file: more than 200,000 hosts. */
export const knownHostsBytesMax = 32 << 20;

const checkId = checker(HostId, "config.invalid", "host id");
const checkName = checker(Name, "config.invalid", "host's name");

/** @throws `config.invalid` naming the line */
export function parseKnownHosts(text: string, path: string): KnownHost[] {
  const hosts: KnownHost[] = [];
  const [ids, names] = [new Set<string>(), new Set<string>()];
  for (const [index, line] of text.split("\n").entries()) {
    const trimmed = line.trim();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    const invalid = (why: string, cause?: unknown) =>
      new BedplateError("config.invalid", `${path}, line ${index + 1}: ${why}`, {
        hint: "A line is HOSTID NAME ssh-ed25519 KEY; remove it and run `bedplate known-hosts add` again.",
        ...(cause === undefined ? {} : { cause }),
      });
    const [id = "", name = "", ...key] = trimmed.split(/\s+/);
    let host: KnownHost;
    try {
      const named = { id: checkId(id), name: checkName(name) };
      const { type, encoded } = parsePublicKey(key.join(" "));
      host = { ...named, attestationKey: `${type} ${encoded}` };
    } catch (cause) {
      if (!(cause instanceof BedplateError)) throw cause;
      throw invalid(cause.message, cause);
    }
    // Two answers to one question are none.
    if (ids.has(id)) throw invalid(`The host ${id} is there twice.`);
    if (names.has(name)) throw invalid(`The name ${name} is there twice.`);
    ids.add(id);
    names.add(name);
    hosts.push(host);
  }
  return hosts;
}

export function formatKnownHost({ id, name, attestationKey }: KnownHost): string {
  return `${id} ${name} ${attestationKey}`;
}

/** The text with `host` in it, in the place of what it had of the same id or name; all other lines stay as they are. */
export function withKnownHost(text: string, host: KnownHost): string {
  const kept = linesWithout(text, [host.id, host.name]);
  return `${[...kept, formatKnownHost(host)].join("\n")}\n`;
}

/** The text without the host of this id. */
export function withoutKnownHost(text: string, id: string): string {
  const kept = linesWithout(text, [id]);
  return kept.length === 0 ? "" : `${kept.join("\n")}\n`;
}

function linesWithout(text: string, words: readonly string[]): string[] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.filter((line) => {
    const [id = "", name = ""] = line.trim().split(/\s+/);
    return id.startsWith("#") || !(words.includes(id) || words.includes(name));
  });
}

/**
 * The known host that the controller's `host` is, by its id; undefined when neither its id nor its name is known.
 * @throws `host.key-changed` when what the controller says contradicts what is known
 */
export async function knownHostOf(
  { hosts, path }: KnownHosts,
  host: {
    readonly id: string;
    readonly name: string;
    readonly identity: Pick<HostIdentity, "attestationKey"> | null;
  },
): Promise<KnownHost | undefined> {
  const byId = requireSameHost({ hosts, path }, host);
  if (byId === undefined) return undefined;
  if (byId.name !== host.name) {
    throw changed(
      `The host ${fingerprintOfHost(host.id)} is known as ${byId.name}; the controller calls it ${host.name}.`,
      `If it was renamed: bedplate known-hosts add ${host.name} --fingerprint ${fingerprintOfHost(host.id)} (kept in ${path})`,
      { host: host.id, known: byId.name, found: host.name },
    );
  }
  await requireSameKey(byId, host.identity?.attestationKey, path);
  return byId;
}

/**
 * That `host` may be written down: nothing else is known by its name, no other key by its id. Another name is a renaming.
 * @throws `host.key-changed`
 */
export async function requireUnchanged(known: KnownHosts, host: KnownHost): Promise<void> {
  const byId = requireSameHost(known, host);
  if (byId !== undefined) await requireSameKey(byId, host.attestationKey, known.path);
}

function requireSameHost(
  { hosts, path }: KnownHosts,
  host: { readonly id: string; readonly name: string },
): KnownHost | undefined {
  const byName = hosts.find((known) => known.name === host.name);
  if (byName !== undefined && byName.id !== host.id) {
    throw changed(
      `THE HOST ${host.name} IS NOT THE ONE THAT IS KNOWN. Known by that name is ${fingerprintOfHost(byName.id)}; the controller gives it to another machine, ${fingerprintOfHost(host.id)}.`,
      `If it was set up anew, compare the fingerprint with what its own log shows, then: bedplate known-hosts remove ${byName.name} && bedplate known-hosts add ${host.name} --fingerprint FINGERPRINT (kept in ${path})`,
      { name: host.name, known: byName.id, found: host.id },
    );
  }
  return hosts.find((known) => known.id === host.id);
}

async function requireSameKey(known: KnownHost, found: string | undefined, path: string): Promise<void> {
  if (found === undefined) return;
  if ((await fingerprintOrText(found)) === (await fingerprintOrText(known.attestationKey))) return;
  throw await keyChanged(known, found, path);
}

/** For a plan or an identity by another key than the known one. */
export async function keyChanged(known: KnownHost, found: string, path: string): Promise<BedplateError> {
  const [before, now] = [await fingerprintOrText(known.attestationKey), await fingerprintOrText(found)];
  return changed(
    `THE KEY OF ${known.name} HAS CHANGED. Known is ${before}; now it is said to be ${now}. Someone may stand between you and the host, or its executor's state was made anew.`,
    `Nothing was sent. Ask the host's owner whether it was set up anew; if it was, compare its fingerprint and run: bedplate known-hosts remove ${known.name} && bedplate known-hosts add ${known.name} --fingerprint FINGERPRINT (kept in ${path})`,
    { host: known.id, known: before, found: now },
  );
}

async function fingerprintOrText(key: string): Promise<string> {
  try {
    return await fingerprintOf(parsePublicKey(key));
  } catch (error) {
    if (!(error instanceof BedplateError)) throw error;
    return `(no key: ${key.slice(0, 80)})`;
  }
}

function changed(message: string, hint: string, details: Readonly<Record<string, unknown>>): BedplateError {
  return new BedplateError("host.key-changed", message, { hint, details });
}
