// What is wrong with a host's audit, held against the heads that host and controller signed while it grew.
import {
  type AuditAnchor,
  type AuditFault,
  type AuditHead,
  auditFaults,
  auditHeadBytes,
} from "../../protocol/audit.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { parsePublicKey } from "../../protocol/ssh-keys.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import { sha256Hex } from "./journal.ts";
import type { KeptAudit } from "./trust-tables.ts";

/** A signed head as it was kept somewhere. */
export interface KeptHead extends AuditHead {
  /** File and line, for people. */
  readonly from: string;
  /** The host's id that was signed, where it may be an earlier one. */
  readonly host?: string;
}

export type CheckFault =
  | AuditFault
  /** A head that proves nothing: somebody wrote it who has neither key. */
  | { readonly fault: "bad-signature"; readonly seq: number; readonly finding: string };

export interface AuditCheck {
  readonly faults: readonly CheckFault[];
  /** Entries that are kept, and what the first follows. */
  readonly entries: number;
  readonly anchor: AuditAnchor | undefined;
  readonly head: AuditAnchor | undefined;
  /** Heads whose signature holds, and of these those that lie within what is kept or beyond it. */
  readonly heads: number;
  readonly headsHeld: number;
}

/**
 * @param keys lines of public keys that heads may be signed by: the host's attestation key, the controller's audit key
 * @throws what `parsePublicKey` throws
 */
export async function checkAudit(
  host: string,
  kept: KeptAudit,
  heads: readonly KeptHead[],
  keys: readonly string[],
): Promise<AuditCheck> {
  const parsed = keys.map(parsePublicKey);
  const good: KeptHead[] = [];
  const faults: CheckFault[] = [];
  for (const head of heads) {
    try {
      await verifySignature(head.signature, {
        namespace: "bedplate-audit",
        message: auditHeadBytes(head.host ?? host, head),
        keys: parsed,
      });
      good.push(head);
    } catch (error) {
      if (!(error instanceof BedplateError)) throw error;
      faults.push({
        fault: "bad-signature",
        seq: head.seq,
        finding: `${head.from}: the signature over head ${head.seq} is not to be trusted: ${error.message}`,
      });
    }
  }
  const last = kept.lines.at(-1);
  const first = kept.anchor?.seq ?? 0;
  return {
    faults: [...auditFaults(kept, good, sha256Hex), ...faults],
    entries: kept.lines.length,
    anchor: kept.anchor,
    head: last === undefined ? kept.anchor : { seq: seqOf(last.text) ?? first, hash: last.hash },
    heads: good.length,
    headsHeld: good.filter(({ seq }) => seq >= first).length,
  };
}

function seqOf(text: string): number | undefined {
  try {
    const { seq } = JSON.parse(text) as { seq?: unknown };
    return typeof seq === "number" ? seq : undefined;
  } catch {
    return undefined;
  }
}
