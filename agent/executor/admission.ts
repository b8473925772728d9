// Bringing the facts of an offer together for the decision, and writing down what was decided: one transaction.
import { equalBytes } from "../../protocol/bytes.ts";
import { disksOf, isTerminal } from "../../protocol/commands.ts";
import { formatDiskSelector } from "../../protocol/disks.ts";
import { BedplateError, type ErrorReport } from "../../protocol/errors.ts";
import { boundedReport } from "../../protocol/schema.ts";
import type { MachineNames } from "../devices/machine-names.ts";
import type { ExecutorRequest } from "../door/contract.ts";
import { destructiveKinds, type PolicyFacts } from "../policy/rules.ts";
import type { CheckedSignatures } from "../policy/signatures.ts";
import { type Admission, type AdmissionFacts, admit, type LaneBusy } from "./admit.ts";
import type { AuditLog, AuditSubject } from "./audit-log.ts";
import type { Document } from "./document.ts";
import { type Journal, sha256Hex } from "./journal.ts";

export type RunRequest = Extract<ExecutorRequest, { request: "run" }>;

export interface Offer {
  readonly request: RunRequest;
  readonly document: Document;
  readonly names: MachineNames;
  readonly policy: PolicyFacts;
  readonly policyDigest: string | null;
  readonly signatures: CheckedSignatures;
}

const dayMs = 86_400_000;

export function subjectOf({ id, command }: Document): AuditSubject {
  return { command: id, kind: "decoded" in command ? command.decoded.kind : null };
}

export function destructiveToday(journal: Pick<Journal, "acceptedSince">, nowMs: number): number {
  return journal.acceptedSince(destructiveKinds, nowMs - dayMs);
}

/** Within the transaction that {@link recordAdmission} writes in: nothing that it looked at may change in between. */
export function decide(
  journal: Journal,
  { request, document, names, policy, signatures }: Offer,
  lane: "taken" | "not-needed" | LaneBusy,
  nowMs: number,
): Admission {
  const known = journal.operation(document.id);
  const quoted = "decoded" in document.command ? document.command.decoded.plan?.id : undefined;
  const facts: AdmissionFacts = {
    nowMs,
    onlyKnown: request.onlyKnown ?? false,
    host: request.host,
    ...names,
    epoch: request.epoch,
    generation: request.generation,
    fence: journal.fence(),
    digest: sha256Hex(document.bytes),
    command: document.command,
    known: known && { ...known, sameDocument: equalBytes(known.digest, document.digest) },
    policy,
    signatures,
    plan: quoted === undefined ? undefined : journal.plan(quoted),
    destructiveToday: destructiveToday(journal, nowMs),
    lane,
  };
  return admit(facts);
}

export function recordAdmission(
  journal: Journal,
  audit: AuditLog,
  offer: Offer,
  admission: Admission,
  at: number,
): void {
  const { request, document, policyDigest, signatures } = offer;
  const { id, bytes, digest, command } = document;
  const subject = subjectOf(document);
  if (admission.do === "not-known") return;
  const known = journal.operation(id);
  audit.note("offered", subject, {
    digest: sha256Hex(bytes),
    epoch: request.epoch,
    generation: request.generation,
    signatures: request.signatures.length,
    ...("decoded" in command ? { mode: command.decoded.mode } : {}),
    ...(known === undefined ? {} : { known: known.state }),
  });
  const add = (
    event: Parameters<Journal["add"]>[1],
    keep: readonly CheckedSignatures["verified"][number][],
  ) =>
    journal.add(
      {
        id,
        digest,
        document: bytes,
        kind: "decoded" in command ? command.decoded.kind : "unknown",
        effect: "decoded" in command ? command.effect : "read",
        epoch: request.epoch,
        generation: request.generation,
        signatures: keep.map(({ armored }) => armored),
        at,
      },
      event,
    );
  switch (admission.do) {
    case "start": {
      const { fence, usesPlan, signedBy, lane } = admission;
      if (usesPlan !== null) journal.usePlan(usesPlan, id);
      if (fence !== null) journal.setFence(fence);
      const overrides = overridesOf(document);
      if (overrides.length > 0)
        audit.note("override", subject, {
          guards: [...new Set(overrides.flatMap(({ guards }) => guards))],
          disks: overrides,
        });
      const sealed = audit.seal("accepted", subject, {
        policy: policyDigest,
        signedBy,
        plan: usesPlan,
        ...disksNamedBy(document),
        ...(lane === "wait" ? { waits: true } : {}),
      });
      add({ type: "accepted", at, audit: sealed }, signatures.verified);
      break;
    }
    case "refuse": {
      const sealed = audit.seal("refused", subject, refusalOf(admission.error));
      const { code, message } = admission.error;
      const error = boundedReport(new BedplateError(code, message, admission.error));
      // With those that hold, by which it is told from what anybody may have refused.
      add({ type: "refused", at, error, audit: sealed }, signatures.verified);
      break;
    }
    case "conflict":
      // The record of the other command of this id stays as it is.
      audit.note("refused", subject, refusalOf(admission.error));
      return;
    case "conclude": {
      const startedAt = journal.events(id, 0)[0]?.at ?? at;
      journal.finish(id, {
        type: "result",
        at,
        result: { outcome: admission.outcome, startedAt, endedAt: at, error: admission.error },
      });
      break;
    }
    case "resume":
    case "replay":
  }
  journal.setServer(id, admission.do === "start" || admission.do === "resume" ? "run" : "follow");
}

/** The disks that a command overwrites, as it selects them. */
function disksNamedBy({ command }: Document): { readonly disks?: readonly string[] } {
  if (!("decoded" in command) || command.effect === "read") return {};
  const disks = disksOf(command.decoded.arguments).map(({ disk }) => formatDiskSelector(disk).slice(0, 256));
  return disks.length === 0 ? {} : { disks };
}

interface Override {
  readonly disk: string;
  readonly guards: readonly string[];
  /** Which disk, and what lay on it when the guard's finding was looked at. */
  readonly fingerprint: Readonly<Record<string, string | null>>;
}

/** The guards that a command asks to let pass, and for what; whether they may is for the policy, when the disk is looked at. */
function overridesOf({ command }: Document): readonly Override[] {
  if (!("decoded" in command)) return [];
  const { decoded } = command;
  if (decoded.kind !== "image.deploy" || decoded.mode !== "apply") return [];
  const { also = [], ...first } = decoded.arguments;
  return [first, ...also].flatMap(({ disk, overrides = [], fingerprint }) => {
    if (overrides.length === 0) return [];
    const { serial, wwn, backing, edges, content = null } = fingerprint;
    return {
      disk: formatDiskSelector(disk).slice(0, 256),
      guards: [...new Set(overrides)],
      fingerprint: { serial, wwn, backing: backing?.slice(0, 256) ?? null, edges, content },
    };
  });
}

function refusalOf({ code, message }: ErrorReport) {
  return { code, message: message.slice(0, 512) };
}

/** Whether whoever serves the operation now only replays it, and makes room for one that runs it. */
export function onlyReplayed(journal: Journal, id: string): boolean {
  const known = journal.operation(id);
  // Of one that is not known it is only said that it is not.
  return known === undefined || (known.server === "follow" && !isTerminal(known.state));
}
