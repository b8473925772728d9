// What every command is given: where to print, when to stop, and the controller when it asks for it.
import type { Command } from "commander";
import { BedplateError, type ErrorReport } from "../protocol/errors.ts";
import type { ApiClient } from "./api-client.ts";
import { monotonic } from "./clock.ts";
import { type ExitCode, exitCodeOfError, exitCodes } from "./exit-codes.ts";
import { openTerminal, type Terminal } from "./terminal.ts";

export interface Context {
  readonly terminal: Terminal;
  /** Aborts at the first SIGINT, SIGTERM or SIGHUP; a second one, half a second or more later, ends the process at once. */
  readonly signal: AbortSignal;
  /** The controller's API; the same one each time. */
  api(): Promise<ApiClient>;
}

export type Work<Options> = (context: Context, options: Options, args: string[]) => Promise<ExitCode>;

export interface Mode {
  /** Several JSON documents, one a line. */
  readonly lines?: boolean;
  /** It has much to clear away: a second interrupt does not cut that short. */
  readonly clearsAway?: boolean;
  /** It only prints: once nobody reads that any more, it is done. */
  readonly prints?: boolean;
}

export interface Performer {
  /** The action of a command: runs `work`, prints what it throws, keeps its exit code. */
  <Options>(work: Work<Options>, mode?: Mode): (...received: unknown[]) => Promise<void>;
  readonly exitCode: () => ExitCode;
  /** Nobody reads our standard output any more: ends what is under way. */
  readonly readerGone: () => void;
}

export function createPerformer(): Performer {
  let exitCode: ExitCode = exitCodes.ok;
  const readers = new AbortController();
  const performer = <Options>(work: Work<Options>, mode: Mode = {}) => {
    return async (...received: unknown[]): Promise<void> => {
      const command = received.at(-1) as Command;
      const options = command.optsWithGlobals<Options & { json?: boolean; client?: string }>();
      const terminal = openTerminal({ json: options.json === true, lines: mode.lines === true });
      using interrupt = onInterrupt(mode.clearsAway === true, readers.signal);
      await using resources = new AsyncDisposableStack();
      let client: Promise<ApiClient> | undefined;
      const api = async (): Promise<ApiClient> => {
        const { findConnection } = await import("./connection.ts");
        const { openApi } = await import("./api-client.ts");
        return resources.use(openApi(await findConnection(options.client), interrupt.signal));
      };
      const context: Context = { terminal, signal: interrupt.signal, api: () => (client ??= api()) };
      try {
        refuseEmpty(command);
        exitCode = await work(context, options, command.args);
      } catch (error) {
        if (readers.signal.aborted && (mode.prints === true || mode.lines === true)) {
          exitCode = exitCodes.ok;
          return;
        }
        const shown = interrupt.signal.aborted && error === interrupt.signal.reason ? interrupted() : error;
        terminal.fail(shown);
        exitCode = shown instanceof BedplateError ? exitCodeOfError(shown.code) : exitCodes.failed;
        if (!(shown instanceof BedplateError) && process.env.BEDPLATE_DEBUG !== undefined)
          console.error(shown);
      }
    };
  };
  return Object.assign(performer, {
    exitCode: () => exitCode,
    readerGone: () => readers.abort(interrupted()),
  });
}

/**
 * What is empty was most likely a variable that nobody had set. What goes to a program as it is may be.
 * @throws `usage`
 */
function refuseEmpty(command: Command): void {
  for (const option of command.options) {
    const given: unknown = command.getOptionValue(option.attributeName());
    if (given === "" || (Array.isArray(given) && given.includes("")))
      throw new BedplateError("usage", `${option.long} is empty.`);
  }
  for (const [index, argument] of command.registeredArguments.entries())
    if (!argument.variadic && command.args[index] === "")
      throw new BedplateError("usage", `The ${argument.name()} is empty.`);
}

/** An interrupt is the signal's reason, so whoever sees it knows that nobody else failed. */
function onInterrupt(
  clearsAway: boolean,
  readerGone: AbortSignal,
): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const leave = () => controller.abort(readerGone.reason);
  readerGone.addEventListener("abort", leave);
  let firstMs: number | undefined;
  const stop = (name: NodeJS.Signals) => {
    firstMs ??= monotonic();
    // npx, timeout and shells signal the process and its group: that is one interrupt, however often it comes.
    const again = monotonic() - firstMs > echoMs;
    if (again && !clearsAway) process.exit(name === "SIGINT" ? 130 : 143);
    controller.abort(interrupted());
  };
  for (const name of interrupts) process.on(name, stop);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      readerGone.removeEventListener("abort", leave);
      for (const name of interrupts) process.off(name, stop);
    },
  };
}

/** What comes within this of the first interrupt is that interrupt; nobody presses keys faster and means it. */
const echoMs = 500;

const interrupts = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

function interrupted(): BedplateError {
  return new BedplateError("command.cancelled", "Interrupted.");
}

/** A report whose code may be one that this version does not know, as an error to print. */
export function errorOfReport(report: {
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
  readonly details?: Readonly<Record<string, unknown>> | undefined;
}): BedplateError {
  return new BedplateError(report.code as ErrorReport["code"], report.message, {
    ...(report.hint === undefined ? {} : { hint: report.hint }),
    ...(report.details === undefined ? {} : { details: report.details }),
  });
}
