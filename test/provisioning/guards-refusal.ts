// What every refusal promises, asked of the real command line: its exit code, its error, its words, and every byte as it was.
import { expect } from "vitest";
import type { CommandView } from "../../protocol/api.ts";
import type { Code } from "../../protocol/codes.ts";
import type { GuardFinding } from "../../protocol/disks.ts";
import type { Plan } from "../../protocol/plans.ts";
import type { Failure, Run } from "../support/command-line.ts";
import type { Loop, Stretch } from "./guards-disks.ts";
import type { GuardsHost } from "./guards-host.ts";

export interface Refusal {
  readonly code: Code;
  /** Those that refuse, in the order of the plan; the first has the code. */
  readonly guards: readonly string[];
  /** What the first finding says. */
  readonly says: RegExp | string;
}

export interface DeployTo {
  readonly loop: Loop;
  readonly image?: string;
  readonly selector?: string;
  readonly overrides?: readonly string[];
  /** Of the disk: what the kernel may write meanwhile. */
  readonly without?: Stretch;
}

export const deployWords = (host: GuardsHost, { loop, image, selector, overrides = [] }: DeployTo) => [
  ...["deploy", host.name, "--image", image ?? "small", "--disk", selector ?? loop.selector],
  ...overrides.flatMap((guard) => ["--override", guard]),
];

/** `--plan` tells it, and `--yes` ends with it. @returns the plan */
export async function expectRefused(
  host: GuardsHost,
  to: DeployTo,
  { code, guards, says }: Refusal,
): Promise<Plan> {
  const { loop, without } = to;
  const before = loop.hash(without);
  const [planned, applied] = await Promise.all([
    host.operator.run(...deployWords(host, to), "--plan"),
    host.operator.run("--json", ...deployWords(host, to), "--yes"),
  ]);
  const after = loop.hash(without);
  expect(after, `${loop.path} is as it was`).toBe(before);

  expect(planned.code, textOf(planned)).toBe(3);
  const lines = planned.stdout.split("\n").filter((line) => line.includes("REFUSES"));
  expect(lines.map((line) => line.split(/\s+/)[0])).toEqual(guards);
  expect(lines[0]).toMatch(says);
  expect(planned.stderr).toContain(`code: ${code}`);

  expect(applied.code, textOf(applied)).toBe(3);
  const { error, plan } = JSON.parse(applied.stdout) as Failure & { plan: Plan };
  expect(error.code).toBe(code);
  expect((error.details!.guards as readonly GuardFinding[]).map(({ guard }) => guard)).toEqual(guards);
  for (const message of [error.message, planned.stderr]) {
    expect(message).toMatch(says);
    expect(message).toContain(nameOf(plan, loop));
  }
  expect(error.hint).toMatch(/\S/);
  expect(plan.allowed).toBe(false);
  return plan;
}

function nameOf({ arguments: { fingerprint } }: Plan, { path, backing }: Loop): string {
  const { serial } = fingerprint as { serial: string | null };
  return `${path} (${serial === null ? `backing ${backing}` : `serial ${serial}`}) is not touched.`;
}

/** @returns the plan that it was done by */
export async function expectDeployed(host: GuardsHost, to: DeployTo): Promise<Plan> {
  const before = to.loop.hash();
  const words = [...deployWords(host, to), "--yes"];
  const { plan, deploy } = await host.operator.json<{
    plan: Plan;
    deploy: { root: string; readback: { root: string } };
  }>(0, ...words);
  expect(to.loop.hash()).not.toBe(before);
  expect(deploy.readback.root).toBe(deploy.root);
  const verify = ["verify", host.name, "--image", to.image ?? "small", "--disk", to.loop.selector];
  await host.operator.json(0, ...verify);
  return plan;
}

/**
 * A deploy that is allowed and waits for its signature, then whatever happens to the disk, then the signature.
 * @returns how it ended; nothing of the disk may have changed since
 */
export async function expectRefusedAfter(
  host: GuardsHost,
  to: DeployTo,
  happening: () => void | Promise<void>,
): Promise<CommandView> {
  const { plan, command } = await host.operator.json<{ plan: Plan; command: CommandView }>(
    9,
    ...deployWords(host, to),
    "--yes",
  );
  expect(plan.allowed).toBe(true);
  await happening();
  const before = to.loop.hash();
  await host.operator.json(0, "command", "sign", command.id, "--key", host.key, "--yes");
  const shown = await host.operator.run("--json", "command", "show", command.id, "--follow");
  expect(to.loop.hash(), `${to.loop.path} is as it was`).toBe(before);
  expect(shown.code, textOf(shown)).toBe(3);
  const view = JSON.parse(shown.stdout.trim().split("\n").at(-1)!) as CommandView;
  expect(["failed", "refused"]).toContain(view.state);
  return view;
}

export function textOf({ stdout, stderr }: Run): string {
  return `${stdout}${stderr}`;
}
