// One command on one host, from its id to its last state, with progress on the terminal.
import type { Static, TSchema } from "typebox";
import type { CommandView, HostView } from "../protocol/api.ts";
import { type Command, type CommandKind, isTerminal } from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import { checker } from "../protocol/schema.ts";
import type { ApiClient } from "./api-client.ts";
import { deadline, mintCommandId, monotonic, now } from "./clock.ts";
import { errorOfReport } from "./context.ts";
import { submitAndFollow } from "./follow.ts";
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
  readonly onView?: (view: CommandView) => void;
}

export interface Operation {
  readonly host: HostView;
  readonly view: CommandView;
}

/** What waits for a host that is away is waited for this long beyond its limits before we say that it timed out. */
const graceMs = 10_000;

/**
 * Runs it to its last state.
 * @throws `agent.offline`, `host.pending` before anything is sent; `command.timed-out` when even its last state does not come
 */
export async function operate(options: OperationOptions): Promise<Operation> {
  const { client, terminal, signal, timeoutSeconds } = options;
  const host = await client.host(options.reference);
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
  const id = mintCommandId();
  const command = {
    id,
    host: host.id,
    kind: options.kind,
    mode: options.mode ?? "apply",
    arguments: options.arguments ?? {},
    limits:
      timeoutSeconds === undefined
        ? {}
        : { notAfter: now() + timeoutSeconds * 1000, runForSeconds: timeoutSeconds },
  } as Command;
  using patience =
    timeoutSeconds === undefined ? undefined : deadline(2 * timeoutSeconds * 1000 + graceMs, notEnded(id));
  const until = patience === undefined ? signal : AbortSignal.any([signal, patience.signal]);
  const started = monotonic();
  try {
    const view = await submitAndFollow(client, command, until, (seen) => {
      options.onView?.(seen);
      if (isTerminal(seen.state)) return;
      const elapsed = formatSeconds((monotonic() - started) / 1000);
      terminal.status(
        seen.progress === null
          ? `${options.kind}: ${seen.state}${seen.reason === null ? "" : `, ${plain(seen.reason)}`} (${elapsed})`
          : progressLine(seen.progress, terminal.columns),
      );
    });
    return { host, view };
  } catch (error) {
    patience?.signal.throwIfAborted();
    throw signal.aborted ? detached(id) : error;
  } finally {
    terminal.status("");
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
