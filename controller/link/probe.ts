// Asks an agent, within its connection, for a fresh proof that it has its host's key.
import { equalBytes } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { probeBytes, verifyEd25519 } from "../../protocol/link-proof.ts";
import { type AgentMessage, exporter } from "../../protocol/messages.ts";
import type { Clock, Random } from "../machine/system.ts";
import type { Channel } from "./channel.ts";
import { answerMsMax } from "./contest.ts";

export interface ProbeParts {
  readonly linkKey: Uint8Array;
  readonly clock: Pick<Clock, "after">;
  readonly random: Random;
}

export class Probe {
  readonly #channel: Channel;
  readonly #parts: ProbeParts;
  #asked: { readonly nonce: Uint8Array; readonly answer: (answered: boolean) => void } | undefined;

  constructor(channel: Channel, parts: ProbeParts) {
    this.#channel = channel;
    this.#parts = parts;
    // Once, not with each question: whoever has a copy of the key can have this one asked as often as it likes.
    void channel.ended.then(() => this.#asked?.answer(false));
  }

  /** Whether a right proof came in time. One question at a time. */
  async ask(): Promise<boolean> {
    const nonce = this.#parts.random.bytes(32);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#asked = { nonce, answer: resolve };
    using _late = this.#parts.clock.after(answerMsMax, () => resolve(false));
    if (this.#channel.send({ t: "probe", nonce }) === "closed") resolve(false);
    try {
      return await promise;
    } finally {
      this.#asked = undefined;
    }
  }

  /** @throws `message.unexpected`, `link.auth-failed` */
  async answered({ nonce, signature }: Extract<AgentMessage, { t: "proof" }>): Promise<void> {
    const asked = this.#asked;
    // Too late is no offence: the question is over.
    if (asked === undefined) return;
    if (!equalBytes(nonce, asked.nonce))
      throw new BedplateError("message.unexpected", "A proof came that was not asked for.");
    const exported = this.#channel.exportKeyingMaterial(exporter.bytes, exporter.label);
    const holds = await verifyEd25519(
      this.#parts.linkKey,
      signature,
      await probeBytes(asked.nonce, exported),
    ).catch(() => false);
    if (!holds) throw new BedplateError("link.auth-failed", "The answer to a probe does not hold.");
    asked.answer(true);
  }
}
