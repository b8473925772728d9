// Commands: the document that is asked for (and, later, signed), its kinds, and what each returns.
import Type, { type Static } from "typebox";
import { textOf, utf8 } from "./bytes.ts";
import { checkDiskSelector } from "./disks.ts";
import { BedplateError } from "./errors.ts";
import {
  DeployApply,
  type DeployArguments,
  DeployPlan,
  type DeployPlanArguments,
  type PlannedDisk,
  VerifyArguments,
} from "./image-commands.ts";
import { InventoryArguments } from "./inventory.ts";
import { limits } from "./limits.ts";
import { Outcome } from "./outcome.ts";
import { PlanArtefact, PlanQuote } from "./plans.ts";
import { CommandId, Count, checker, Digest, HostId, Report, UnixMs } from "./schema.ts";

export * from "./image-commands.ts";
export { Outcome } from "./outcome.ts";

/** What a crash means for a kind: see the delivery contract in README.md. */
export type Effect = "read" | "idempotent" | "resumable" | "once";

const Nothing = Type.Object({}, { additionalProperties: false });

/** A program with its arguments: no shell reads it. */
const Exec = Type.Object(
  {
    /** The program's absolute path first. */
    argv: Type.Array(Type.String({ maxLength: 16 * 1024, pattern: "^[^\\u0000]*$" }), {
      minItems: 1,
      maxItems: 256,
    }),
    /** Where it starts; `/` if absent. */
    directory: Type.Optional(Type.String({ pattern: "^/", maxLength: 4096 })),
    /** Beside the clean environment that every program gets. */
    environment: Type.Optional(
      Type.Record(
        Type.String({ pattern: "^[A-Za-z_][A-Za-z0-9_]{0,127}$" }),
        Type.String({ maxLength: 16 * 1024, pattern: "^[^\\u0000]*$" }),
        { maxProperties: 64 },
      ),
    ),
    /** More output than this ends it; without it, it may go on and the newest output is kept. */
    outputBytesMax: Type.Optional(Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })),
  },
  { additionalProperties: false },
);

const Reason = Type.Optional(Type.String({ maxLength: 256 }));
const Reboot = Type.Object(
  {
    reason: Reason,
    /** Seconds within which the host must be back with another boot id; 900 if absent. */
    deadlineSeconds: Type.Optional(Type.Integer({ minimum: 10, maximum: 86_400 })),
  },
  { additionalProperties: false },
);
const PowerOff = Type.Object({ reason: Reason }, { additionalProperties: false });

const Logs = Type.Object(
  {
    /** `agent`: the resident daemon's own lines. `executor`: the end of what executors logged. */
    source: Type.Union([Type.Literal("agent"), Type.Literal("executor")]),
    /** The newest so many, at most. */
    lines: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })),
  },
  { additionalProperties: false },
);

/**
 * Every kind of command: where it runs, what a crash means, and the schema of its arguments.
 * A kind that destroys has a `plan` beside its `apply`: the plan is a read and returns what apply must quote.
 */
export const commandKinds = {
  "agent.logs": { runs: "agent", effect: "read", apply: Logs },
  "agent.ping": { runs: "agent", effect: "read", apply: Nothing },
  "host.exec": { runs: "executor", effect: "once", apply: Exec, plan: Exec },
  "host.inventory": { runs: "executor", effect: "read", apply: InventoryArguments },
  "host.poweroff": { runs: "executor", effect: "resumable", apply: PowerOff, plan: PowerOff },
  "host.reboot": { runs: "executor", effect: "resumable", apply: Reboot, plan: Reboot },
  "image.deploy": {
    ...{ runs: "executor", effect: "resumable", pauses: true },
    ...{ apply: DeployApply, plan: DeployPlan },
  },
  "image.verify": { runs: "executor", effect: "read", pauses: true, apply: VerifyArguments },
} as const satisfies Record<
  string,
  {
    runs: "agent" | "executor";
    effect: Effect;
    /** Whether its apply has points at which it can wait. */
    pauses?: true;
    apply: Type.TSchema;
    plan?: Type.TSchema;
  }
>;

export type CommandKind = keyof typeof commandKinds;
export type ExecArguments = Static<typeof Exec>;
export type RebootArguments = Static<typeof Reboot>;
export type PowerOffArguments = Static<typeof PowerOff>;
export type LogsArguments = Static<typeof Logs>;

export function isCommandKind(kind: string): kind is CommandKind {
  return Object.hasOwn(commandKinds, kind);
}

/** The document's envelope; `arguments` are checked by the kind's own schema. */
const Envelope = Type.Object(
  {
    bedplate: Type.Literal("command/1"),
    id: CommandId,
    host: HostId,
    kind: Type.String({ maxLength: 64 }),
    mode: Type.Union([Type.Literal("apply"), Type.Literal("plan")]),
    arguments: Type.Record(Type.String(), Type.Unknown()),
    limits: Type.Object(
      {
        /** Not started after this moment. */
        notAfter: Type.Optional(UnixMs),
        /** Seconds it may wait for another operation to end; without it, it is refused where another one runs. */
        startWithinSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 30 * 86_400 })),
        /** Seconds that the operation may run, by the host's monotonic clock. */
        runForSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 30 * 86_400 })),
        /** Seconds without progress after which it ends as timed out. */
        stallAfterSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
        /** What happens while the host has no link: `continue` if absent; the others only before the point of no return. */
        onLinkLost: Type.Optional(
          Type.Union([Type.Literal("continue"), Type.Literal("pause"), Type.Literal("abort")]),
        ),
      },
      { additionalProperties: false },
    ),
    /** The plan that an apply carries out. */
    plan: Type.Optional(PlanQuote),
  },
  { additionalProperties: false },
);

export type CommandLimits = Static<typeof Envelope>["limits"];

interface CommandBase {
  readonly id: string;
  readonly host: string;
  readonly limits: CommandLimits;
  readonly plan?: PlanQuote;
}

export type Command =
  | (CommandBase & {
      readonly kind: "agent.logs";
      readonly mode: "apply";
      readonly arguments: LogsArguments;
    })
  | (CommandBase & {
      readonly kind: "host.exec";
      readonly mode: "plan" | "apply";
      readonly arguments: ExecArguments;
    })
  | (CommandBase & {
      readonly kind: "host.reboot";
      readonly mode: "plan" | "apply";
      readonly arguments: RebootArguments;
    })
  | (CommandBase & {
      readonly kind: "host.poweroff";
      readonly mode: "plan" | "apply";
      readonly arguments: PowerOffArguments;
    })
  | (CommandBase & {
      readonly kind: "agent.ping";
      readonly mode: "apply";
      readonly arguments: Record<string, never>;
    })
  | (CommandBase & {
      readonly kind: "host.inventory";
      readonly mode: "apply";
      readonly arguments: InventoryArguments;
    })
  | (CommandBase & {
      readonly kind: "image.deploy";
      readonly mode: "plan";
      readonly arguments: DeployPlanArguments;
    })
  | (CommandBase & {
      readonly kind: "image.deploy";
      readonly mode: "apply";
      readonly arguments: DeployArguments;
    })
  | (CommandBase & {
      readonly kind: "image.verify";
      readonly mode: "apply";
      readonly arguments: VerifyArguments;
    });

/** The command of one kind, for its handler. */
export type CommandOf<K extends CommandKind> = Extract<Command, { kind: K }>;

const checkEnvelope = checker(Envelope, "command.bad-arguments", "command");
const checkArguments = Object.fromEntries(
  Object.entries(commandKinds).map(([kind, { apply, ...rest }]) => [
    kind,
    {
      apply: checker(apply, "command.bad-arguments", `arguments of ${kind}`),
      plan: "plan" in rest ? checker(rest.plan, "command.bad-arguments", `arguments of ${kind}`) : undefined,
    },
  ]),
);

/** The exact bytes that are hashed, signed, stored and sent for a command. */
export function encodeCommand(command: Command): Uint8Array {
  return utf8(JSON.stringify({ bedplate: "command/1", ...command }, undefined, 2));
}

/**
 * Reads a command document, the very bytes received.
 * @throws `command.bad-arguments`, `command.unknown-kind`, `frame.too-large`
 */
export function decodeCommand(bytes: Uint8Array): Command {
  if (bytes.length > limits.commandBytesMax) {
    throw new BedplateError(
      "frame.too-large",
      `The command has ${bytes.length} bytes; at most ${limits.commandBytesMax} are taken.`,
    );
  }
  let value: unknown;
  try {
    value = JSON.parse(textOf(bytes));
  } catch (cause) {
    throw new BedplateError("command.bad-arguments", "The command is not a JSON document.", { cause });
  }
  const { bedplate: _, ...command } = checkEnvelope(value);
  if (!isCommandKind(command.kind)) {
    throw new BedplateError("command.unknown-kind", `The command kind "${command.kind}" is not known here.`, {
      hint: `Known kinds: ${Object.keys(commandKinds).join(", ")}.`,
    });
  }
  const check = checkArguments[command.kind]![command.mode];
  if (check === undefined) {
    throw new BedplateError("command.bad-arguments", `${command.kind} destroys nothing and has no plan.`, {
      hint: 'Send it with "mode": "apply".',
    });
  }
  check(command.arguments);
  for (const { disk } of disksOf(command.arguments)) checkDiskSelector(disk);
  return command as Command;
}

/** The disks that a command names, whatever its kind. */
export function disksOf(given: object): readonly PlannedDisk[] {
  if (!("disk" in given)) return [];
  const { disk, overrides, also = [] } = given as PlannedDisk & { readonly also?: readonly PlannedDisk[] };
  return [{ disk, ...(overrides === undefined ? {} : { overrides }) }, ...also];
}

/** What a crash means for this command: planning is always a read. */
export function effectOf(command: Pick<Command, "kind" | "mode">): Effect {
  return command.mode === "plan" ? "read" : commandKinds[command.kind].effect;
}

/** Whether an operator may pause it: its work goes in small steps, between which it can wait as long as it has to. */
export function isPausable({ kind, mode }: { readonly kind: string; readonly mode: string }): boolean {
  return mode === "apply" && isCommandKind(kind) && "pauses" in commandKinds[kind];
}

/** States of an operation, in the order they can follow. The last five are terminal. */
export const operationStates = [
  "waiting",
  "offered",
  "received",
  "accepted",
  "running",
  "refused",
  "succeeded",
  "failed",
  "cancelled",
  "timed-out",
  "indeterminate",
] as const;
export type OperationState = (typeof operationStates)[number];

export function isTerminal(state: OperationState): boolean {
  switch (state) {
    case "waiting":
    case "offered":
    case "received":
    case "accepted":
    case "running":
      return false;
    case "refused":
    case "succeeded":
    case "failed":
    case "cancelled":
    case "timed-out":
    case "indeterminate":
      return true;
  }
}

/** How an operation ended. `output` is the kind's own, `error` is set unless it succeeded. */
export const Result = Type.Object({
  outcome: Outcome,
  startedAt: UnixMs,
  endedAt: UnixMs,
  output: Type.Optional(Type.Unknown()),
  error: Type.Optional(Report),
});
export type Result = Static<typeof Result>;

export const Progress = Type.Object({
  /** What is being done, one word: fetch, write, verify, seal. */
  phase: Type.String({ maxLength: 32 }),
  done: Count,
  total: Count,
  unit: Type.Union([Type.Literal("bytes"), Type.Literal("groups"), Type.Literal("items")]),
  /** Units a second, lately. */
  rate: Type.Number({ minimum: 0 }),
  secondsLeft: Type.Union([Type.Number({ minimum: 0 }), Type.Null()]),
  /** It waits at its next safe point: an operator has paused it, or its link is lost and the command says so. */
  paused: Type.Optional(Type.Boolean()),
  /** Where the work goes from one thing to the next: which one it is at. */
  at: Type.Optional(Type.Object({ number: Count, of: Count, name: Type.String({ maxLength: 256 }) })),
});
export type Progress = Static<typeof Progress>;

/** Output of agent.ping; the event loop's delay is that since the ping before. */
export const Ping = Type.Object({
  at: UnixMs,
  uptimeSeconds: Type.Number(),
  eventLoopDelayP99Ms: Type.Number(),
  residentBytes: Count,
});
export type Ping = Static<typeof Ping>;

/** Output of every kind in mode plan: the signed plan. Kinds add what their handler found. */
export const PlanOutput = Type.Object({ artefact: PlanArtefact });
export type PlanOutput = Static<typeof PlanOutput>;

const Seconds = Type.Number({ minimum: 0 });

/** Output of host.exec, also when the program failed. */
export const ExecOutput = Type.Object({
  /** Null when a signal ended it. */
  exitCode: Type.Union([Count, Type.Null()]),
  signal: Type.Union([Type.String(), Type.Null()]),
  stdoutBytes: Count,
  stderrBytes: Count,
  /** Of all output, both streams, in the order it came: length, and BLAKE3 as `b3sum` prints it. */
  bytes: Count,
  digest: Digest,
  /** The newest output as text; `truncated` when there was more before it. */
  tail: Type.Object({ text: Type.String(), truncated: Type.Boolean() }),
  /** Whether the kernel ends the program with the executor. */
  endsWithExecutor: Type.Boolean(),
  /**
   * How all that it had started was found at its end: `cgroup`, nothing gets out of that by itself; `descent`, its group,
   * what carries its variable, and their children: what has left all of these lives on.
   */
  confinedBy: Type.Optional(Type.Union([Type.Literal("cgroup"), Type.Literal("descent")])),
  seconds: Seconds,
});
export type ExecOutput = Static<typeof ExecOutput>;

/** Output of host.reboot and host.poweroff: the boot that was left, and the one that followed. */
export const RebootOutput = Type.Object({
  fromBootId: Type.String(),
  bootId: Type.String(),
  seconds: Seconds,
});
export type RebootOutput = Static<typeof RebootOutput>;

/** Output of agent.logs, oldest first. */
export const LogsOutput = Type.Object({
  source: Logs.properties.source,
  lines: Type.Array(Type.String({ maxLength: 16 * 1024 }), { maxItems: 1000 }),
  /** There were more before these. */
  truncated: Type.Boolean(),
});
export type LogsOutput = Static<typeof LogsOutput>;

export const OutputStream = Type.Union([Type.Literal("stdout"), Type.Literal("stderr")]);
export type OutputStream = Static<typeof OutputStream>;

/** Longest piece of output that travels at once, before base64. */
export const outputPieceBytesMax = 32 * 1024;
