// What a command that changes a host would do, for people to read before they agree: from its arguments and its plan.
import type { Static } from "typebox";
import {
  type Command,
  type CommandKind,
  commandKinds,
  type DeployPlanArguments,
  DeployPlanOutput,
  type DiskPlan,
  disksOf,
  type ExecArguments,
  type PowerOffArguments,
  type RebootArguments,
} from "../protocol/commands.ts";
import type { GuardFinding } from "../protocol/disks.ts";
import { assert, BedplateError } from "../protocol/errors.ts";
import { fingerprintOf } from "../protocol/identifiers.ts";
import type { Plan } from "../protocol/plans.ts";
import { checker } from "../protocol/schema.ts";
import { type Confirmation, diskConfirmation } from "./confirm.ts";
import { facts, formatBytes, formatSeconds, formatTime, plain, table } from "./output.ts";
import type { HostPlan } from "./trust/plan-review.ts";

export type Pairs = readonly (readonly [string, string | null])[];

/** Kinds that have a plan: those that change a host. */
export type ChangeKind = "host.exec" | "host.poweroff" | "host.reboot" | "image.deploy";

export function isChangeKind(kind: CommandKind): kind is ChangeKind {
  return "plan" in commandKinds[kind];
}

const checkDeploy = checker(DeployPlanOutput, "plan.invalid", "plan of image.deploy");

/** A plan of image.deploy with what its handler found, all of it from the bytes that the host signed. @throws `plan.invalid` */
export function deployPlanOf(plan: Plan): DeployPlanOutput {
  return checkDeploy({
    ...plan.facts,
    image: plan.arguments.image,
    fingerprint: plan.arguments.fingerprint,
    ...alsoOf(plan),
    guards: plan.findings,
    allowed: plan.allowed,
  });
}

/** What was found of each further disk, beside the fingerprint that is quoted of it: as many as are to be written. */
function alsoOf({ arguments: given, facts: found }: Plan): { readonly also?: unknown } {
  if (given.also === undefined && found.also === undefined) return {};
  const [asked, seen] = [given.also, found.also] as [{ fingerprint?: unknown }[], object[]];
  if (!Array.isArray(asked) || !Array.isArray(seen) || asked.length !== seen.length)
    throw new BedplateError("plan.invalid", "The plan does not tell of as many disks as it is for.");
  return { also: seen.map((each, at) => ({ ...each, fingerprint: asked[at]!.fingerprint })) };
}

/** What would happen, from the plan alone. @throws `plan.invalid` */
export function changePairs(plan: Plan): Pairs {
  const kind = plan.kind as ChangeKind;
  const given: unknown = plan.arguments;
  switch (kind) {
    case "image.deploy":
      return deployPairs(deployPlanOf(plan), given as DeployPlanArguments);
    case "host.exec":
      return [...execPairs(given as ExecArguments), ...programPairs(plan.facts)];
    case "host.reboot": {
      const { reason, deadlineSeconds = 900 } = given as RebootArguments;
      return [
        ["action", "restart the machine"],
        ["back within", formatSeconds(deadlineSeconds)],
        ...reasonPair(reason),
      ];
    }
    case "host.poweroff":
      return [["action", "switch the machine off"], ...reasonPair((given as PowerOffArguments).reason)];
  }
}

export function deployPairs(
  { image, also = [], ...first }: DeployPlanOutput,
  given?: DeployPlanArguments,
): Pairs {
  const asked = given === undefined ? [] : disksOf(given);
  const disks = [first, ...also];
  return [
    ["image", `${image.name ?? "(no name)"}  ${image.root}  ${formatBytes(image.sizeBytes)}`],
    ...disks.flatMap((disk, at) => [
      ...diskPairs(disk, disks.length === 1 ? "disk" : `disk ${at + 1} of ${disks.length}`),
      ...overridesPair(asked[at]?.overrides),
    ]),
    ...waitPair(given?.waitSeconds),
    ...ratesPair(given?.limits),
  ];
}

function diskPairs({ disk, fingerprint, ...plan }: DiskPlan, title: string): Pairs {
  const identity = [
    ...(fingerprint.serial === null ? [] : [`serial ${fingerprint.serial}`]),
    ...(fingerprint.wwn === null ? [] : [`wwn ${fingerprint.wwn}`]),
    ...(fingerprint.backing === null ? [] : [`backing ${fingerprint.backing}`]),
  ];
  return [
    [
      title,
      `${disk.path}  ${formatBytes(disk.sizeBytes)} ${disk.type}${disk.model === null ? "" : ` ${disk.model}`}`,
    ],
    ["fingerprint", [...identity, `edges ${fingerprint.edges.slice(0, 16)}`].join(", ")],
    ["sectors", `${fingerprint.logicalSectorBytes} logical, ${fingerprint.physicalSectorBytes} physical`],
    ["to fetch", `at most ${formatBytes(plan.bytesToFetchMax)}`],
    ["to write", `at most ${formatBytes(plan.bytesToWriteMax)}`],
  ];
}

function waitPair(waitSeconds = 0): Pairs {
  return waitSeconds === 0
    ? []
    : [["may come", `up to ${formatSeconds(waitSeconds)} late: its disks are waited for`]];
}

/** Bounds on the work itself, which are signed too. */
function ratesPair(limits: DeployPlanArguments["limits"]): Pairs {
  const { bytesPerSecondMax: write, fetchBytesPerSecondMax: fetch } = limits ?? {};
  const parts = [
    ...(write === undefined ? [] : [`writes at most ${formatBytes(write)} a second`]),
    ...(fetch === undefined ? [] : [`fetches at most ${formatBytes(fetch)} a second`]),
  ];
  return parts.length === 0 ? [] : [["no faster than", parts.join("; ")]];
}

/** What a refusal has left as it was: of each disk the name that it has from boot to boot. */
export function untouchedText(plan: Plan): string {
  if (plan.kind !== "image.deploy") return "Nothing was changed.";
  const { also = [], ...first } = deployPlanOf(plan);
  const names = [first, ...also].map(({ disk, fingerprint: { serial, wwn, backing } }) => {
    const name =
      serial !== null ? `serial ${serial}` : wwn !== null ? `wwn ${wwn}` : `backing ${backing ?? "unknown"}`;
    return disk.path === backing ? disk.path : `${disk.path} (${name})`;
  });
  return `${names.join(", ")} ${names.length === 1 ? "is" : "are"} not touched.`;
}

function execPairs({ argv, directory = "/", environment = {}, outputBytesMax }: ExecArguments): Pairs {
  return [
    // As JSON: where one argument ends and the next begins is part of what is agreed to.
    ["program", JSON.stringify(argv)],
    ["directory", directory],
    ...Object.entries(environment).map(([name, value]) => ["environment", `${name}=${value}`] as const),
    ...(outputBytesMax === undefined ? [] : [["output", `at most ${formatBytes(outputBytesMax)}`] as const]),
  ];
}

/** The file behind the program's path, where it is not what its name says. */
function programPairs({ program }: Plan["facts"]): Pairs {
  if (typeof program !== "object" || program === null) return [];
  const { path, realPath, interpreter } = program as Record<string, unknown>;
  return [
    ...(typeof realPath === "string" && realPath !== path ? [["its file", realPath] as const] : []),
    ...(typeof interpreter === "string" ? [["interpreter", interpreter] as const] : []),
  ];
}

/** All that the command names, whether or not the disk needs them now: they are signed, and it may need them later. */
function overridesPair(overrides: DeployPlanArguments["overrides"] = []): Pairs {
  return overrides.length === 0 ? [] : [["OVERRIDES", `the guards ${overrides.join(", ")}`]];
}

function reasonPair(reason: string | undefined): Pairs {
  return reason === undefined ? [] : [["reason", reason]];
}

/** What is asked before it, one after the other: every disk's serial, or the host's name. @throws `plan.invalid` */
export function confirmationsFor(plan: Plan, host: string): readonly Confirmation[] {
  const kind = plan.kind as ChangeKind;
  const named = (loss: string) => [{ loss, what: "the host's name", expected: host }];
  switch (kind) {
    case "image.deploy": {
      const { also = [], ...first } = deployPlanOf(plan);
      return [first, ...also].map(({ disk, fingerprint: { serial, backing } }) =>
        // The serial of the fingerprint is what apply must find; the path is of this moment only.
        diskConfirmation({ ...disk, serial, backing }, host),
      );
    }
    case "host.exec": {
      const [program] = (plan.arguments as ExecArguments).argv;
      return named(`${program} will run on ${host}, with the rights of its executor.`);
    }
    case "host.reboot":
      return named(`${host} will restart: whatever runs there is ended.`);
    case "host.poweroff":
      return named(`${host} will be switched off; this program cannot switch it on again.`);
  }
}

/** Which host it is, by what keys, and until when the plan holds. `name` is the operator's own where the host is known. */
export function hostPairs(host: { readonly id: string; readonly name: string }, trusted: HostPlan): Pairs {
  const { plan, signedBy } = trusted;
  return [
    ["host", `${host.name}  ${fingerprintOf(host.id)}`],
    ["machine", `${plan.hostname}, chassis serial ${plan.chassisSerial ?? "unknown"}`],
    ["plan", `${plan.id}, valid until ${formatTime(plan.expiresAt)}`],
    ["plan's key", signedBy === null ? "NOT CHECKED: the host is not in known_hosts" : `${signedBy}, known`],
  ];
}

export function requirementText({ requires, findings }: Pick<Plan, "requires" | "findings">): string {
  if (requires === null) {
    return findings.some(({ ok, code }) => !ok && code === "policy.signature-required")
      ? "the host's policy does not say whose"
      : "none: the host's policy takes this kind unsigned";
  }
  const { k, from, operators } = requires;
  return `${k} of ${from.join(" or ")} (${operators.join(", ")})`;
}

export function limitPairs({ limits }: Pick<Command, "limits">): Pairs {
  const parts = [
    ...(limits.notAfter === undefined ? [] : [`not after ${formatTime(limits.notAfter)}`]),
    ...(limits.startWithinSeconds === undefined
      ? []
      : [`waits ${formatSeconds(limits.startWithinSeconds)} for others to end`]),
    ...(limits.runForSeconds === undefined ? [] : [`runs ${formatSeconds(limits.runForSeconds)} at most`]),
    ...(limits.stallAfterSeconds === undefined
      ? []
      : [`ends after ${formatSeconds(limits.stallAfterSeconds)} without progress`]),
    ...(limits.onLinkLost === undefined ? [] : [`${limits.onLinkLost}s when the link is lost`]),
  ];
  return [["limits", parts.length === 0 ? "none" : parts.join("; ")]];
}

/** Where there are several disks, a table for each, and one of what is about none. */
export function findingsTable(findings: readonly Static<typeof GuardFinding>[]): string {
  const disks = [...new Set(findings.map(({ disk }) => disk))];
  if (disks.length === 1) return tableOf(findings);
  return disks
    .map((disk) => {
      const own = tableOf(findings.filter((finding) => finding.disk === disk));
      return `${disk === undefined ? "the command" : plain(disk)}:\n${own}`;
    })
    .join("\n\n");
}

function tableOf(findings: readonly Static<typeof GuardFinding>[]): string {
  return table(findings, [
    { title: "GUARD", of: (finding) => finding.guard },
    { title: "", of: (finding) => (finding.ok ? "ok" : "REFUSES") },
    { title: "FINDING", of: (finding) => finding.finding },
  ]);
}

/** The whole: who, what, and every guard's finding. */
export function changeText(
  parts: readonly Pairs[],
  findings: readonly Static<typeof GuardFinding>[],
): string {
  const pairs = parts.flat();
  assert(pairs.length > 0, "something is told");
  return [facts(pairs), "", ...(findings.length === 0 ? [] : [findingsTable(findings), ""])].join("\n");
}
