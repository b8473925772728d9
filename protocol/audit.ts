// The audit's hash chain: what an entry is, how one follows another, and what is wrong with a chain that does not hold.
import Type, { type Static } from "typebox";
import { utf8 } from "./bytes.ts";
import { Count, checker, Digest, UnixMs } from "./schema.ts";

/** What an audit tells of. */
export const AuditEventName = Type.Union([
  Type.Literal("offered"),
  Type.Literal("refused"),
  Type.Literal("planned"),
  Type.Literal("accepted"),
  Type.Literal("started"),
  Type.Literal("step"),
  Type.Literal("cancel"),
  Type.Literal("pause"),
  Type.Literal("ended"),
  Type.Literal("fence-reset"),
  Type.Literal("override"),
]);
export type AuditEventName = Static<typeof AuditEventName>;

/** One entry; its exact JSON text is what is hashed. `seq` counts from 1 and never starts over. */
export const HostAuditEntry = Type.Object(
  {
    seq: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    /** By the host's clock. */
    at: UnixMs,
    event: AuditEventName,
    command: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
    kind: Type.Union([Type.String({ maxLength: 64 }), Type.Null()]),
    detail: Type.Record(Type.String(), Type.Unknown()),
    /** Hash of the entry before; 64 zeroes before the first. */
    previous: Digest,
  },
  { additionalProperties: false },
);
export type HostAuditEntry = Static<typeof HostAuditEntry>;

/** An entry as it is kept: the very text that was hashed. */
export interface AuditLine {
  readonly text: string;
  /** SHA-256 of the text, lower-case hexadecimal. */
  readonly hash: string;
}

/** Where a chain stood once, with the host's signature over it and, of what came back, the controller's. */
export const AuditHead = Type.Object({
  seq: Count,
  hash: Digest,
  /** Armored, by the host's attestation key, namespace `bedplate-audit`, over `auditHeadBytes`. */
  signature: Type.String({ maxLength: 8192 }),
});
export type AuditHead = Static<typeof AuditHead>;

/** Where older entries were pruned: what the first one that is kept follows. */
export type AuditAnchor = Pick<AuditHead, "seq" | "hash">;

/** A hash function over text, injected: synchronous, so that an entry is made within its transaction. */
export type Sha256Hex = (text: string) => string;

export const auditStart = "0".repeat(64);

/** What host and controller both sign to say where the host's chain stands. */
export function auditHeadBytes(host: string, { seq, hash }: Pick<AuditHead, "seq" | "hash">): Uint8Array {
  return utf8(`bedplate audit ${host} ${seq} ${hash}`);
}

/** What every entry of such a chain has, whatever else it tells. */
export interface ChainEntry {
  readonly seq: number;
  readonly previous: string;
}

/** The line that follows `last` in a chain of any entries: `make` gives the entry its number and the hash before it. */
export function nextChainLine(
  last: AuditAnchor | undefined,
  make: (seq: number, previous: string) => ChainEntry,
  sha256: Sha256Hex,
): AuditLine & { readonly seq: number } {
  const seq = (last?.seq ?? 0) + 1;
  const text = JSON.stringify(make(seq, last?.hash ?? auditStart));
  return { seq, text, hash: sha256(text) };
}

/** The line that follows `last`: the newest entry, the anchor where all were pruned, undefined for the first one ever. */
export function nextAuditLine(
  last: AuditAnchor | undefined,
  entry: Omit<HostAuditEntry, "seq" | "previous">,
  sha256: Sha256Hex,
): AuditLine & { readonly seq: number } {
  const { at, event, command, kind, detail } = entry;
  const make = (seq: number, previous: string): HostAuditEntry => ({
    ...{ seq, at, event, command, kind, detail, previous },
  });
  return nextChainLine(last, make, sha256);
}

export type AuditFault =
  /** The entry's text does not have the hash that is kept with it, or is no entry. */
  | { readonly fault: "edited"; readonly seq: number; readonly finding: string }
  /** Entries between two that are there are missing. */
  | { readonly fault: "deleted"; readonly from: number; readonly to: number; readonly finding: string }
  /** A head that was signed is beyond the end of the chain. */
  | { readonly fault: "truncated"; readonly seq: number; readonly head: number; readonly finding: string }
  /** A head that was signed has another hash than the entry of its number: there were two chains. */
  | { readonly fault: "forked"; readonly seq: number; readonly finding: string };

const checkEntry = checker(HostAuditEntry, "message.invalid", "audit entry");

/** A host's audit by `chainFaults`. */
export function auditFaults(
  chain: { readonly anchor: AuditAnchor | undefined; readonly lines: readonly AuditLine[] },
  heads: readonly Pick<AuditHead, "seq" | "hash">[],
  sha256: Sha256Hex,
): AuditFault[] {
  return chainFaults(chain, heads, sha256, checkEntry);
}

/**
 * Goes through a chain in order and against heads whose signatures the caller has verified.
 * Heads older than the anchor prove nothing about what is kept and are passed over.
 * @param check returns an entry, or throws where the value is none
 */
export function chainFaults(
  { anchor, lines }: { readonly anchor: AuditAnchor | undefined; readonly lines: readonly AuditLine[] },
  heads: readonly Pick<AuditHead, "seq" | "hash">[],
  sha256: Sha256Hex,
  check: (value: unknown) => ChainEntry,
): AuditFault[] {
  const faults: AuditFault[] = [];
  const start = anchor ?? { seq: 0, hash: auditStart };
  const hashes = new Map([[start.seq, start.hash]]);
  let last: AuditAnchor = start;
  for (const [index, { text, hash }] of lines.entries()) {
    const expected = last.seq + 1;
    let entry: ChainEntry;
    try {
      entry = check(JSON.parse(text));
    } catch {
      faults.push({ fault: "edited", seq: expected, finding: `Line ${index + 1} is no audit entry.` });
      last = { seq: expected, hash };
      continue;
    }
    const computed = sha256(text);
    if (computed !== hash) {
      faults.push({
        fault: "edited",
        seq: entry.seq,
        finding: `Entry ${entry.seq} has the hash ${computed.slice(0, 16)}…, kept with it is ${hash.slice(0, 16)}….`,
      });
    }
    if (entry.seq > expected) {
      faults.push({
        fault: "deleted",
        from: expected,
        to: entry.seq - 1,
        finding: `Entries ${expected} to ${entry.seq - 1} are missing.`,
      });
    } else if (entry.seq < expected) {
      faults.push({
        fault: "forked",
        seq: entry.seq,
        finding: `Entry ${entry.seq} comes again after entry ${expected - 1}.`,
      });
    } else if (entry.previous !== last.hash) {
      faults.push({
        fault: "edited",
        seq: entry.seq - 1,
        finding: `Entry ${entry.seq} follows ${entry.previous.slice(0, 16)}…, before it stands ${last.hash.slice(0, 16)}….`,
      });
    }
    hashes.set(entry.seq, hash);
    last = { seq: entry.seq, hash };
  }
  const end = last.seq;
  for (const { seq, hash } of heads) {
    if (seq > end) {
      faults.push({
        fault: "truncated",
        seq: end,
        head: seq,
        finding: `The chain ends with entry ${end}; a signed head says that it had ${seq}.`,
      });
    } else if (hashes.has(seq) && hashes.get(seq) !== hash) {
      faults.push({
        fault: "forked",
        seq,
        finding: `A signed head has ${hash.slice(0, 16)}… for entry ${seq}, the chain has ${hashes.get(seq)!.slice(0, 16)}….`,
      });
    }
  }
  return faults;
}
