// What the journal keeps beside operations, and longer: the fence, the plans that this host issued, and the audit's chain.
import {
  type AuditAnchor,
  type AuditLine,
  type HostAuditEntry,
  nextAuditLine,
  type Sha256Hex,
} from "../../protocol/audit.ts";
import { planLimits } from "../../protocol/plans.ts";
import type { Fence } from "./fence.ts";
import type { IssuedPlan } from "./plans.ts";
import type { Store } from "./transactions.ts";

export interface NewPlan extends Omit<IssuedPlan, "usedBy"> {
  /** The document's text, whose bytes `digest` is of. */
  readonly text: string;
  readonly issuedAt: number;
}

export type NewAuditEntry = Omit<HostAuditEntry, "seq" | "previous">;

export interface KeptAudit {
  readonly anchor: AuditAnchor | undefined;
  readonly lines: readonly AuditLine[];
}

export interface TrustTables {
  fence(): Fence | undefined;
  /** Null takes it away. */
  setFence(fence: Fence | null): void;
  plan(id: string): IssuedPlan | undefined;
  /** Keeps a plan, in place of an earlier one of the same id; the oldest make room. */
  keepPlan(plan: NewPlan): void;
  usePlan(id: string, command: string): void;
  /** Adds to the chain, in the transaction that is open, if one is. */
  appendAudit(entry: NewAuditEntry): AuditAnchor;
  auditHead(): AuditAnchor | undefined;
  /** The newest `count` entries, oldest first, or all; with the anchor that the oldest of all follows. */
  audit(count?: number): KeptAudit;
}

/** Entries of the audit: at four for each operation, some thousands of operations. */
export const auditEntriesMax = 10_000;
/** Pruned in strides, not one at a time. */
const pruneStride = 100;

export function trustTables({ sql, atomically }: Store, sha256: Sha256Hex): TrustTables {
  const anchor = () => sql("SELECT seq, hash FROM audit_anchor").get() as unknown as AuditAnchor | undefined;
  const newest = () =>
    sql("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").get() as unknown as AuditAnchor | undefined;
  const prune = (seq: number) => {
    const first = seq - auditEntriesMax;
    if (first <= 0 || seq % pruneStride !== 0) return;
    sql(
      "INSERT OR REPLACE INTO audit_anchor (one, seq, hash) SELECT 1, seq, hash FROM audit WHERE seq = ?",
    ).run(first);
    sql("DELETE FROM audit WHERE seq <= ?").run(first);
  };
  return {
    fence() {
      const row = sql("SELECT epoch, generation, digest FROM fence").get();
      return row as unknown as Fence | undefined;
    },
    setFence(fence) {
      if (fence === null) sql("DELETE FROM fence").run();
      else {
        const { epoch, generation, digest } = fence;
        sql("INSERT OR REPLACE INTO fence (one, epoch, generation, digest) VALUES (1, ?, ?, ?)").run(
          epoch,
          generation,
          digest,
        );
      }
    },
    plan(id) {
      const row = sql(
        'SELECT id, kind, digest, arguments, expires_at AS "expiresAt", used_by AS "usedBy" FROM plans WHERE id = ?',
      ).get(id);
      if (row === undefined) return undefined;
      return { ...row, arguments: JSON.parse(String(row.arguments)) } as unknown as IssuedPlan;
    },
    keepPlan: ({ id, kind, digest, arguments: given, text, issuedAt, expiresAt }) =>
      atomically(() => {
        sql(
          `INSERT OR REPLACE INTO plans (id, kind, digest, arguments, text, issued_at, expires_at, used_by)
           VALUES (?, ?, ?, ?, ?, ?, ?, NULL)`,
        ).run(id, kind, digest, JSON.stringify(given), text, issuedAt, expiresAt);
        sql("DELETE FROM plans WHERE rowid NOT IN (SELECT rowid FROM plans ORDER BY rowid DESC LIMIT ?)").run(
          planLimits.keptMax,
        );
      }),
    usePlan(id, command) {
      sql("UPDATE plans SET used_by = ? WHERE id = ?").run(command, id);
    },
    appendAudit: (entry) =>
      atomically(() => {
        const { seq, text, hash } = nextAuditLine(newest() ?? anchor(), entry, sha256);
        sql("INSERT INTO audit (seq, text, hash) VALUES (?, ?, ?)").run(seq, text, hash);
        prune(seq);
        return { seq, hash };
      }),
    auditHead: () => newest() ?? anchor(),
    audit(count) {
      const rows = sql(
        "SELECT text, hash FROM (SELECT seq, text, hash FROM audit ORDER BY seq DESC LIMIT ?) ORDER BY seq",
      ).all(count ?? -1);
      return { anchor: anchor(), lines: rows as unknown as AuditLine[] };
    },
  };
}
