// What the agent and the executor process say to each other: one request on the executor's standard input, then events
// over the operation's own socket, replayed from the journal at any offset.
import Type, { type Static } from "typebox";
import { AuditHead } from "../../protocol/audit.ts";
import { OutputStream, Progress, Result } from "../../protocol/commands.ts";
import { ImageSource } from "../../protocol/messages.ts";
import { CommandId, Count, checker, HostId, Report, UnixMs } from "../../protocol/schema.ts";

/** The one JSON document on the executor's standard input, ended by a newline or the end of input. */
export const ExecutorRequest = Type.Union([
  Type.Object({
    request: Type.Literal("run"),
    /** The command document's very bytes, base64. */
    document: Type.String({ maxLength: 512 * 1024 }),
    signatures: Type.Array(Type.String()),
    generation: Count,
    epoch: Count,
    sources: Type.Array(ImageSource),
    /** PEM of the authority that https sources must be signed by. */
    ca: Type.String(),
    /** The host's own id: a command that names another is refused. */
    host: HostId,
    /** Begin nothing that the journal does not know: then the one event is a refusal `command.not-known`, and nothing is kept. */
    onlyKnown: Type.Optional(Type.Literal(true)),
  }),
  /** Replay the journal of an operation whose executor is gone, for whoever attaches; start nothing. */
  Type.Object({ request: Type.Literal("follow"), command: CommandId }),
  /** Publish the executor's identity in the run directory, where it is not there or not of now. */
  Type.Object({ request: Type.Literal("identify"), host: HostId }),
]);
export type ExecutorRequest = Static<typeof ExecutorRequest>;
export const checkExecutorRequest = checker(ExecutorRequest, "executor.failed", "request to the executor");

/**
 * One line of JSON, from executor to follower. Journalled events have a `seq` that counts from 1 within the operation;
 * progress has none and is never replayed. `refused` and `result` are the last of their operation.
 */
export const ExecutorEvent = Type.Union([
  Type.Object({ type: Type.Literal("accepted"), seq: Count, at: UnixMs, audit: Type.Optional(AuditHead) }),
  Type.Object({
    type: Type.Literal("refused"),
    seq: Count,
    at: UnixMs,
    error: Report,
    audit: Type.Optional(AuditHead),
  }),
  /** `run` counts from 1; above 1 the operation is resumed after its executor died. */
  Type.Object({ type: Type.Literal("running"), seq: Count, at: UnixMs, run: Count }),
  Type.Object({
    type: Type.Literal("result"),
    seq: Count,
    at: UnixMs,
    result: Result,
    audit: Type.Optional(AuditHead),
  }),
  /** A piece of the program's output, base64, from the spool: not numbered, but replayed from any offset that is kept. */
  Type.Object({
    type: Type.Literal("output"),
    stream: OutputStream,
    offset: Count,
    data: Type.String({ maxLength: 64 * 1024 }),
  }),
  Type.Object({ type: Type.Literal("progress"), progress: Progress }),
  /** Answer to a follower's cancel. */
  Type.Object({
    type: Type.Literal("cancel"),
    answer: Type.Union([Type.Literal("cancelling"), Type.Literal("too-late")]),
    reason: Type.String(),
  }),
]);
export type ExecutorEvent = Static<typeof ExecutorEvent>;
export const checkExecutorEvent = checker(ExecutorEvent, "executor.failed", "event of the executor");

/** One line of JSON, from follower to executor: `attach` first, then perhaps `cancel` and `pause`, and `link` at each change. */
export const FollowerRequest = Type.Union([
  Type.Object({
    attach: Type.Object({
      afterSeq: Count,
      /** Output before this offset is had already; absent: none is wanted. */
      afterOutput: Type.Optional(Count),
    }),
  }),
  Type.Object({ link: Type.Union([Type.Literal("up"), Type.Literal("down")]) }),
  Type.Object({ cancel: Type.Object({ reason: Type.String({ maxLength: 1024 }) }) }),
  /** What an operator said last. Not answered: the progress tells. */
  Type.Object({ pause: Type.Object({ paused: Type.Boolean() }) }),
]);
export type FollowerRequest = Static<typeof FollowerRequest>;
export const checkFollowerRequest = checker(FollowerRequest, "executor.failed", "request of a follower");

/** Longest line either way. */
export const lineBytesMax = 1 << 20;

/** Where an operation's executor listens. */
export function operationSocketPath(runDirectory: string, commandId: string): string {
  return `${runDirectory}/operations/${commandId}.sock`;
}

/** Where the executor publishes who it is: `ExecutorIdentity` of protocol/identity.ts, readable by all. */
export function identityPath(runDirectory: string): string {
  return `${runDirectory}/identity.json`;
}

export interface ExecutorPaths {
  readonly policy: string;
  /** journal.db and lane.db */
  readonly stateDirectory: string;
  /** operations/ID.sock */
  readonly runDirectory: string;
}

/** Fixed with effective uid 0: neither argument nor environment changes them. Else given as arguments by the agent. */
export const rootPaths: ExecutorPaths = {
  policy: "/etc/bedplate/policy.toml",
  stateDirectory: "/var/lib/bedplate/executor",
  runDirectory: "/run/bedplate",
};
