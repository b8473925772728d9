// A command as it stands, for people: where it is, why it waits, who signed it, how it ended.
import type { CommandView } from "../protocol/api.ts";
import { isTerminal } from "../protocol/commands.ts";
import { now } from "./clock.ts";
import { errorOfReport } from "./context.ts";
import {
  explanationFacts,
  facts,
  formatAge,
  formatBytes,
  formatTime,
  progressLine,
  table,
} from "./output.ts";

export function commandTable(commands: readonly CommandView[]): string {
  return table(commands, [
    { title: "ID", of: (view) => view.id },
    { title: "HOST", of: (view) => view.hostName },
    { title: "KIND", of: kindOf },
    { title: "STATE", of: ({ state, pausedAt }) => (pausedAt === null ? state : `${state}, paused`) },
    { title: "SIGNED", of: signedOf },
    { title: "AGE", of: (view) => formatAge(view.createdAt, now()) },
    { title: "CODE", of: (view) => view.result?.error?.code ?? null },
  ]);
}

export function commandText(view: CommandView): string {
  const error = view.result?.error;
  const pairs: (readonly [string, string | null])[] = [
    ["command", view.id],
    ["host", `${view.hostName} (${view.host.slice(0, 12)})`],
    ["kind", kindOf(view)],
    ["state", `${view.state} since ${formatTime(view.since)}`],
    ...explanationFacts(view),
    view.trimmed
      ? ["document", "no longer kept, nor its output: newer commands of this host needed the room"]
      : ["arguments", JSON.stringify(view.arguments)],
    ...(view.plan === null
      ? []
      : [["plan", "quoted; `bedplate command sign ID --print` checks it"] as const]),
    ...signaturePairs(view),
    ["runs", `${view.runs}`],
    ...view.history.map(({ state, at }): [string, string] => [`  ${state}`, formatTime(at)]),
  ];
  if (view.pausedAt !== null) pairs.push(["paused", formatTime(view.pausedAt)]);
  if (view.cancelRequestedAt !== null) pairs.push(["cancel asked", formatTime(view.cancelRequestedAt)]);
  if (view.cancelAnswer !== null) {
    const { answer, reason, at } = view.cancelAnswer;
    pairs.push(["the host says", `${answer}, ${formatTime(at)}${reason === "" ? "" : `: ${reason}`}`]);
  }
  if (view.outputBytes > 0)
    pairs.push(["output", `${formatBytes(view.outputBytes)}: bedplate command output ${view.id}`]);
  if (!isTerminal(view.state) && view.progress !== null)
    pairs.push(["progress", progressLine(view.progress, 100)]);
  const text = [facts(pairs)];
  if (error !== undefined) {
    const { message, hint, code } = errorOfReport(error);
    text.push(
      facts([
        ["error", message],
        ...(hint === undefined ? [] : [["hint", hint] as [string, string]]),
        ["code", code],
      ]),
    );
  }
  if (view.result?.output !== undefined) text.push(JSON.stringify(view.result.output, undefined, 2));
  return text.join("\n");
}

function kindOf(view: CommandView): string {
  return view.mode === "plan" ? `${view.kind} (plan)` : view.kind;
}

function signedOf({ signatures, signaturesWanted }: CommandView): string | null {
  if (signaturesWanted === 0 && signatures.length === 0) return null;
  return `${signatures.length} of ${Math.max(signaturesWanted, signatures.length)}`;
}

function signaturePairs(view: CommandView): (readonly [string, string])[] {
  const signed = signedOf(view);
  if (signed === null) return [];
  return [
    ["signatures", signed],
    ...view.signatures.map(({ fingerprint, addedAt }): [string, string] => [
      `  ${formatTime(addedAt)}`,
      fingerprint,
    ]),
  ];
}
