// What an executor does with its one request: admit, journal, serve the operation's socket, run, wait for the followers.

import type { HostAuditEntry } from "../../protocol/audit.ts";
import { isTerminal, type OperationState } from "../../protocol/commands.ts";
import { assert, BedplateError, type ErrorReport, errorOf } from "../../protocol/errors.ts";
import { boundedReport } from "../../protocol/schema.ts";
import { readMachineNames } from "../devices/machine-names.ts";
import { type ExecutorRequest, operationSocketPath } from "../door/contract.ts";
import { loadedPolicy } from "../policy/policy.ts";
import { checkSignatures, noSignatures } from "../policy/signatures.ts";
import {
  decide,
  type Offer,
  onlyReplayed,
  type RunRequest,
  recordAdmission,
  subjectOf,
} from "./admission.ts";
import type { Admission } from "./admit.ts";
import { openAttestationKey } from "./attestation.ts";
import { auditedJournal, createAuditLog } from "./audit-log.ts";
import { requirePrivateDirectory, requireRunDirectory } from "./directories.ts";
import { type Document, readDocument } from "./document.ts";
import { executorLives, noteExecutor } from "./executor-mark.ts";
import { bindFollowers, type Followers, isListening } from "./followers.ts";
import { identityOf, publishIdentity } from "./identify.ts";
import { type Journal, type JournalledEvent, keptMs, openJournal } from "./journal.ts";
import { openLaneTurn } from "./lane-turn.ts";
import { endLeftoverOf, withLeftover } from "./leftovers.ts";
import type { Executor, ExecutorOptions } from "./means.ts";
import { openSpoolOf, pruneSpools } from "./spool-files.ts";
import { type StartedOffer, startOperation } from "./start.ts";

/**
 * `noted`: another executor has the operation. `conflict`: the id belongs to another command, whose record is untouched.
 * `interrupted`: told to stop, to be resumed.
 */
export type ExecutorEnd = "ended" | "noted" | "conflict" | "interrupted";

const takeoverPollMs = 100;
const takeoverTriesMax = 50;
const laneTriesMax = 10;

/** @throws `state.unsafe`, `executor.failed`: what no journal could take */
export async function execute(request: ExecutorRequest, options: ExecutorOptions): Promise<ExecutorEnd> {
  const { paths, user, separated, host, log } = options;
  requirePrivateDirectory(host.files, paths.stateDirectory, user);
  const gid = requireRunDirectory(host.files, paths.runDirectory, user);
  using journal = openJournal(paths.stateDirectory);
  journal.prune(host.clock.now() - keptMs);
  pruneSpools(host.files, paths.stateDirectory, (id) => standingOf(journal.operation(id)?.state));
  const executor = { ...options, journal, gid };
  // Awaited here: the journal closes when this function returns.
  switch (request.request) {
    case "follow":
      return await follow(request.command, executor);
    case "identify":
      identify(request.host, executor);
      return "ended";
    case "run":
      if (!separated) log("not started by systemd as root: the privilege split is absent");
      return await run(request, executor);
  }
}

function standingOf(state: OperationState | undefined): "open" | "ended" | "unknown" {
  if (state === undefined) return "unknown";
  return isTerminal(state) ? "ended" : "open";
}

async function follow(id: string, executor: Executor): Promise<ExecutorEnd> {
  const { journal, paths, host, gid } = executor;
  const path = operationSocketPath(paths.runDirectory, id);
  const bound = await journal.exclusively(async () => {
    if (journal.operation(id) === undefined)
      throw new BedplateError("executor.failed", `This host's journal knows no operation ${id}.`);
    if (await isListening(path)) return "noted";
    journal.setServer(id, "follow");
    return bindFollowers(host.files, path, gid);
  });
  return bound === "noted" ? "noted" : replay(id, bound, executor);
}

/** Serves what the journal has until nobody follows, or until an executor that runs the operation takes over. */
async function replay(
  id: string,
  bound: Followers,
  { journal, paths, host, stopping }: Executor,
): Promise<ExecutorEnd> {
  using output = openSpoolOf(host.files, paths.stateDirectory, id);
  await using followers = bound;
  followers.serve(
    {
      replay: (afterSeq) => journal.events(id, afterSeq),
      cancel: () => ({ answer: "too-late", reason: "the operation does not run" }),
      output,
    },
    host.clock,
  );
  await followers.drained(host.clock, stopping, () => journal.operation(id)?.server !== "follow");
  return "ended";
}

/** Says to whoever asked that the journal does not know the operation. */
async function tellNotKnown(
  error: ErrorReport,
  id: string,
  bound: Followers,
  { paths, host, stopping }: Executor,
): Promise<ExecutorEnd> {
  using output = openSpoolOf(host.files, paths.stateDirectory, id);
  await using followers = bound;
  const told: JournalledEvent = {
    type: "refused",
    seq: 1,
    at: host.clock.now(),
    error: boundedReport(errorOf(error)),
  };
  const cancel = () => ({ answer: "too-late", reason: "the operation is not known" }) as const;
  followers.serve({ replay: () => [told], cancel, output }, host.clock);
  await followers.drained(host.clock, stopping);
  return "ended";
}

/** Publishes who this executor is. @returns what it signs with, the policy, and the machine's names, all as of now */
function identify(hostId: string, { paths, user, separated, host }: Executor) {
  const key = openAttestationKey(host.files, paths.stateDirectory, user);
  const loaded = loadedPolicy(host.files, paths.policy, user);
  const names = readMachineNames(host.facts());
  const identity = identityOf({
    host: hostId,
    key,
    policyState: loaded.facts.state,
    policyDigest: loaded.policy.digest,
    separated,
    ...names,
  });
  publishIdentity(host.files, paths.runDirectory, identity);
  return { key, loaded, names };
}

/** @throws `executor.failed`, which the audit tells of: there is no id to keep it under */
function documentOf(request: RunRequest, { journal, host }: Executor): Document {
  try {
    return readDocument(request.document);
  } catch (error) {
    auditGarbage(journal, error, host.clock.now());
    throw error;
  }
}

/** Whoever sends garbage is noted once, not each time: it must not push out what else is in the audit. */
function auditGarbage(journal: Journal, error: unknown, at: number): void {
  const { code, message } = boundedReport(error);
  const [last] = journal.audit(1).lines;
  const { event, command } = last === undefined ? {} : (JSON.parse(last.text) as Partial<HostAuditEntry>);
  if (event === "refused" && command === null) return;
  const detail = { code, message: message.slice(0, 512) };
  journal.appendAudit({ at, event: "refused", command: null, kind: null, detail });
}

/** Tells the audit of a request that is none. @throws `state.unsafe`, `executor.failed` */
export function refuseRequest(
  error: unknown,
  { paths, user, host }: Omit<ExecutorOptions, "stopping">,
): void {
  requirePrivateDirectory(host.files, paths.stateDirectory, user);
  using journal = openJournal(paths.stateDirectory);
  auditGarbage(journal, error, host.clock.now());
}

async function run(request: RunRequest, executor: Executor): Promise<ExecutorEnd> {
  const { paths, host, stopping, log, gid } = executor;
  const document = documentOf(request, executor);
  const { id } = document;
  const path = operationSocketPath(paths.runDirectory, id);
  const { key, loaded, names } = identify(request.host, executor);
  const audit = createAuditLog(executor.journal, {
    host: request.host,
    key,
    at: () => host.clock.now(),
  });
  const journal = auditedJournal(executor.journal, audit, subjectOf(document));
  const reads = !("decoded" in document.command) || document.command.effect === "read";
  const { facts: policy } = loaded;
  const offer: Offer = {
    request,
    document,
    names,
    policy,
    policyDigest: loaded.policy.digest,
    signatures:
      reads || policy.state === "unusable"
        ? noSignatures
        : await checkSignatures(request.signatures, document.bytes, policy.rules),
  };
  const standing = standingOf(journal.operation(id)?.state);
  const idle = standing === "ended" || (standing === "unknown" && request.onlyKnown === true);
  using turn = openLaneTurn({ id, reads, idle, journal, paths, host });
  const leftover = await endLeftoverOf(id, executor);

  for (let tries = 0; ; tries++) {
    const begun = await journal.exclusively(async () => {
      const nowMs = host.clock.now();
      const admission = withLeftover(decide(journal, offer, await turn.facts(), nowMs), leftover);
      if (admission.do !== "conflict" && (await isListening(path))) {
        if (!onlyReplayed(journal, id)) return "noted";
        // Only a replay of what came before: it makes room when it sees this.
        journal.setServer(id, "run");
        return "taking-over";
      }
      // Its socket is gone, or it is just about to go itself: either way it is not repeated beside it.
      if (
        (admission.do === "resume" || admission.do === "conclude") &&
        executorLives(journal.notes(id), host)
      )
        return tries < takeoverTriesMax ? "taking-over" : "noted";
      if (isHeldByNobodyKnown(admission) && tries < laneTriesMax) return "taking-over";
      recordAdmission(journal, audit, offer, admission, nowMs);
      if (admission.do === "conflict") return admission;
      if (admission.do === "start" || admission.do === "resume") noteExecutor(journal.notes(id), host);
      return { admission, followers: await bindFollowers(host.files, path, gid) };
    });
    if (begun === "noted") return "noted";
    if (begun === "taking-over") {
      if (tries >= takeoverTriesMax)
        throw new BedplateError(
          "executor.failed",
          `The executor that replays operation ${id} does not make room.`,
        );
      await host.clock.sleep(takeoverPollMs, stopping);
      continue;
    }
    if ("do" in begun) {
      log(`${begun.error.code}: ${begun.error.message}`);
      return "conflict";
    }
    const { admission, followers } = begun;
    log(`${id}: ${admission.do}${"error" in admission ? ` ${admission.error.code}` : ""}`);
    if (admission.do === "not-known") return await tellNotKnown(admission.error, id, followers, executor);
    if (admission.do !== "start" && admission.do !== "resume") {
      turn.release();
      return await replay(id, followers, executor);
    }
    if (admission.lane === "wait") turn.release();
    assert("decoded" in document.command, "only a command that was read is started");
    const started: StartedOffer = { offer, command: document.command, loaded, key, audit, turn };
    return await startOperation(started, followers, { ...executor, journal });
  }
}

/** Who has the lane has not told yet, or has ended and is about to give it back: an executor of this very command perhaps. */
function isHeldByNobodyKnown(admission: Admission): boolean {
  return (
    admission.do === "refuse" &&
    admission.error.code === "executor.lane-busy" &&
    admission.error.details?.running === null
  );
}
