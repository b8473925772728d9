// Who is there: hello, challenge, auth. Ends with a host that the store knows, or with a refusal.
import { createHash } from "node:crypto";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import { parseJoinToken } from "../../protocol/join-token.ts";
import { limits } from "../../protocol/limits.ts";
import { hostIdOf, linkProofBytes, verifyEd25519 } from "../../protocol/link-proof.ts";
import { type AgentMessage, exporter, protocolVersion } from "../../protocol/messages.ts";
import type { Log } from "../machine/log.ts";
import type { Clock, Random } from "../machine/system.ts";
import { revoked } from "../rules/standing.ts";
import type { HostFacts, StoredHost } from "../store/host-store.ts";
import type { Store } from "../store/store.ts";
import type { Channel } from "./channel.ts";

type Hello = Extract<AgentMessage, { t: "hello" }>;
type Auth = Extract<AgentMessage, { t: "auth" }>;

export interface HandshakeParts {
  readonly store: Pick<Store, "hosts" | "epoch">;
  /** SHA-256 of the authorities that a join token may name. */
  readonly trusted: () => readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Called with the host whose place another key has taken. */
  readonly onReplaced: (host: string) => void;
}

export interface Proven {
  readonly host: StoredHost;
  readonly facts: HostFacts;
  /** The session that this very process had before. */
  readonly previousSession: string | undefined;
}

/**
 * @throws `link.version`, `link.auth-failed`, `link.unknown-host`, `enrol.*`; `agent.offline` when the peer left
 */
export async function handshake(channel: Channel, parts: HandshakeParts): Promise<Proven> {
  const { message: hello, bytes: helloFrame } = await channel.expect("hello");
  if (hello.versions.min > protocolVersion || hello.versions.max < protocolVersion) {
    throw new BedplateError(
      "link.version",
      `The agent speaks versions ${hello.versions.min} to ${hello.versions.max}, this controller ${protocolVersion}.`,
    );
  }
  const epoch = await parts.store.epoch();
  const nonce = parts.random.bytes(32);
  channel.send({ t: "challenge", nonce, version: protocolVersion, epoch, at: parts.clock.now() });
  const { message: auth } = await channel.expect("auth");
  const proof = await linkProofBytes({
    agentNonce: hello.nonce,
    controllerNonce: nonce,
    exported: channel.exportKeyingMaterial(exporter.bytes, exporter.label),
    hello: helloFrame,
  });
  // A key that is no point of the curve throws where a wrong signature answers false.
  const holds = await verifyEd25519(hello.linkKey, auth.signature, proof).catch(() => false);
  if (!holds)
    throw new BedplateError("link.auth-failed", "The signature does not hold for this key and connection.");
  const facts: HostFacts = {
    instance: hello.instance,
    bootId: hello.bootId,
    hostname: hello.hostname,
    agentVersion: hello.agentVersion,
  };
  const id = await hostIdOf(hello.linkKey);
  const host =
    (await parts.store.hosts.get(id)) ??
    (await join({ id, hello, auth, facts, address: channel.address }, parts));
  if (host.standing === "revoked") throw revoked(host);
  if ((hello.epochSeen ?? 0) > epoch) {
    parts.log.error(
      { host: id, name: host.name, code: "link.stale-epoch", epoch, epochSeen: hello.epochSeen },
      `A host has seen epoch ${hello.epochSeen} of this controller, which is at ${epoch}: it was set back, or is a copy. Restore it with --epoch ${hello.epochSeen! + 1}.`,
    );
  }
  return { host, facts, previousSession: hello.previousSession };
}

interface Applicant {
  readonly id: string;
  readonly hello: Hello;
  readonly auth: Auth;
  readonly facts: HostFacts;
  readonly address: string;
}

async function join(
  { id, hello, auth, facts, address }: Applicant,
  parts: HandshakeParts,
): Promise<StoredHost> {
  if (auth.joinToken === undefined) {
    throw new BedplateError(
      "link.unknown-host",
      "This controller does not know the host's key; join it with a token.",
    );
  }
  const token = parseJoinToken(auth.joinToken);
  if (!parts.trusted().includes(token.caSha256))
    throw new BedplateError("enrol.token-invalid", "The join token is for another controller.");
  const answer = await parts.store.hosts.join({
    ...facts,
    host: id,
    linkKey: Uint8Array.from(hello.linkKey),
    name: auth.name ?? nameOfHostname(hello.hostname, id),
    token: { id: token.id, secretHash: hashOfSecret(token.secret) },
    at: parts.clock.now(),
    address,
  });
  switch (answer.status) {
    case "joined": {
      const { host, replaced } = answer;
      parts.log.info(
        {
          ...{ host: id, name: host.name, token: token.id, standing: host.standing, replaced, address },
          fingerprint: fingerprintOf(id),
        },
        "a host joined",
      );
      if (replaced !== null) parts.onReplaced(replaced);
      return host;
    }
    case "known":
      return answer.host;
    case "token-invalid":
      throw new BedplateError(
        "enrol.token-invalid",
        "This controller did not make this join token, or revoked it.",
      );
    case "token-expired":
      throw new BedplateError("enrol.token-expired", "The join token has expired; make a new one.");
    case "address-denied":
      parts.log.warn({ host: id, token: token.id, address }, "a join token was shown from another address");
      throw new BedplateError(
        "enrol.address-denied",
        "The join token may not be used from this host's address.",
      );
    case "token-used":
      // Someone else holds the token: its owner should know.
      parts.log.warn({ host: id, token: token.id }, "a join token that is used up was shown by another key");
      throw new BedplateError("enrol.token-used", "The join token was used by another host; make a new one.");
  }
}

/** What the store keeps of a token's secret. */
export function hashOfSecret(secret: string): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(secret).digest());
}

function nameOfHostname(hostname: string, id: string): string {
  const name = hostname
    .replace(/[^A-Za-z0-9._:-]/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "")
    .slice(0, limits.nameLengthMax);
  return name === "" ? `host-${id.slice(0, 12)}` : name;
}
