// Running an operation that was admitted: the policy asked once more, its steps audited, its plan issued, its lane given back.
import type { Command, Effect } from "../../protocol/commands.ts";
import { assert, errorOf } from "../../protocol/errors.ts";
import type { CommandEnd } from "../commands/command.ts";
import { handlerOf } from "../commands/index.ts";
import { listDisks } from "../devices/disks.ts";
import type { Facts } from "../devices/facts.ts";
import { type LoadedPolicy, loadedPolicy } from "../policy/policy.ts";
import { checkSignatures } from "../policy/signatures.ts";
import { destructiveToday, type Offer, subjectOf } from "./admission.ts";
import { goingOnFault } from "./admit.ts";
import type { AttestationKey } from "./attestation.ts";
import type { AuditLog } from "./audit-log.ts";
import type { Followers } from "./followers.ts";
import type { LaneTurn } from "./lane-turn.ts";
import { endOtherLeftovers } from "./leftovers.ts";
import type { Executor } from "./means.ts";
import { createOperation, type ExecutorCommand } from "./operation.ts";
import { issuePlan } from "./plan-artefact.ts";
import { openSpoolOf } from "./spool-files.ts";

export interface StartedOffer {
  readonly offer: Offer;
  readonly command: { readonly decoded: ExecutorCommand; readonly effect: Effect };
  readonly loaded: LoadedPolicy;
  readonly key: AttestationKey;
  readonly audit: AuditLog;
  readonly turn: LaneTurn;
}

/** Steps of one run that are audited: a deploy has three for each of its disks and each of its tries. */
const stepsMax = 128;

/** @param executor with the journal that audits this operation */
export async function startOperation(
  started: StartedOffer,
  bound: Followers,
  executor: Executor,
): Promise<"ended" | "interrupted"> {
  const { offer, audit, turn, key } = started;
  const { decoded: command, effect } = started.command;
  const { journal, paths, host, user, stopping, log } = executor;
  const { request, document, names } = offer;
  const { id } = command;
  const subject = subjectOf(document);
  let { loaded } = started;
  let steps = 0;
  using output = openSpoolOf(host.files, paths.stateDirectory, id);
  await using followers = bound;

  /** The policy of this moment: it may have changed while the operation waited, or since an earlier run. */
  const mayGoOn = async () => {
    loaded = loadedPolicy(host.files, paths.policy, user);
    const { facts: policy } = loaded;
    const known = journal.operation(id);
    assert(known !== undefined, "an operation that runs is in the journal");
    const rules = policy.state === "unusable" ? undefined : policy.rules;
    const fault = goingOnFault({
      nowMs: host.clock.now(),
      policy,
      command,
      effect,
      signatures:
        rules === undefined
          ? { verified: [], refused: [] }
          : await checkSignatures(known.signatures, document.bytes, rules),
      runs: known.runs,
      noReturn: known.noReturn,
    });
    if (fault !== undefined) throw errorOf(fault);
  };

  const notes = journal.notes(id);
  const handler = await handlerOf(command.kind);

  const operation = createOperation({
    command,
    handler,
    journal,
    followers,
    clock: host.clock,
    stopping,
    noReturn: journal.operation(id)?.noReturn ?? false,
    paused: notes.get("paused")?.[0] === 1,
    async ready(signal) {
      // Once begun it waits as long as it takes: its disk may be half-written.
      const begun = (journal.operation(id)?.runs ?? 0) > 0;
      await turn.ready(begun ? undefined : command.limits.startWithinSeconds, signal);
      if (effect !== "read") await endOtherLeftovers(id, executor);
    },
    mayGoOn,
    onStep({ name, noReturn, at, notes }) {
      if (steps++ >= stepsMax && noReturn === undefined) return;
      journal.atomically(() => {
        if (noReturn !== undefined) journal.setNoReturn(id);
        if (notes !== undefined) journal.notes(id).set(notes);
        audit.note("step", subject, {
          step: name,
          ...(at === undefined ? {} : { at }),
          ...(noReturn === undefined ? {} : { noReturn }),
        });
      });
    },
    finish: async (end) => (command.mode === "plan" ? planned(command, end) : end),
    context: {
      host,
      get policy() {
        return loaded.policy;
      },
      sources: request.sources,
      ca: request.ca,
      notes,
      disks: (facts) => disksNow(facts, loaded),
      output,
      log,
    },
  });

  function planned(of: Command, end: CommandEnd): CommandEnd {
    if (end.error !== undefined || loaded.facts.state === "unusable") return end;
    const nowMs = host.clock.now();
    const { artefact, kept, allowed } = issuePlan({
      command: of,
      end,
      nowMs,
      random: host.random,
      names,
      key,
      policyDigest: loaded.policy.digest,
      rules: loaded.facts.rules,
      destructiveToday: destructiveToday(journal, nowMs),
    });
    journal.atomically(() => {
      journal.keepPlan(kept);
      audit.note("planned", subject, { plan: kept.digest, expiresAt: kept.expiresAt, allowed });
    });
    return { ...end, output: { ...(end.output as object), artefact } };
  }

  function disksNow(facts: Facts, { policy }: LoadedPolicy) {
    return listDisks({
      facts,
      files: host.files,
      fileDisks: policy.fileDisks,
      allows: (disk) => policy.allows(disk),
      protectedPaths: ["/", paths.stateDirectory],
    });
  }

  const answered = new Set<string>();
  const cancel = (reason: string) => {
    const answer = operation.cancel(reason);
    // Each answer once: whoever repeats itself fills no audit.
    if (!answered.has(answer.answer)) {
      answered.add(answer.answer);
      audit.note("cancel", subject, { ...answer, asked: reason.slice(0, 256) });
    }
    return answer;
  };
  let pauses = 0;
  let over = false;
  const pause = (paused: boolean) => {
    // Who comes for its end may still say it.
    if (over) return;
    const known = notes.get("paused")?.[0] === 1;
    if (known !== paused) {
      // Durable: an executor that resumes it waits too, also where nobody can tell it to.
      journal.atomically(() => {
        notes.set({ paused: new Uint8Array([Number(paused)]) });
        if (pauses++ < stepsMax) audit.note("pause", subject, { paused });
      });
    }
    operation.pause(paused);
  };
  followers.serve({ pause, replay: (afterSeq) => journal.events(id, afterSeq), cancel, output }, host.clock);
  const end = await operation.run();
  over = end === "ended";
  turn.release();
  log(`${id}: ${end}`);
  if (end === "ended") await followers.drained(host.clock, stopping);
  return end;
}
