// A command as the API shows it: what is stored, what is known of it in memory, and why it is not further.
import { createHash } from "node:crypto";
import Type from "typebox";
import { Check } from "typebox/value";
import type { CommandView } from "../../protocol/api.ts";
import { textOf } from "../../protocol/bytes.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { assert } from "../../protocol/errors.ts";
import { PlanArtefact, PlanQuote } from "../../protocol/plans.ts";
import { explainCommand, sinceOf } from "../commands/explain.ts";
import type { StoredCommand } from "../store/command-store.ts";
import type { Store } from "../store/store.ts";
import type { ApiParts } from "./app.ts";

const PlanResult = Type.Object({ artefact: PlanArtefact });

export async function commandView(
  parts: Pick<ApiParts, "store" | "sessions" | "clock" | "progress">,
  command: StoredCommand,
): Promise<CommandView> {
  const trimmed = command.document.length === 0;
  const document = JSON.parse(trimmed ? '{"arguments":{}}' : textOf(command.document)) as {
    arguments: Record<string, unknown>;
    plan?: unknown;
  };
  const host = await parts.store.hosts.get(command.host);
  assert(host !== undefined, "a command's host is known");
  const online = parts.sessions.get(command.host) !== undefined;
  const progress = isTerminal(command.state) ? null : parts.progress.get(command.id);
  return {
    id: command.id,
    host: command.host,
    hostName: host.name,
    kind: command.kind,
    mode: command.mode,
    state: command.state,
    since: sinceOf(command),
    ...explainCommand(command, host, online, parts.clock.now(), progress),
    createdAt: command.createdAt,
    updatedAt: command.updatedAt,
    cancelRequestedAt: command.cancelRequestedAt,
    cancelAnswer: command.cancelAnswer,
    pausedAt: command.pause?.paused === true && !isTerminal(command.state) ? command.pause.at : null,
    document: Buffer.from(command.document).toString("base64"),
    trimmed,
    signatures: command.signatures.map(({ fingerprint, addedAt }) => ({ fingerprint, addedAt })),
    signaturesWanted: command.signaturesWanted,
    plan: await planOf(parts.store, command.host, document.plan),
    outputBytes: command.outputBytes,
    runs: command.runs,
    arguments: document.arguments,
    progress,
    result: command.result,
    history: [...command.history],
  };
}

/**
 * The plan that a document quotes, as its host signed it. Null when it is not here, or is not the one quoted: whoever shows
 * it checks the signature all the same.
 */
async function planOf(
  store: Pick<Store, "commands">,
  host: string,
  quote: unknown,
): Promise<CommandView["plan"]> {
  if (!Check(PlanQuote, quote)) return null;
  const planned = await store.commands.get(quote.id);
  const output = planned?.host === host ? planned.result?.output : undefined;
  if (!Check(PlanResult, output)) return null;
  const { text, signature } = output.artefact;
  const digest = createHash("sha256").update(text).digest("hex");
  return digest === quote.digest ? { text, signature } : null;
}
