// What an operator is asked to sign, read from the very bytes and held against the plan that the host itself signed. Pure.
import type { CommandView } from "../../protocol/api.ts";
import { hex } from "../../protocol/bytes.ts";
import { type Command, decodeCommand, effectOf } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import { bytesOfBase64 } from "../../protocol/ssh-wire.ts";
import { type KnownHost, type KnownHosts, knownHostOf } from "./known-hosts.ts";
import { type HostPlan, readPlan, requireFresh, requireQuoted } from "./plan-review.ts";

export interface CommandReview {
  /** What is signed. */
  readonly document: Uint8Array;
  /** SHA-256 of it, for operators to compare. */
  readonly digest: string;
  readonly command: Command;
  readonly host: KnownHost;
  readonly plan: HostPlan;
}

export interface ReviewOptions {
  /** As the operator gave it. */
  readonly id: string;
  /** The controller's answer, of which nothing is believed. */
  readonly view: Pick<CommandView, "document" | "plan" | "hostName">;
  readonly knownHosts: KnownHosts;
  readonly nowMs: number;
  /** What another operator said that the document's digest is. */
  readonly digest?: string;
}

/**
 * @throws `host.not-known`, `host.key-changed`, `plan.required`, `plan.unknown`, `plan.changed`, `plan.expired`,
 * `command.wrong-host`, `command.expired`, `command.bad-arguments`, `signature.*`: it must not be signed
 */
export async function reviewCommand(options: ReviewOptions): Promise<CommandReview> {
  const { id, view, knownHosts, nowMs } = options;
  const document = bytesOfBase64(view.document);
  if (document === undefined)
    throw new BedplateError("message.invalid", "The controller's copy of the document is not valid base64.");
  const digest = hex(new Uint8Array(await crypto.subtle.digest("SHA-256", document)));
  if (options.digest !== undefined && options.digest !== digest) {
    throw new BedplateError(
      "plan.changed",
      `The document has the digest ${digest}, not ${options.digest}: it is not the one that you were told of.`,
      { hint: "Do not sign it." },
    );
  }
  const command = decodeCommand(document);
  requireThatCommand(command, id);
  requireToSign(command, nowMs);
  const host = await requireKnown(knownHosts, command.host, view.hostName);
  const { plan: quote } = command;
  if (quote === undefined) {
    throw new BedplateError(
      "plan.required",
      "The command quotes no plan, so nothing that its host has signed says what it would do.",
      { hint: "Send it again: `bedplate deploy`, `exec`, `reboot` and `poweroff` plan first." },
    );
  }
  if (view.plan === null) {
    throw new BedplateError(
      "plan.unknown",
      `The controller does not have the plan ${quote.id} that the command quotes.`,
      { hint: "Send the command again, with a new plan." },
    );
  }
  const plan = await readPlan(view.plan, host, knownHosts.path);
  requireQuoted(plan, { ...command, plan: quote });
  requireFresh(plan, nowMs);
  return { document, digest, command, host, plan };
}

function requireThatCommand(command: Command, id: string): void {
  if (command.id === id) return;
  throw new BedplateError(
    "plan.changed",
    `The controller was asked for the command ${id} and gave the document of ${command.id}.`,
    { hint: "Do not sign it." },
  );
}

function requireToSign(command: Command, nowMs: number): void {
  if (effectOf(command) === "read") {
    throw new BedplateError("command.bad-arguments", `${command.kind} (${command.mode}) changes nothing.`, {
      hint: "Only what changes a host is signed.",
    });
  }
  const { notAfter } = command.limits;
  if (notAfter !== undefined && nowMs > notAfter) {
    throw new BedplateError(
      "command.expired",
      `The command was to start before ${new Date(notAfter).toISOString()}.`,
      { hint: "Send it again." },
    );
  }
}

async function requireKnown(knownHosts: KnownHosts, id: string, name: string): Promise<KnownHost> {
  const known = await knownHostOf(knownHosts, { id, name, identity: null });
  if (known !== undefined) return known;
  throw new BedplateError(
    "host.not-known",
    `The host ${fingerprintOf(id)} (the controller calls it ${name}) is not in ${knownHosts.path}, so nothing that is said of it can be checked.`,
    {
      hint: `Compare the fingerprint with what the host's own log shows, then: bedplate known-hosts add ${name} --fingerprint FINGERPRINT`,
      details: { host: id },
    },
  );
}
