// Takes the records of one session: what keys must vouch for is held against them, then all is stored, in order.
import type { AuditHead } from "../../protocol/audit.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { AgentMessage, RecordBody } from "../../protocol/messages.ts";
import type { Log } from "../machine/log.ts";
import type { Clock } from "../machine/system.ts";
import type { Vouched } from "../rules/record-rule.ts";
import type { RecordAnswer, RecordStore } from "../store/record-store.ts";
import { jsonSafe } from "./json-safe.ts";
import type { Voucher } from "./voucher.ts";

export type RecordMessage = Extract<AgentMessage, { t: "record" }>;

export interface RecordIntakeParts {
  readonly host: string;
  readonly instance: string;
  readonly records: Pick<RecordStore, "apply">;
  readonly voucher: Voucher;
  readonly clock: Pick<Clock, "now">;
  readonly log: Log;
}

export interface TakenRecord {
  /** The highest record that is stored now. */
  readonly mark: number;
  readonly body: RecordBody;
  /** Where the host's audit stands, now that the controller knows it too: to be told to the host. */
  readonly countersigned: AuditHead | undefined;
}

export class RecordIntake {
  readonly #parts: RecordIntakeParts;
  #place: "first" | "later" = "first";

  constructor(parts: RecordIntakeParts) {
    this.#parts = parts;
  }

  /** Records that came together wait for one sync of the disk together. @throws `message.unexpected` at a hole */
  async take(messages: readonly RecordMessage[]): Promise<TakenRecord[]> {
    const { host, instance, records, voucher, clock } = this.#parts;
    const at = clock.now();
    const vouched: (Vouched | undefined)[] = [];
    // One after the other: an audit head is held against the key of the identity before it.
    for (const { body } of messages)
      vouched.push(needsVouching(body) ? await voucher.vouch(body) : undefined);
    return Promise.all(
      messages.map(async ({ seq, body }, i) => {
        const safe = jsonSafe(body);
        const place = this.#place;
        this.#place = "later";
        const answer = await records.apply({
          ...{ host, instance, seq, place, body: safe, at },
          vouched: vouched[i],
        });
        return this.#taken(seq, safe, answer, vouched[i]);
      }),
    );
  }

  #taken(seq: number, body: RecordBody, answer: RecordAnswer, vouched: Vouched | undefined): TakenRecord {
    const { host, log } = this.#parts;
    if (answer.status === "hole")
      throw new BedplateError("message.unexpected", `Record ${seq} came, record ${answer.mark + 1} did not.`);
    if (answer.lost !== undefined)
      log.warn(
        { host, record: seq, lost: answer.lost },
        "records that the host delivered after the backup was made are lost",
      );
    if (answer.ignored !== undefined) {
      const broken = answer.ignored.startsWith("audit.broken ");
      const facts = { host, record: seq, ...(broken ? { code: "audit.broken" } : {}) };
      if (broken) log.error(facts, `a host's audit does not hold: ${answer.ignored}`);
      else log.warn(facts, `a record has no effect: ${answer.ignored}`);
    } else if (answer.status === "stored" && vouched?.type === "identity") {
      this.#tellIdentity(vouched);
    }
    const countersigned =
      body.type === "audit-head" &&
      vouched?.type === "audit-head" &&
      answer.status === "stored" &&
      answer.ignored === undefined
        ? { seq: body.seq, hash: body.hash, signature: vouched.countersignature }
        : undefined;
    return { mark: answer.mark, body, countersigned };
  }

  #tellIdentity({ fingerprint, keyBefore }: Extract<Vouched, { type: "identity" }>): void {
    const { host, log } = this.#parts;
    if (keyBefore === "another")
      log.error(
        { host, code: "host.key-changed", attestation: fingerprint },
        "the attestation key of a host has changed: its executor was set up anew, or something answers in its place",
      );
    else log.info({ host, attestation: fingerprint }, "a host told who its executor is");
  }
}

function needsVouching(body: RecordBody): boolean {
  return body.type === "identity" || body.type === "audit-head";
}
