// What the controller keeps of hosts, and what each call on them means.
import type { HostIdentity } from "../../protocol/identity.ts";
import type { Standing } from "../../protocol/schema.ts";
import type { StandingEvent } from "../rules/standing.ts";

export interface StoredHost {
  readonly id: string;
  readonly name: string;
  readonly linkKey: Uint8Array;
  readonly hostname: string;
  readonly instance: string;
  readonly bootId: string;
  readonly agentVersion: string;
  readonly joinedAt: number;
  readonly online: boolean;
  /** When `online` last changed. */
  readonly changedAt: number;
  readonly lastSeenAt: number;
  /** The controller's clock minus the host's. */
  readonly clockOffsetMs: number | null;
  readonly generation: number;
  readonly series: number;
  readonly batches: number;
  readonly gaps: number;
  readonly lastBatchAt: number | null;
  readonly standing: Standing;
  readonly standingAt: number;
  /** The host whose name and history this one gets when it is approved. */
  readonly takesOver: string | null;
  /** The host that got this one's name and history. */
  readonly replacedBy: string | null;
  /** The hosts that this one replaced. */
  readonly formerIds: readonly string[];
  /** The machines that answered with its key, while it is in quarantine or waits for approval. */
  readonly instances: readonly SeenInstance[];
  /** Both keys vouch for it. */
  readonly identity: StoredIdentity | null;
  readonly auditHead: { readonly seq: number; readonly hash: string; readonly at: number } | null;
  /** What is wrong with its audit, since its attestation key is known. */
  readonly auditFault: string | null;
  /** SHA-256 of the newest authority that its agent has been told of and has confirmed; empty for none. */
  readonly authority: string;
}

export interface SeenInstance {
  readonly instance: string;
  readonly bootId: string;
  readonly address: string;
}

export interface StoredIdentity {
  readonly identity: HostIdentity;
  /** `identityDigest` of it. */
  readonly digest: string;
  readonly since: number;
}

/** A head of a host's audit that its attestation key signed, and the controller too. */
export interface KeptHead {
  readonly seq: number;
  readonly hash: string;
  readonly signature: string;
  readonly countersignature: string;
  readonly at: number;
}

/** What a host says about itself at each connection. */
export interface HostFacts {
  readonly instance: string;
  readonly bootId: string;
  readonly hostname: string;
  readonly agentVersion: string;
}

export interface JoinRequest extends HostFacts {
  readonly host: string;
  readonly linkKey: Uint8Array;
  /** The name wished for; the answer says which one it got. */
  readonly name: string;
  readonly token: { readonly id: string; readonly secretHash: Uint8Array };
  /** Where it comes from. */
  readonly address: string;
  readonly at: number;
}

export type JoinAnswer =
  | {
      readonly status: "joined" | "known";
      readonly host: StoredHost;
      /** The host whose place it took. */
      readonly replaced: string | null;
    }
  | { readonly status: "token-invalid" | "token-expired" | "token-used" | "address-denied" };

export interface HostStore {
  get(id: string): Promise<StoredHost | undefined>;
  /** By id, by name, or by a prefix of at least 6 of the id: all that match, at most 2. */
  find(reference: string): Promise<readonly StoredHost[]>;
  list(): Promise<readonly StoredHost[]>;
  count(): Promise<number>;
  /** Uses up a join token for this key, bound to it: the same key again gets the same answer, another one none. */
  join(request: JoinRequest): Promise<JoinAnswer>;
  /**
   * Applies an event by `reduceStanding`. A host that becomes approved takes over what it was made for: `replaced` is then
   * the host whose place it took. One that becomes revoked has its open commands ended.
   * @throws what reduceStanding throws; `enrol.token-used` when another key took the place meanwhile
   */
  setStanding(
    id: string,
    event: StandingEvent,
    at: number,
  ): Promise<{ readonly host: StoredHost; readonly replaced: string | null } | undefined>;
  rename(id: string, name: string, at: number): Promise<"renamed" | "taken">;
  /**
   * The host's session began: it is online, and this session is the newest. Answers what is stored of its outbox and
   * how the host stands at that moment. Of a revoked host, or a machine that is known for a copy, nothing is changed.
   */
  connected(host: string, session: string, facts: HostFacts, at: number): Promise<Connected>;
  /** The session ended; the host is offline unless a newer session began. */
  disconnected(host: string, session: string, at: number): Promise<void>;
  /** At start: no host is connected; those that were are offline since they were last seen. */
  forgetSessions(): Promise<void>;
  /** Whether a person has said that this machine is a copy of the host. */
  isCopy(host: string, facts: Pick<HostFacts, "instance" | "bootId">): Promise<boolean>;
  /** These machines answered with the host's key at once: from now on it is at most read from. Again adds machines. */
  quarantine(host: string, instances: readonly SeenInstance[], at: number): Promise<StoredHost>;
  /**
   * Of the machines that have the host's key the named one is the true one, the others are copies for good. Also after the
   * quarantine, for who chose wrong.
   * @throws `host.not-quarantined`, `api.not-found`, `api.bad-request` when the name fits several
   */
  release(
    host: string,
    named: string,
    at: number,
  ): Promise<{ readonly host: StoredHost; readonly chosen: SeenInstance } | undefined>;
  /** Its agent was told of this authority, and got it. */
  knowsAuthority(host: string, sha256: string): Promise<void>;
  /** Of its audit, newest first. */
  auditHeads(host: string, limit: number): Promise<readonly KeptHead[]>;
  /** Hosts that may connect and were seen since. */
  countSeen(since: number): Promise<number>;
}

export interface Connected {
  readonly records: number;
  readonly samples: number;
  readonly standing: Standing;
  readonly copy: boolean;
  readonly identity: StoredIdentity | null;
  /** The furthest that its audit was known to be, by the attestation key of its identity. */
  readonly newestHead: KeptHead | undefined;
}
