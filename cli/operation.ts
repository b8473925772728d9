// One command on one host, from its id to its last state, with progress on the terminal.
import type { Static, TSchema } from "typebox";
import type { CommandView, HostView } from "../protocol/api.ts";
import {
  type Command,
  type CommandKind,
  type CommandLimits,
  encodeCommand,
  isTerminal,
} from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { PlanQuote } from "../protocol/plans.ts";
import { checker } from "../protocol/schema.ts";
import type { ApiClient } from "./api-client.ts";
import { deadline, mintCommandId, monotonic, now } from "./clock.ts";
import { errorOfReport } from "./context.ts";
import { follow } from "./follow.ts";
import { formatSeconds, plain, progressLine } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export interface OperationOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  /** The host: name, id or the beginning of an id. */
  readonly reference: string;
  readonly kind: CommandKind;
  readonly mode?: "plan" | "apply";
  readonly arguments?: Readonly<Record<string, unknown>>;
  /** How long it may wait to start and then run; the host enforces both. */
  readonly timeoutSeconds?: number;
  readonly limits?: Pick<CommandLimits, "startWithinSeconds" | "onLinkLost">;
  readonly plan?: PlanQuote;
  /** Makes one signature over the document's bytes, before it is sent. */
  readonly sign?: (document: Uint8Array) => Promise<string>;
  /** So many signatures are needed; the command is held until it has them. */
  readonly signaturesWanted?: number;
  /** While signatures are missing: true follows it all the same, else it is left to wait. */
  readonly wait?: boolean;
  readonly onView?: (view: CommandView) => void;
  /** Something to do while it runs; ends by itself when the command does, or when `until` aborts. */
  readonly alongside?: (id: string, until: AbortSignal) => Promise<void>;
}

export interface Operation {
  readonly host: HostView;
  readonly view: CommandView;
}

/** What waits for a host that is away is waited for this long beyond its limits before we say that it timed out. */
const graceMs = 10_000;
/** What runs alongside may end this long after the command. */
const alongsideMs = 10_000;

/** Whether it waits for operators' signatures. */
export function lacksSignatures(
  view: Pick<CommandView, "state" | "signatures" | "signaturesWanted">,
): boolean {
  return view.state === "waiting" && view.signatures.length < view.signaturesWanted;
}

/**
 * Runs it to its last state, or until it waits for others' signatures.
 * @throws `agent.offline`, `host.pending` before anything is sent; `command.timed-out` when even its last state does not come
 */
export async function operate(options: OperationOptions): Promise<Operation> {
  const { client, terminal, signal, timeoutSeconds } = options;
  const host = await client.host(options.reference);
  requireReady(host);
  const id = mintCommandId();
  // Whoever else must sign needs time; the plan's end bounds it then.
  const held = (options.signaturesWanted ?? 0) > (options.sign === undefined ? 0 : 1);
  const command = {
    id,
    host: host.id,
    kind: options.kind,
    mode: options.mode ?? "apply",
    arguments: options.arguments ?? {},
    limits: {
      ...(timeoutSeconds === undefined
        ? {}
        : { ...(held ? {} : { notAfter: now() + timeoutSeconds * 1000 }), runForSeconds: timeoutSeconds }),
      ...options.limits,
    },
    ...(options.plan === undefined ? {} : { plan: options.plan }),
  } as Command;
  const signatures = options.sign === undefined ? [] : [await options.sign(encodeCommand(command))];
  const patienceMs =
    2 * (timeoutSeconds ?? 0) * 1000 + (options.limits?.startWithinSeconds ?? 0) * 1000 + graceMs;
  using patience = timeoutSeconds === undefined || held ? undefined : deadline(patienceMs, notEnded(id));
  const until = patience === undefined ? signal : AbortSignal.any([signal, patience.signal]);
  const started = monotonic();
  const onView = (seen: CommandView) => {
    options.onView?.(seen);
    if (isTerminal(seen.state)) return;
    const elapsed = formatSeconds((monotonic() - started) / 1000);
    terminal.status(
      seen.progress === null
        ? `${options.kind}: ${seen.state}${seen.reason === null ? "" : `, ${plain(seen.reason)}`} (${elapsed})`
        : progressLine(seen.progress, terminal.columns),
    );
  };
  try {
    const first = await client.submit(command, {
      signatures,
      ...(options.signaturesWanted === undefined ? {} : { signaturesWanted: options.signaturesWanted }),
    });
    onView(first);
    if (isTerminal(first.state) || (lacksSignatures(first) && options.wait !== true))
      return { host, view: first };
    const view = await beside(options.alongside, id, until, () => follow(client, id, until, onView));
    return { host, view };
  } catch (error) {
    patience?.signal.throwIfAborted();
    throw signal.aborted ? detached(id) : error;
  } finally {
    terminal.status("");
  }
}

/** Runs `work` with `alongside` beside it, which gets a moment more to come to its end. */
async function beside<T>(
  alongside: OperationOptions["alongside"],
  id: string,
  until: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  if (alongside === undefined) return work();
  const stop = new AbortController();
  const other = alongside(id, AbortSignal.any([until, stop.signal]));
  // What it throws counts when the work is done.
  other.catch(() => {});
  try {
    const done = await work();
    using late = deadline(
      alongsideMs,
      new BedplateError("command.cancelled", "Its output has not ended in time."),
    );
    late.signal.addEventListener("abort", () => stop.abort(late.signal.reason), { once: true });
    await other;
    return done;
  } finally {
    stop.abort(new BedplateError("command.cancelled", "The command has ended."));
  }
}

/** @throws `agent.offline`, `host.pending` */
function requireReady(host: HostView): void {
  if (host.connection === "offline") {
    throw new BedplateError(
      "agent.offline",
      `The host ${host.name} has no connection to the controller now.`,
      {
        hint: "Is its agent running? `bedplate hosts` says when it was last seen.",
        details: { host: host.id, lastSeenAt: host.lastSeenAt },
      },
    );
  }
  if (host.standing === "pending") {
    throw new BedplateError(
      "host.pending",
      `The host ${host.name} waits for approval and gets no command before it.`,
      {
        hint: `Compare the fingerprint with what its agent's log says, then: bedplate host approve ${host.name} --fingerprint ${host.fingerprint}`,
        details: { host: host.id, fingerprint: host.fingerprint },
      },
    );
  }
}

function notEnded(id: string): BedplateError {
  return new BedplateError("command.timed-out", `The command ${id} has not come to an end in time.`, {
    hint: `It may still: bedplate command show ${id}`,
    details: { command: id },
  });
}

function detached(id: string): BedplateError {
  return new BedplateError(
    "command.indeterminate",
    `Detached: the command ${id} goes on without being watched.`,
    {
      hint: `Follow it with \`bedplate command show ${id} --follow\`, end it with \`bedplate command cancel ${id}\`.`,
      details: { command: id },
    },
  );
}

/** Whether it succeeded; if not, its error is printed, beside `extra` and the command in the JSON document. */
export function succeeded(
  view: CommandView,
  terminal: Terminal,
  extra: Readonly<Record<string, unknown>> = {},
): boolean {
  if (view.state === "succeeded") return true;
  terminal.fail(errorOfView(view), { ...extra, command: view });
  return false;
}

export function errorOfView(view: CommandView): BedplateError {
  const report = view.result?.error;
  return report === undefined
    ? new BedplateError("internal", `The command ended ${view.state} and does not say why.`)
    : errorOfReport(report);
}

/** The output of a command that succeeded. @throws `message.invalid` */
export function outputOf<T extends TSchema>(view: CommandView, schema: T): Static<T> {
  return checker(schema, "message.invalid", `output of ${view.kind}`)(view.result?.output);
}
