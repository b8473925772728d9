// What the controller keeps, as one interface: every method is one transaction, durable when its promise resolves.
import type { ApiEvent, AuditEntry, Scope } from "../../protocol/api.ts";
import type { AuditAnchor, AuditLine } from "../../protocol/audit.ts";
import type { OperationState } from "../../protocol/commands.ts";
import type { HostIdentity } from "../../protocol/identity.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import type { Standing } from "../../protocol/schema.ts";
import type { DueSteps, SentInSession, Step } from "../rules/offering.ts";
import type { Vouched } from "../rules/record-rule.ts";
import type { CommandEvent, CommandState } from "../rules/reduce.ts";
import type { AddedSignature, KeptSignature } from "../rules/signatures.ts";
import type { StandingEvent } from "../rules/standing.ts";

export { type Scope, scopes } from "../../protocol/api.ts";

export interface Store extends AsyncDisposable {
  /** Raised by a restore from backup; hosts refuse offers of a lower one. */
  epoch(): Promise<number>;
  /** A random key, made by `make` at the first call and the same ever after. */
  secret(name: string, make: () => Uint8Array): Promise<Uint8Array>;
  /** Copies all of it as it is at one moment into a new private file, with `files` beside it. Writing goes on meanwhile. */
  backup(path: string, files: Readonly<Record<string, string>>): Promise<void>;
  readonly hosts: HostStore;
  readonly audit: AuditStore;
  readonly tokens: TokenStore;
  readonly commands: CommandStore;
  readonly records: RecordStore;
  readonly telemetry: TelemetryStore;
  readonly events: EventStore;
  readonly images: ImageRecordStore;
}

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

export interface StoredToken {
  readonly id: string;
  readonly hash: Uint8Array;
  readonly scope: Scope;
  readonly label: string;
  readonly createdAt: number;
  readonly expiresAt: number | null;
  readonly lastUsedAt: number | null;
  readonly revokedAt: number | null;
}

export interface NewJoinToken {
  readonly id: string;
  readonly secretHash: Uint8Array;
  readonly createdAt: number;
  readonly expiresAt: number;
  readonly uses: number;
  readonly approve: "auto" | "manual";
  /** The host whose place the new key takes. */
  readonly forHost: string | null;
  /** Checked by `isCidr` before. */
  readonly cidr: string | null;
}

export interface StoredJoinToken extends Omit<NewJoinToken, "secretHash"> {
  readonly used: number;
  readonly revokedAt: number | null;
}

export interface TokenStore {
  createJoinToken(token: NewJoinToken): Promise<void>;
  /** Newest first, at most 1000. */
  joinTokens(): Promise<readonly StoredJoinToken[]>;
  /** Undefined when there is none. Again is no change. */
  revokeJoinToken(id: string, at: number): Promise<StoredJoinToken | undefined>;
  createApiToken(token: Omit<StoredToken, "lastUsedAt" | "revokedAt">): Promise<void>;
  apiToken(id: string): Promise<StoredToken | undefined>;
  /** Newest first, at most 1000. */
  apiTokens(): Promise<readonly StoredToken[]>;
  useApiToken(id: string, at: number): Promise<void>;
  /** Undefined when there is none. Again is no change. */
  revokeApiToken(id: string, at: number): Promise<StoredToken | undefined>;
}

/** What was called, by whom, and what came of it. */
export type AuditCall = Omit<AuditEntry, "index" | "hash">;

export interface AuditStore {
  /** Appends an entry to the chain. */
  append(entry: AuditCall): Promise<void>;
  /** Newest first. */
  list(limit: number): Promise<readonly AuditEntry[]>;
  /** What the oldest line that is kept follows. */
  anchor(): Promise<AuditAnchor>;
  /** Lines of the chain after a number, in order. */
  lines(after: number, limit: number): Promise<readonly (AuditLine & { readonly seq: number })[]>;
  /** Keeps the newest `keep` entries, and none from before `before` that no newer one precedes. */
  prune(before: number, keep: number): Promise<void>;
}

export interface StoredCommand extends CommandState {
  readonly id: string;
  readonly host: string;
  readonly kind: string;
  readonly mode: string;
  /** The caller's very bytes; empty when it has ended and was let go of, see `holding`. */
  readonly document: Uint8Array;
  /** One a key. Without its text when the command was let go of. */
  readonly signatures: readonly KeptSignature[];
  /** It is not offered before it has so many. */
  readonly signaturesWanted: number;
  /** Of output that the host has told of. */
  readonly outputBytes: number;
  readonly createdAt: number;
  /** After which it is not started; null for no limit. */
  readonly notAfter: number | null;
  /** The host's generation that it was first offered with; null before. */
  readonly generation: number | null;
}

export interface NewCommand {
  readonly id: string;
  readonly host: string;
  readonly kind: string;
  readonly mode: string;
  readonly document: Uint8Array;
  readonly signatures: readonly KeptSignature[];
  readonly signaturesWanted: number;
  readonly notAfter: number | null;
  readonly at: number;
}

/** What a session was sent, and what time it is: what `dueSteps` asks for. */
export interface SessionNow extends SentInSession {
  /** Monotonic. */
  readonly nowMs: number;
}

/** Steps of `dueSteps`, done in the store: what is sent when they are durable, in this order. */
export interface DueOffers {
  readonly steps: readonly (
    | { readonly step: "offer"; readonly command: StoredCommand }
    | { readonly step: Exclude<Step["step"], "offer">; readonly id: string }
  )[];
  readonly rest: DueSteps["rest"];
  readonly epoch: number;
}

export interface StoredMirror {
  readonly root: string;
  readonly url: string;
  readonly layout: "bedplate" | "raw";
  /** Before the controller. */
  readonly first: boolean;
  readonly addedAt: number;
}

/** What is kept of images beside their files. */
export interface ImageRecordStore {
  /** In the order in which they were added. */
  mirrors(): Promise<readonly StoredMirror[]>;
  /** `known`: that address is one already, and is now as this says. */
  addMirror(mirror: StoredMirror): Promise<"added" | "known" | "full">;
  removeMirror(root: string, url: string, at: number): Promise<"removed" | "unknown">;
  /** The image was removed: so are its mirrors. */
  removed(root: string, at: number): Promise<void>;
  /** Commands that have not ended and name the image, at most 100. */
  openCommandsOf(root: string): Promise<readonly string[]>;
}

export interface CommandFilter {
  readonly host?: string | undefined;
  readonly state?: OperationState | undefined;
  readonly limit: number;
  /** Of documents and results in all; the first is always there. Absent: no bound. */
  readonly bytesMax?: number;
}

export interface CommandStore {
  /**
   * `known`: the same id with the same document; `conflict`: with another one; `full`: the host has too many open ones;
   * `too-many-kept`: too many that ended are remembered, see `holding`;
   * `revoked`: its key is, so nothing can be sent to it. With a session, what is due to it is offered in the same
   * transaction; `due` says what.
   */
  create(
    command: NewCommand,
    session?: SessionNow,
  ): Promise<
    | { readonly status: "created"; readonly command: StoredCommand; readonly due: DueOffers }
    | { readonly status: "known" | "conflict"; readonly command: StoredCommand }
    | { readonly status: "full" | "too-many-kept" | "revoked" }
  >;
  get(id: string): Promise<StoredCommand | undefined>;
  /** Whether it has ended; without reading all of it. */
  standing(id: string): Promise<"open" | "ended" | "unknown">;
  /** Newest first. */
  list(filter: CommandFilter): Promise<readonly StoredCommand[]>;
  /**
   * Decides by `dueSteps` what of a host's open commands the session is sent, and marks it so: a command's first offer
   * gives it its generation by `assignGeneration`.
   */
  offerDue(host: string, session: SessionNow, at: number): Promise<DueOffers>;
  /** Commands of a host that it was offered, that have not ended, and whose cancel was asked for. */
  cancelling(host: string): Promise<readonly string[]>;
  /** Adds by `addSignature`. Undefined when there is no such command. */
  sign(
    id: string,
    signature: KeptSignature,
  ): Promise<{ readonly status: AddedSignature["status"]; readonly command: StoredCommand } | undefined>;
  /**
   * Those that wait and whose own time limit to start is before `at`, or that were taken before `takenBefore`, with the
   * number of signatures that each still lacks.
   */
  expired(
    at: number,
    takenBefore: number,
  ): Promise<readonly { readonly id: string; readonly missing: number; readonly limit: "own" | "waited" }[]>;
  /** Deletes commands that ended before `before`, oldest first, with their output. Answers how many, at most `limit`. */
  forget(before: number, limit: number): Promise<number>;
  /** Applies an event by `reduceCommand`, and appends the API event of what changed. */
  apply(id: string, event: CommandEvent, at: number): Promise<StoredCommand | undefined>;
  /** What the command's program printed after an offset: at most `bytesMax` of it, or one piece that is longer. */
  output(id: string, after: number, bytesMax: number): Promise<OutputPage | undefined>;
  /** How many there are in each state. */
  counts(): Promise<ReadonlyMap<OperationState, number>>;
}

export type OutputRecord = Extract<RecordBody, { type: "output" }>;

export interface OutputPage {
  /** How far the output came so far. */
  readonly end: number;
  /** In order of their offsets, none twice; a jump is output that was lost or is no longer kept. */
  readonly pieces: readonly {
    readonly stream: OutputRecord["stream"];
    readonly offset: number;
    readonly data: Uint8Array;
  }[];
}

export interface IncomingRecord {
  readonly host: string;
  readonly instance: string;
  readonly seq: number;
  /** In its session; absent: later. */
  readonly place?: "first" | "later";
  readonly body: RecordBody;
  /** By the controller's clock. */
  readonly at: number;
  /** What the host's keys say of it; a record that needs their word has no effect without. */
  readonly vouched?: Vouched | undefined;
}

export interface RecordAnswer {
  /** `known`: stored before, nothing done; `hole`: records before it are missing, nothing done. */
  readonly status: "stored" | "known" | "hole";
  /** The highest record stored. */
  readonly mark: number;
  /** Why the record had no effect though it was stored. */
  readonly ignored?: string;
  /** How many records before it are lost: those that came after the backup which this store was restored from. */
  readonly lost?: number;
}

export interface RecordStore {
  /**
   * Applies a record and raises the host's mark in one transaction, so that none is applied twice or lost. Calls for one
   * host are applied in the order in which they are made, also when one is made before another's promise has resolved.
   */
  apply(record: IncomingRecord): Promise<RecordAnswer>;
  /** Calls with the command's id when output of it is durable. */
  followOutput(listener: (command: string) => void): Disposable;
}

export interface StoredBatch {
  readonly host: string;
  readonly instance: string;
  readonly seq: number;
  /** By the controller's clock. */
  readonly at: number;
  /** From `TelemetryStore.dictionary`. */
  readonly dictionary: number;
  /** The message as received. */
  readonly frame: Uint8Array;
}

export interface Sighting {
  readonly host: string;
  readonly at: number;
  readonly clockOffsetMs: number | null;
}

export interface TelemetryStore {
  /** Keeps a dictionary message as received, once, and answers its number. */
  dictionary(host: string, frame: Uint8Array, series: number, at: number): Promise<number>;
  /** Appends what need not be durable at once: batches, when hosts were seen, progress events. */
  append(late: {
    readonly batches: readonly StoredBatch[];
    readonly seen: readonly Sighting[];
    readonly progressed: readonly string[];
    readonly at: number;
  }): Promise<void>;
  /** Batches received in the minutes `from` to `to` (since 1970), oldest first, with their dictionaries. */
  read(
    host: string,
    minutes: { readonly from: number; readonly to: number },
  ): Promise<readonly { readonly dictionary: Uint8Array; readonly frame: Uint8Array }[]>;
  /** Forgets what was received before the minute. */
  prune(beforeMinute: number): Promise<void>;
}

export interface EventStore {
  append(event: Pick<ApiEvent, "topic" | "id" | "event">, at: number): Promise<void>;
  /** The highest index given out; 0 when there was no event. */
  newest(): Promise<number>;
  /** Events after `index`, at most `limit`. `gone`: some are no longer kept, or `index` was never given out. */
  after(index: number, limit: number): Promise<readonly ApiEvent[] | "gone">;
  /** Calls after each transaction that appended events. */
  follow(listener: () => void): Disposable;
  /** Keeps the newest `keep` events. */
  prune(keep: number): Promise<void>;
}

/** Bounds of what is kept. */
export const storeLimits = {
  /** Commands of one host that have not ended. */
  openCommandsMax: 1024,
  /** Telemetry of one host in one minute; what exceeds it is counted as a gap. */
  minuteBytesMax: 1 << 20,
  /** Dictionaries of one host that are kept: those used last. A message is larger than none of them. */
  dictionariesMax: 1024,
  dictionaryBytesMax: 64 << 20,
  /** Instances of one host whose marks are kept: the newest. */
  instancesMax: 8,
  /** Heads of one host's audit that are kept: the newest. */
  auditHeadsMax: 256,
  /** Attestation keys of one host whose heads are kept: the newest. */
  auditKeysMax: 8,
} as const;

export function minuteOf(unixMs: number): number {
  return Math.floor(unixMs / 60_000);
}
