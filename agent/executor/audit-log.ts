// What the executor writes into the audit's chain, always in the transaction of what it tells, and the heads it signs.
import type { AuditEventName, AuditHead } from "../../protocol/audit.ts";
import { auditHeadBytes } from "../../protocol/audit.ts";
import type { AttestationKey } from "./attestation.ts";
import type { Journal } from "./journal.ts";

export interface AuditSubject {
  readonly command: string;
  /** Null where the document could not be read. */
  readonly kind: string | null;
}

export interface AuditLog {
  note(event: AuditEventName, subject: AuditSubject, detail: Readonly<Record<string, unknown>>): void;
  /** The same, and the host's signature over where the chain then stands. */
  seal(event: AuditEventName, subject: AuditSubject, detail: Readonly<Record<string, unknown>>): AuditHead;
}

/** @param at the host's clock */
export function createAuditLog(
  journal: Pick<Journal, "appendAudit">,
  { host, key, at }: { readonly host: string; readonly key: AttestationKey; readonly at: () => number },
): AuditLog {
  const append = (event: AuditEventName, { command, kind }: AuditSubject, detail: object) =>
    journal.appendAudit({ at: at(), event, command, kind, detail: { ...detail } });
  return {
    note(event, subject, detail) {
      append(event, subject, detail);
    },
    seal(event, subject, detail) {
      // A machine that joins anew gets another id, and its chain goes on: the entry says whose head was signed.
      const { seq, hash } = append(event, subject, { ...detail, host });
      return { seq, hash, signature: key.sign("bedplate-audit", auditHeadBytes(host, { seq, hash })) };
    },
  };
}

/** A journal that audits the runs and the end of one operation. */
export function auditedJournal(journal: Journal, log: AuditLog, subject: AuditSubject): Journal {
  return {
    ...journal,
    startRun: (id, at) =>
      journal.atomically(() => {
        const event = journal.startRun(id, at);
        log.note("started", subject, event.type === "running" ? { run: event.run } : {});
        return event;
      }),
    finish: (id, event) =>
      journal.atomically(() => {
        const { outcome, error } = event.result;
        const audit = log.seal("ended", subject, {
          outcome,
          ...(error === undefined ? {} : { code: error.code }),
        });
        return journal.finish(id, { ...event, audit });
      }),
  };
}
