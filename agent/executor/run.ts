// What an executor does with its one request: admit, journal, serve the operation's socket, run, wait for the followers.
import { equalBytes } from "../../protocol/bytes.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { assert, BedplateError, type ErrorReport, errorOf } from "../../protocol/errors.ts";
import type { Host } from "../commands/command.ts";
import { listDisks } from "../devices/disks.ts";
import type { Facts } from "../devices/facts.ts";
import type { Files } from "../host/files.ts";
import { type Admission, admit } from "./admit.ts";
import { type ExecutorPaths, type ExecutorRequest, operationSocketPath } from "./contract.ts";
import { requirePrivateDirectory, requireRunDirectory } from "./directories.ts";
import { type Document, readDocument } from "./document.ts";
import { bindFollowers, type FollowerHooks, type Followers, isListening } from "./followers.ts";
import { type Journal, keptMs, openJournal } from "./journal.ts";
import { takeLane } from "./lane.ts";
import { boundedReport, createOperation } from "./operation.ts";
import { loadPolicy, type Policy } from "./policy.ts";

export interface ExecutorOptions {
  readonly paths: ExecutorPaths;
  /** The effective user. */
  readonly user: number;
  readonly host: Host;
  readonly stopping: AbortSignal;
  readonly log: (text: string) => void;
}

/**
 * `noted`: another executor has the operation. `conflict`: the id belongs to another command, whose record is untouched.
 * `interrupted`: told to stop, to be resumed.
 */
export type ExecutorEnd = "ended" | "noted" | "conflict" | "interrupted";

type RunRequest = Extract<ExecutorRequest, { request: "run" }>;

const lanePollMs = 250;
const takeoverPollMs = 100;
const takeoverTriesMax = 50;

/** @throws `state.unsafe`, `executor.failed`: what no journal could take */
export async function execute(request: ExecutorRequest, options: ExecutorOptions): Promise<ExecutorEnd> {
  const { paths, user, host } = options;
  requirePrivateDirectory(host.files, paths.stateDirectory, user);
  const gid = requireRunDirectory(host.files, paths.runDirectory, user);
  using journal = openJournal(paths.stateDirectory);
  journal.prune(host.clock.now() - keptMs);
  // Awaited here: the journal closes when this function returns.
  if (request.request === "follow") return await follow(request.command, { ...options, journal, gid });
  return await run(request, { ...options, journal, gid });
}

interface Executor extends ExecutorOptions {
  readonly journal: Journal;
  readonly gid: number;
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
  { journal, host, stopping }: Executor,
): Promise<ExecutorEnd> {
  await using followers = bound;
  followers.serve(replayHooks(journal, id));
  await followers.drained(host.clock, stopping, () => journal.operation(id)?.server !== "follow");
  return "ended";
}

function replayHooks(journal: Journal, id: string): FollowerHooks {
  return {
    replay: (afterSeq) => journal.events(id, afterSeq),
    cancel: () => ({ answer: "too-late", reason: "the operation does not run" }),
  };
}

async function run(request: RunRequest, executor: Executor): Promise<ExecutorEnd> {
  const { journal, paths, host, user, stopping, log, gid } = executor;
  const document = readDocument(request.document);
  const { id } = document;
  const path = operationSocketPath(paths.runDirectory, id);
  const policy = readPolicy(host.files, paths.policy, user);
  const needsLane = "decoded" in document.command && document.command.effect !== "read";
  using lane = new DisposableStack();
  let laneNow = needsLane ? takeLane(paths.stateDirectory) : undefined;
  if (typeof laneNow === "object") lane.use(laneNow);

  for (let tries = 0; ; tries++) {
    const begun = await journal.exclusively(async () => {
      const known = journal.operation(id);
      const admission = admit({
        nowMs: host.clock.now(),
        host: request.host,
        epoch: request.epoch,
        epochSeen: journal.epochSeen(),
        command: document.command,
        known: known && { ...known, sameDocument: equalBytes(known.digest, document.digest) },
        policy,
        lane: !needsLane
          ? "not-needed"
          : laneNow === "busy"
            ? { busyWith: journal.otherRunning(id) }
            : "taken",
      });
      if (admission.do === "conflict") return admission;
      if (await isListening(path)) {
        if (known?.server !== "follow" || isTerminal(known.state)) return "noted";
        // Only a replay of what came before: it makes room when it sees this.
        journal.setServer(id, "run");
        return "taking-over";
      }
      record(journal, document, request, admission, host.clock.now());
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
    const { admission } = begun;
    log(`${id}: ${admission.do}`);
    if (admission.do !== "start" && admission.do !== "resume") {
      lane.dispose();
      return await replay(id, begun.followers, executor);
    }
    assert("decoded" in document.command, "only a command that was read is started");
    const command = document.command.decoded;
    await using followers = begun.followers;
    const operation = createOperation({
      command,
      journal,
      followers,
      clock: host.clock,
      stopping,
      async ready(signal) {
        // Also for what was accepted before: the policy may have changed since.
        if (policy.state === "unusable") throw errorOf(policy.error);
        if (policy.denyKinds.includes(command.kind)) throw denied(command.kind);
        while (laneNow === "busy") {
          await host.clock.sleep(lanePollMs, signal);
          laneNow = takeLane(paths.stateDirectory);
          if (typeof laneNow === "object") lane.use(laneNow);
        }
      },
      context: {
        host,
        policy: policy.state === "unusable" ? { ...policy, state: "missing" } : policy,
        sources: request.sources,
        ca: request.ca,
        notes: journal.notes(id),
        disks: (facts) => disksNow(facts, host.files, policy, paths),
        log,
      },
    });
    followers.serve({
      replay: (afterSeq) => journal.events(id, afterSeq),
      cancel: (reason) => operation.cancel(reason),
    });
    const end = await operation.run();
    lane.dispose();
    log(`${id}: ${end}`);
    if (end === "ended") await followers.drained(host.clock, stopping);
    return end;
  }
}

function record(
  journal: Journal,
  { id, bytes, digest, command }: Document,
  request: RunRequest,
  admission: Admission,
  at: number,
): void {
  const add = (event: Parameters<Journal["add"]>[1]) =>
    journal.add(
      {
        id,
        digest,
        document: bytes,
        kind: "decoded" in command ? command.decoded.kind : "unknown",
        effect: "decoded" in command ? command.effect : "read",
        epoch: request.epoch,
        generation: request.generation,
        at,
      },
      event,
    );
  switch (admission.do) {
    case "start":
      add({ type: "accepted", at });
      break;
    case "refuse":
      add({
        type: "refused",
        at,
        error: boundedReport(
          new BedplateError(admission.error.code, admission.error.message, admission.error),
        ),
      });
      break;
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
    case "conflict":
  }
  journal.setServer(id, admission.do === "start" || admission.do === "resume" ? "run" : "follow");
}

type UnusablePolicy = Omit<Policy, "state"> & { readonly state: "unusable"; readonly error: ErrorReport };

function readPolicy(files: Files, path: string, user: number): Policy | UnusablePolicy {
  try {
    return loadPolicy(files, path, user);
  } catch (error) {
    return {
      path,
      state: "unusable",
      error: boundedReport(error),
      fileDisks: [],
      denyKinds: [],
      allows: () => false,
    };
  }
}

function denied(kind: string): BedplateError {
  return new BedplateError("policy.denied", `This host's policy denies ${kind}.`, { details: { kind } });
}

function disksNow(facts: Facts, files: Files, policy: Policy | UnusablePolicy, paths: ExecutorPaths) {
  return listDisks({
    facts,
    files,
    fileDisks: policy.fileDisks,
    allows: (disk) => policy.allows(disk),
    protectedPaths: ["/", paths.stateDirectory],
  });
}
