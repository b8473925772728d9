// What the API asks of commands: submit, sign, cancel; the end of those whose time to start has passed; forgetting old ones.
import { utf8 } from "../../protocol/bytes.ts";
import { decodeCommand, isPausable, isTerminal } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageStore } from "../images/store.ts";
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import { holding } from "../rules/holding.ts";
import { forgottenBefore, retention, waitedOutBefore } from "../rules/retention.ts";
import { signaturesMax } from "../rules/signatures.ts";
import { revoked } from "../rules/standing.ts";
import type { StoredCommand } from "../store/command-store.ts";
import { type Store, storeLimits } from "../store/store.ts";
import { checkNewCommand, readHoldingSignature, readSignature } from "./checks.ts";
import type { Dispatcher } from "./dispatch.ts";

export interface CommandServiceParts {
  readonly store: Pick<Store, "commands" | "hosts">;
  readonly images: Pick<ImageStore, "find">;
  readonly dispatcher: Pick<Dispatcher, "create" | "wake">;
  readonly clock: Clock;
  readonly log: Log;
  /** By which time commands have waited too long, or are old enough to be forgotten; absent: by the clock. */
  readonly agesBy?: () => number;
}

export interface Submission {
  /** A command document as text, taken byte for byte. */
  readonly document: string;
  readonly signatures: readonly string[];
  /** It is held until it has so many, of different keys. */
  readonly signaturesWanted: number;
}

const expiryIntervalMs = 1000;
const forgetIntervalMs = 60_000;
/** Forgotten in one transaction: others wait for it. */
const forgetAtOnce = 200;

export class CommandService implements Disposable {
  readonly #parts: CommandServiceParts;
  readonly #timers: readonly Disposable[];

  constructor(parts: CommandServiceParts) {
    this.#parts = parts;
    this.#timers = [
      parts.clock.every(expiryIntervalMs, () => void this.expire()),
      parts.clock.every(forgetIntervalMs, () => void this.forget()),
    ];
  }

  [Symbol.dispose](): void {
    for (const timer of this.#timers) timer[Symbol.dispose]();
  }

  /**
   * Takes a command. The same document again is answered with its state, whatever signatures come with it.
   * @param key what the caller says its id is
   * @throws what decodeCommand and checkNewCommand throw; `signature.malformed`, `enrol.host-revoked`,
   * `command.id-conflict`, `api.bad-request`, `api.rate-limited`
   */
  async submit(
    submission: Submission,
    key?: string,
  ): Promise<{ readonly status: "created" | "known"; readonly command: StoredCommand }> {
    const { store, dispatcher, clock, log } = this.#parts;
    const document = utf8(submission.document);
    const command = decodeCommand(document);
    if (key !== undefined && key !== command.id) {
      throw new BedplateError(
        "api.bad-request",
        `The header Idempotency-Key says ${key.slice(0, 64)}, the document's id is ${command.id}.`,
        { hint: "The id makes a repeated request the same command: send it as the key, or no key." },
      );
    }
    const at = clock.now();
    const signatures = await Promise.all(submission.signatures.map((text) => readSignature(text, at)));
    const known = await store.commands.get(command.id);
    // What was taken once is answered, even when its image is gone by now.
    if (known === undefined) await checkNewCommand(command, this.#parts, at);
    const { id, host, kind, mode } = command;
    const answer = await dispatcher.create({
      ...{ id, host, kind, mode, document, signatures, at },
      signaturesWanted: submission.signaturesWanted,
      notAfter: command.limits.notAfter ?? null,
    });
    switch (answer.status) {
      case "full":
        throw new BedplateError(
          "api.rate-limited",
          `${storeLimits.openCommandsMax} commands wait for this host or run on it.`,
          { hint: "Let some end, or cancel them." },
        );
      case "too-many-kept":
        throw new BedplateError(
          "api.rate-limited",
          `${holding.hostCommandsMax} commands of this host have ended in the last ${retention.keptMs / 86_400_000} days: no more can be remembered.`,
          { hint: "Find out who sends so many: bedplate audit api." },
        );
      case "revoked":
        throw revoked((await store.hosts.get(host))!);
      case "conflict":
        throw new BedplateError("command.id-conflict", `A command ${id} with other content exists.`, {
          hint: "Make a new id (UUID version 7) for a new command.",
        });
      case "created":
        log.info({ command: id, host, kind, mode }, "a command was taken");
        return { status: "created", command: answer.command };
      case "known":
        return { status: "known", command: answer.command };
    }
  }

  /**
   * Adds a signature to a command that waits; the same again is no change. With the last one that it wants it is offered.
   * @throws `api.not-found`, `command.already-offered`, `api.too-large`, what readHoldingSignature throws
   */
  async sign(
    id: string,
    text: string,
  ): Promise<{ readonly command: StoredCommand; readonly fingerprint: string }> {
    const { store, clock, dispatcher, log } = this.#parts;
    const before = await store.commands.get(id);
    if (before === undefined) throw unknownCommand(id);
    const signature = await readHoldingSignature(text, before.document, clock.now());
    const { fingerprint } = signature;
    const answer = await store.commands.sign(id, signature);
    if (answer === undefined) throw unknownCommand(id);
    const { status, command } = answer;
    switch (status) {
      case "too-late":
        throw new BedplateError(
          "command.already-offered",
          isTerminal(command.state)
            ? `The command has ended already: ${command.state}.`
            : `The command has gone to its host already: it is ${command.state}.`,
          { details: { state: command.state } },
        );
      case "full":
        throw new BedplateError("api.too-large", `A command takes at most ${signaturesMax} signatures.`);
      case "added":
        log.info({ command: id, fingerprint }, "a signature was added to a command");
        dispatcher.wake(command.host);
        return { command, fingerprint };
      case "known":
        return { command, fingerprint };
    }
  }

  /**
   * Asks for the end of a command. What was never offered ends here and now; else the host is asked, and its result tells.
   * @throws `api.not-found`, `command.not-cancellable`
   */
  async cancel(id: string): Promise<StoredCommand> {
    const { store, clock, dispatcher } = this.#parts;
    const before = await store.commands.get(id);
    if (before === undefined) throw unknownCommand(id);
    if (isTerminal(before.state)) {
      throw new BedplateError("command.not-cancellable", `The command has ended already: ${before.state}.`, {
        details: { state: before.state },
      });
    }
    const after = (await store.commands.apply(id, { type: "ask-cancel" }, clock.now()))!;
    dispatcher.wake(after.host);
    return after;
  }

  /**
   * Asks for a command to wait at its next safe point, or to go on. Its host is told as soon as it can be, and again in each
   * session, also what it hears of later.
   * @throws `api.not-found`, `command.not-pausable`
   */
  async pause(id: string, paused: boolean): Promise<StoredCommand> {
    const { store, clock, dispatcher, log } = this.#parts;
    const before = await store.commands.get(id);
    if (before === undefined) throw unknownCommand(id);
    if (isTerminal(before.state)) {
      throw new BedplateError("command.not-pausable", `The command has ended already: ${before.state}.`, {
        details: { state: before.state },
      });
    }
    if (!isPausable(before)) {
      throw new BedplateError(
        "command.not-pausable",
        `${before.kind} (${before.mode}) has no point at which it can wait.`,
        {
          hint: "Cancel it, if it must not go on: bedplate command cancel ID.",
          details: { kind: before.kind },
        },
      );
    }
    const after = (await store.commands.apply(id, { type: "ask-pause", paused }, clock.now()))!;
    log.info({ command: id, paused }, "a command is paused or resumed");
    dispatcher.wake(after.host);
    return after;
  }

  /** Ends the commands that waited too long. Never rejects. */
  async expire(): Promise<void> {
    const { store, clock, log, agesBy = () => clock.now() } = this.#parts;
    try {
      // A command's own limit is the operator's, by the clock on the wall, whatever that says; ours is lived through.
      const at = clock.now();
      for (const { id, missing, limit } of await store.commands.expired(at, waitedOutBefore(agesBy())))
        await store.commands.apply(id, { type: limit === "own" ? "expire" : "waited-out", missing }, at);
    } catch (error) {
      log.error({ err: error }, "expired commands could not be ended");
    }
  }

  /** Forgets the commands that ended long ago, with their output. Never rejects. */
  async forget(): Promise<void> {
    const { store, clock, log, agesBy = () => clock.now() } = this.#parts;
    try {
      const before = forgottenBefore(agesBy());
      while ((await store.commands.forget(before, forgetAtOnce)) === forgetAtOnce);
    } catch (error) {
      log.error({ err: error }, "old commands could not be forgotten");
    }
  }
}

export function unknownCommand(id: string): BedplateError {
  return new BedplateError("api.not-found", `There is no command ${id}.`, {
    hint: "`bedplate commands` lists them. What ended long ago is forgotten.",
  });
}
