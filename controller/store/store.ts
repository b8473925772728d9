// What the controller keeps, as one interface: every method is one transaction, durable when its promise resolves.
import type { ApiEvent, AuditEntry } from "../../protocol/api.ts";
import type { AuditAnchor, AuditLine } from "../../protocol/audit.ts";
import type { Lived } from "../rules/patient-time.ts";
import type { CommandStore } from "./command-store.ts";
import type { HostStore } from "./host-store.ts";
import type { RecordStore } from "./record-store.ts";
import type { TelemetryStore } from "./telemetry-store.ts";
import type { TokenStore } from "./token-store.ts";

export interface Store extends AsyncDisposable {
  /** Raised by a restore from backup; hosts refuse offers of a lower one. */
  epoch(): Promise<number>;
  /** A random key, made by `make` at the first call and the same ever after. */
  secret(name: string, make: () => Uint8Array): Promise<Uint8Array>;
  /** As kept last, also before a restart or a restore; undefined where nothing was. */
  lived(): Promise<Lived | undefined>;
  keepLived(lived: Lived): Promise<void>;
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
