// What the API asks of commands: submit, cancel, and the end of those whose time to start has passed.
import { utf8 } from "../../protocol/bytes.ts";
import { type Command, decodeCommand, isTerminal } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { revoked } from "../hosts/standing.ts";
import type { ImageStore } from "../images/store.ts";
import type { Log } from "../log.ts";
import { type Store, type StoredCommand, storeLimits } from "../store/store.ts";
import type { Clock } from "../system.ts";
import type { Dispatcher } from "./dispatch.ts";

export interface CommandServiceParts {
  readonly store: Pick<Store, "commands" | "hosts">;
  readonly images: Pick<ImageStore, "find">;
  readonly dispatcher: Dispatcher;
  readonly clock: Clock;
  readonly log: Log;
}

const expiryIntervalMs = 1000;

export class CommandService implements Disposable {
  readonly #parts: CommandServiceParts;
  readonly #timer: Disposable;

  constructor(parts: CommandServiceParts) {
    this.#parts = parts;
    this.#timer = parts.clock.every(expiryIntervalMs, () => void this.expire());
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  /**
   * Takes a command document as text, byte for byte. The same one again is answered with its state.
   * @throws what decodeCommand throws; `host.unknown`, `enrol.host-revoked`, `image.unknown`, `command.id-conflict`,
   * `api.rate-limited`
   */
  async submit(
    document: string,
    signatures: readonly string[],
  ): Promise<{ readonly status: "created" | "known"; readonly command: StoredCommand }> {
    const bytes = utf8(document);
    const command = decodeCommand(bytes);
    const known = await this.#parts.store.commands.get(command.id);
    // What was taken once is answered, even when its image is gone by now.
    if (known === undefined) await this.#check(command);
    const { id, host, kind, mode } = command;
    const answer = await this.#parts.store.commands.create({
      ...{ id, host, kind, mode, signatures },
      document: bytes,
      notAfter: command.limits.notAfter ?? null,
      at: this.#parts.clock.now(),
    });
    switch (answer.status) {
      case "full":
        throw new BedplateError(
          "api.rate-limited",
          `${storeLimits.openCommandsMax} commands wait for this host or run on it.`,
          { hint: "Let some end, or cancel them." },
        );
      case "revoked":
        throw revoked((await this.#parts.store.hosts.get(host))!);
      case "conflict":
        throw new BedplateError("command.id-conflict", `A command ${id} with other content exists.`, {
          hint: "Make a new id (UUID version 7) for a new command.",
        });
      case "created":
        this.#parts.log.info({ command: id, host, kind, mode }, "a command was taken");
        this.#parts.dispatcher.wake(host);
        return { status: "created", command: answer.command };
      case "known":
        return { status: "known", command: answer.command };
    }
  }

  /**
   * Asks for the end of a command. What was never offered ends here and now; else the host is asked, and its result tells.
   * @throws `api.not-found`, `command.not-cancellable`
   */
  async cancel(id: string): Promise<StoredCommand> {
    const { store, clock, dispatcher } = this.#parts;
    const before = await store.commands.get(id);
    if (before === undefined) throw new BedplateError("api.not-found", `There is no command ${id}.`);
    if (isTerminal(before.state)) {
      throw new BedplateError("command.not-cancellable", `The command has ended already: ${before.state}.`, {
        details: { state: before.state },
      });
    }
    const after = (await store.commands.apply(id, { type: "cancel" }, clock.now()))!;
    dispatcher.wake(after.host);
    return after;
  }

  /** Ends the commands that waited for their host too long. Never rejects. */
  async expire(): Promise<void> {
    const { store, clock, log } = this.#parts;
    try {
      const at = clock.now();
      for (const id of await store.commands.expired(at))
        await store.commands.apply(id, { type: "expire" }, at);
    } catch (error) {
      log.error({ err: error }, "expired commands could not be ended");
    }
  }

  async #check(command: Command): Promise<void> {
    if ((await this.#parts.store.hosts.get(command.host)) === undefined) {
      throw new BedplateError("host.unknown", `There is no host ${command.host}.`, {
        hint: "A command names its host by its whole id: see GET /v1/hosts.",
      });
    }
    if (!("image" in command.arguments)) return;
    const { root, sizeBytes } = command.arguments.image;
    const image = this.#parts.images.find(root);
    if (image.sizeBytes !== sizeBytes) {
      throw new BedplateError(
        "command.bad-arguments",
        `The image ${root} has ${image.sizeBytes} bytes, the command says ${sizeBytes}.`,
      );
    }
  }
}
