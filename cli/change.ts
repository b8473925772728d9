// What every command that changes a host goes through: planned, held against known_hosts, shown, confirmed, signed, sent.
import type { CommandView, HostView } from "../protocol/api.ts";
import { type CommandLimits, DeployPlanOutput, PlanOutput } from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import { hintOfGuard } from "../protocol/guard-hints.ts";
import type { Plan } from "../protocol/plans.ts";
import type { ApiClient } from "./api-client.ts";
import {
  type ChangeKind,
  changePairs,
  changeText,
  confirmationsFor,
  hostPairs,
  requirementText,
  untouchedText,
} from "./change-text.ts";
import { now } from "./clock.ts";
import { confirm } from "./confirm.ts";
import { errorOfReport } from "./context.ts";
import { type ExitCode, exitCodeOfEnd, exitCodes } from "./exit-codes.ts";
import { lacksSignatures, operate, outputOf, succeeded } from "./operation.ts";
import type { Terminal } from "./terminal.ts";
import { type KnownHost, type KnownHosts, knownHostOf } from "./trust/known-hosts.ts";
import { readKnownHosts } from "./trust/known-hosts-file.ts";
import { type HostPlan, quoteOf, readPlan, requireFresh, requirePlanFor } from "./trust/plan-review.ts";
import { signCommand } from "./trust/ssh-keygen.ts";

export interface ChangeOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
  readonly kind: ChangeKind;
  /** Of the plan. */
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly knownHostsFile: string;
  /** The key to sign with, as `signCommand` takes it. */
  readonly sign?: string;
  readonly planOnly: boolean;
  /** Nothing is asked. */
  readonly confirmed: boolean;
  /** Follow it also while it waits for other operators' signatures. */
  readonly wait: boolean;
  readonly timeoutSeconds?: number;
  readonly limits?: Pick<CommandLimits, "startWithinSeconds" | "onLinkLost">;
  readonly alongside?: (id: string, until: AbortSignal) => Promise<void>;
}

/** As many as the controller holds for a command. */
const signaturesMax = 16;

/** It has come to its last state. */
export interface Changed {
  readonly host: HostView;
  readonly plan: Plan;
  readonly view: CommandView;
}

/** @returns an exit code when it ended before: planned only, refused, or left to wait for signatures; all is printed then */
export async function change(options: ChangeOptions): Promise<Changed | ExitCode> {
  const { client, terminal, signal, reference, kind, knownHostsFile } = options;
  const knownHosts = await readKnownHosts(knownHostsFile);
  const common = { client, terminal, signal, reference, kind };
  const timeout = options.timeoutSeconds === undefined ? {} : { timeoutSeconds: options.timeoutSeconds };
  const before = await client.host(reference);
  // Before anything is sent: a host that is not the known one gets nothing.
  const known = await requireTrusted(before, knownHosts, options.sign !== undefined);

  const planned = await operate({
    ...common,
    ...timeout,
    reference: before.id,
    mode: "plan",
    arguments: options.arguments,
  });
  if (!succeeded(planned.view, terminal)) return exitCodeOfEnd(planned.view);
  const trusted = await planOf(planned.view, known, knownHosts.path);
  requirePlanFor(trusted, {
    id: planned.view.id,
    host: before.id,
    kind,
    arguments: options.arguments,
    added: kind === "image.deploy" ? ["fingerprint"] : [],
  });
  requireFresh(trusted, now());
  const { plan } = trusted;
  const name = known?.name ?? before.name;
  if (known === undefined) {
    terminal.note(
      `warning: ${name} is not in ${knownHosts.path}: that this plan is the host's own is the controller's word. bedplate known-hosts add ${name} --fingerprint FINGERPRINT`,
    );
  }
  const text = changeText(
    [hostPairs({ id: before.id, name }, trusted), changePairs(plan), [["signatures", requirementText(plan)]]],
    plan.findings,
  );
  // Where a program's output follows on stdout, it stands there alone.
  if (options.alongside === undefined || options.planOnly) terminal.print(text);
  else terminal.note(text);
  if (!plan.allowed) {
    terminal.fail(refusalOf(plan), { plan, planKey: trusted.signedBy });
    return exitCodes.refused;
  }
  if (options.planOnly) {
    terminal.document({ plan, planKey: trusted.signedBy });
    return exitCodes.ok;
  }
  if (!options.confirmed) for (const asked of confirmationsFor(plan, name)) await confirm(asked, signal);

  const { view } = await operate({
    ...common,
    ...timeout,
    reference: before.id,
    mode: "apply",
    arguments: plan.arguments,
    plan: quoteOf(trusted),
    wait: options.wait,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
    ...(options.sign === undefined ? {} : { sign: signerOf(options.sign, terminal, signal) }),
    ...(plan.requires === null ? {} : { signaturesWanted: Math.min(plan.requires.k, signaturesMax) }),
    ...(options.alongside === undefined ? {} : { alongside: options.alongside }),
    ...(plan.requires !== null && options.wait ? { onView: noteOnce(terminal) } : {}),
  });
  if (lacksSignatures(view)) {
    terminal.document({ plan, planKey: trusted.signedBy, command: view });
    terminal.print(waitingText(view));
    return exitCodes.waiting;
  }
  return { host: before, plan, view };
}

/** The exit code of what came of it; its error is printed when it did not succeed. */
export function exitCodeOfChange(
  { plan, view }: Changed,
  terminal: Terminal,
  extra: Readonly<Record<string, unknown>> = {},
): ExitCode {
  return succeeded(view, terminal, { plan, ...extra }) ? exitCodes.ok : exitCodeOfEnd(view);
}

async function requireTrusted(
  host: HostView,
  knownHosts: KnownHosts,
  signing: boolean,
): Promise<KnownHost | undefined> {
  const known = await knownHostOf(knownHosts, host);
  if (known !== undefined || !signing) return known;
  throw new BedplateError(
    "host.not-known",
    `The host ${host.name} is not in ${knownHosts.path}: what it would do cannot be checked, so it is not signed.`,
    {
      hint: `Compare the fingerprint with what the host's own log shows, then: bedplate known-hosts add ${host.name} --fingerprint FINGERPRINT`,
      details: { host: host.id },
    },
  );
}

async function planOf(view: CommandView, known: KnownHost | undefined, path: string): Promise<HostPlan> {
  const artefact =
    view.kind === "image.deploy"
      ? outputOf(view, DeployPlanOutput).artefact
      : outputOf(view, PlanOutput).artefact;
  if (artefact !== undefined) return readPlan(artefact, known, path);
  throw new BedplateError(
    "plan.invalid",
    "The host has not signed its plan, so nothing can be applied by it.",
    { hint: "Its agent is older than this program, or something on the way has taken the plan out." },
  );
}

function signerOf(
  key: string,
  terminal: Terminal,
  signal: AbortSignal,
): (document: Uint8Array) => Promise<string> {
  return async (document) => {
    const { signature, verified } = await signCommand(document, { key, terminal, signal });
    terminal.note(`signed by ${verified.fingerprint}`);
    return signature;
  };
}

/** Who waits sees once what the others have to do. */
function noteOnce(terminal: Terminal): (view: CommandView) => void {
  let said = false;
  return (view) => {
    if (!said && lacksSignatures(view)) terminal.note(waitingText(view));
    said = true;
  };
}

function waitingText({ id, signatures, signaturesWanted }: CommandView): string {
  const missing = signaturesWanted - signatures.length;
  return `The command waits for ${missing} ${signatures.length === 0 ? "" : "more "}signature${missing === 1 ? "" : "s"}: bedplate command sign ${id}`;
}

function refusalOf(plan: Plan): BedplateError {
  const refusing = plan.findings.filter((finding) => !finding.ok);
  const code = refusing[0]?.code ?? "policy.denied";
  const found = refusing.map((guard) => guard.finding).join(" ") || "the host does not allow it.";
  return errorOfReport({
    code,
    message: `Refused: ${found} ${untouchedText(plan)}`,
    ...hintOf(code),
    details: { guards: refusing },
  });
}

/** What only the host's own root can mend. */
function hintOf(code: string): { readonly hint?: string } {
  const policy = "/etc/bedplate/policy.toml";
  switch (code) {
    case "disk.not-allowed":
    case "policy.missing":
      return { hint: `Only the host's own root can allow a disk, by its serial in ${policy}.` };
    case "policy.signature-required":
      return {
        hint: `Only the host's own root can say who must sign ([kinds."…"] signatures), or that nobody need (unsigned), in ${policy}.`,
      };
    case "policy.exec-not-allowed":
      return { hint: `Only the host's own root can list a program, in [kinds."host.exec"] of ${policy}.` };
    default: {
      const hint = hintOfGuard(code);
      return hint === undefined ? {} : { hint };
    }
  }
}
