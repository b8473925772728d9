// The controller's own audit as a chain of hashes: what its entries are, and what is wrong with one that does not hold.
import { createHash } from "node:crypto";
import Type, { type Static } from "typebox";
import type { AuditChainView } from "../../protocol/api.ts";
import { type AuditAnchor, chainFaults } from "../../protocol/audit.ts";
import { Count, checker, Digest, UnixMs } from "../../protocol/schema.ts";
import type { AuditStore } from "./store.ts";

/** An entry; its exact JSON text is what is hashed. */
export const ChainedCall = Type.Object(
  {
    seq: Count,
    at: UnixMs,
    token: Type.Object({ id: Type.String(), name: Type.String() }),
    /** Absent in entries of versions that lost it where the caller had gone. */
    address: Type.Optional(Type.String()),
    method: Type.String(),
    route: Type.String(),
    object: Type.Union([Type.String(), Type.Null()]),
    status: Type.Integer(),
    code: Type.Union([Type.String(), Type.Null()]),
    previous: Digest,
  },
  { additionalProperties: false },
);
export type ChainedCall = Static<typeof ChainedCall>;

/** @throws `message.invalid` */
const checkCall = checker(ChainedCall, "message.invalid", "audit entry");
const linesAtOnce = 500;
const faultsMax = 100;

/** Undefined where the text is no entry: somebody wrote over it. */
export function readCall(text: string): ChainedCall | undefined {
  try {
    return checkCall(JSON.parse(text));
  } catch {
    return undefined;
  }
}

export function sha256Hex(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/**
 * Goes through the whole chain, and holds it against a head that somebody had of it before.
 * @param pause resolves when others have had their turn: the chain can be long
 */
export async function verifyAudit(
  store: Pick<AuditStore, "anchor" | "lines">,
  head: AuditAnchor | undefined,
  pause: () => Promise<void>,
): Promise<AuditChainView> {
  const anchor = await store.anchor();
  const heads = head === undefined || head.seq < anchor.seq ? [] : [head];
  const faults: AuditChainView["faults"] = [];
  let entries = 0;
  for (let last = anchor; ; await pause()) {
    const lines = await store.lines(last.seq, linesAtOnce);
    const end = lines.at(-1) ?? last;
    // A head beyond this stretch is judged with the one that it belongs to, or at the end.
    const due = heads.filter(({ seq }) =>
      lines.length === 0 ? seq >= last.seq : seq >= last.seq && seq < end.seq,
    );
    for (const { fault, finding } of chainFaults({ anchor: last, lines }, due, sha256Hex, checkCall))
      if (faults.length < faultsMax) faults.push({ fault, finding });
    entries += lines.length;
    last = { seq: end.seq, hash: end.hash };
    if (lines.length === 0) return { entries, anchor, head: last, faults };
  }
}
