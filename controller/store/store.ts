// What the controller keeps, as one interface: every method is one transaction, durable when its promise resolves.
import type { ApiEvent } from "../../protocol/api.ts";
import type { OperationState } from "../../protocol/commands.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import type { CommandEvent, CommandState } from "../commands/reduce.ts";

export interface Store extends AsyncDisposable {
  /** Raised by a restore from backup; hosts refuse offers of a lower one. */
  epoch(): Promise<number>;
  /** A random key, made by `make` at the first call and the same ever after. */
  secret(name: string, make: () => Uint8Array): Promise<Uint8Array>;
  readonly hosts: HostStore;
  readonly tokens: TokenStore;
  readonly commands: CommandStore;
  readonly records: RecordStore;
  readonly telemetry: TelemetryStore;
  readonly events: EventStore;
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
  readonly at: number;
}

export type JoinAnswer =
  | { readonly status: "joined" | "known"; readonly host: StoredHost }
  | { readonly status: "token-invalid" | "token-expired" | "token-used" };

export interface HostStore {
  get(id: string): Promise<StoredHost | undefined>;
  /** By id, by name, or by a prefix of at least 6 of the id: all that match, at most 2. */
  find(reference: string): Promise<readonly StoredHost[]>;
  list(): Promise<readonly StoredHost[]>;
  /** Uses up a join token for this key, bound to it: the same key again gets the same answer, another one none. */
  join(request: JoinRequest): Promise<JoinAnswer>;
  /** The host's session began: it is online, and this session is the newest. Answers what is stored of its outbox. */
  connected(
    host: string,
    session: string,
    facts: HostFacts,
    at: number,
  ): Promise<{ readonly records: number; readonly samples: number }>;
  /** The session ended; the host is offline unless a newer session began. */
  disconnected(host: string, session: string, at: number): Promise<void>;
  /** At start: no host is connected; those that were are offline since they were last seen. */
  forgetSessions(): Promise<void>;
}

export interface StoredToken {
  readonly id: string;
  readonly hash: Uint8Array;
  readonly scope: Scope;
  readonly label: string;
  readonly createdAt: number;
  readonly expiresAt: number | null;
}

/** What an API token may do; each one includes those before it. */
export const scopes = ["read", "operate", "admin"] as const;
export type Scope = (typeof scopes)[number];

export interface TokenStore {
  createJoinToken(token: {
    id: string;
    secretHash: Uint8Array;
    createdAt: number;
    expiresAt: number;
    uses: number;
  }): Promise<void>;
  createApiToken(token: StoredToken): Promise<void>;
  apiToken(id: string): Promise<StoredToken | undefined>;
}

export interface StoredCommand extends CommandState {
  readonly id: string;
  readonly host: string;
  readonly kind: string;
  readonly mode: string;
  /** The caller's very bytes. */
  readonly document: Uint8Array;
  readonly signatures: readonly string[];
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
  readonly signatures: readonly string[];
  readonly notAfter: number | null;
  readonly at: number;
}

export interface CommandFilter {
  readonly host?: string | undefined;
  readonly state?: OperationState | undefined;
  readonly limit: number;
}

export interface CommandStore {
  /** `known`: the same id with the same document; `conflict`: with another one; `full`: the host has too many open ones. */
  create(
    command: NewCommand,
  ): Promise<
    | { readonly status: "created" | "known" | "conflict"; readonly command: StoredCommand }
    | { readonly status: "full" }
  >;
  get(id: string): Promise<StoredCommand | undefined>;
  /** Newest first. */
  list(filter: CommandFilter): Promise<readonly StoredCommand[]>;
  /** Those of a host that have not ended, in order of creation. */
  open(host: string): Promise<readonly { readonly id: string; readonly cancelRequestedAt: number | null }[]>;
  /** Those that wait and whose time limit to start is before `at`. */
  expired(at: number): Promise<readonly string[]>;
  /** Applies an event by `reduceCommand`, and appends the API event of what changed. */
  apply(id: string, event: CommandEvent, at: number): Promise<StoredCommand | undefined>;
  /**
   * Marks a command as offered before it is sent. The first time it gets its generation: the host's next one if it
   * changes state, by compare-and-set. Undefined when it has ended.
   */
  offer(id: string, at: number): Promise<StoredCommand | undefined>;
  /** How many there are in each state. */
  counts(): Promise<ReadonlyMap<OperationState, number>>;
}

export interface IncomingRecord {
  readonly host: string;
  readonly instance: string;
  readonly seq: number;
  readonly body: RecordBody;
  /** By the controller's clock. */
  readonly at: number;
}

export interface RecordAnswer {
  /** `known`: stored before, nothing done; `hole`: records before it are missing, nothing done. */
  readonly status: "stored" | "known" | "hole";
  /** The highest record stored. */
  readonly mark: number;
  /** Why the record had no effect though it was stored. */
  readonly ignored?: string;
}

export interface RecordStore {
  /**
   * Applies a record and raises the host's mark in one transaction, so that none is applied twice or lost. Calls for one
   * host are applied in the order in which they are made, also when one is made before another's promise has resolved.
   */
  apply(record: IncomingRecord): Promise<RecordAnswer>;
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
  /** Instances of one host whose marks are kept: the newest. */
  instancesMax: 8,
} as const;

export function minuteOf(unixMs: number): number {
  return Math.floor(unixMs / 60_000);
}
