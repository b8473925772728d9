// Writing an image onto a disk of a host: which image and disk, and the proof that is printed of it.
import type { Static } from "typebox";
import { Check } from "typebox/value";
import type { CommandView, ImageView } from "../protocol/api.ts";
import {
  DeployOutput,
  type DeployPlanArguments,
  type DeployPlanOutput,
  DeploysOutput,
  VerifyOutput,
  type WrongGroup,
} from "../protocol/commands.ts";
import {
  type Disk,
  type DiskSelector,
  formatDiskSelector,
  type OverridableGuard,
} from "../protocol/disks.ts";
import { type ChangeOptions, change, exitCodeOfChange } from "./change.ts";
import { changeText, deployPairs } from "./change-text.ts";
import { type ExitCode, exitCodes } from "./exit-codes.ts";
import { outputOf } from "./operation.ts";
import { facts, formatBytes, formatSeconds } from "./output.ts";

export interface DeployOptions extends Omit<ChangeOptions, "kind" | "arguments"> {
  /** Name, root or the beginning of a root. */
  readonly image: string;
  /** The same image goes onto each. */
  readonly disks: readonly WantedDisk[];
  /** How long the disks may still take to appear. */
  readonly waitSeconds?: number | undefined;
  /** How hard it may press on the host. */
  readonly work?: NonNullable<DeployPlanArguments["limits"]> | undefined;
}

export interface WantedDisk {
  readonly selector: DiskSelector;
  readonly overrides: readonly OverridableGuard[];
}

type Output = Static<typeof DeployOutput>;

export async function deploy({
  image: reference,
  disks,
  waitSeconds,
  work,
  ...options
}: DeployOptions): Promise<ExitCode> {
  const { client, terminal } = options;
  const { root, sizeBytes, name } = await client.image(reference);
  const [first, ...others] = disks.map(({ selector, overrides }) => ({
    disk: selector,
    ...(overrides.length === 0 ? {} : { overrides: [...new Set(overrides)] }),
  }));
  const changed = await change({
    ...options,
    kind: "image.deploy",
    arguments: {
      image: { root, sizeBytes, name },
      ...first,
      ...(others.length === 0 ? {} : { also: others }),
      ...(waitSeconds === undefined ? {} : { waitSeconds }),
      ...(work === undefined || Object.keys(work).length === 0 ? {} : { limits: work }),
    },
  });
  if (typeof changed === "number") return changed;
  const { plan, view } = changed;
  const several = Check(DeploysOutput, view.result?.output) ? view.result.output : undefined;
  if (several !== undefined) terminal.print(severalText(several));
  const exitCode = exitCodeOfChange(changed, terminal);
  if (exitCode !== exitCodes.ok) return exitCode;
  const output = several ?? outputOf(view, DeployOutput);
  terminal.document({ plan, deploy: output, command: view });
  if (several === undefined) terminal.print(outputText(outputOf(view, DeployOutput)));
  return exitCodes.ok;
}

/** What came of each disk, and the proof of those that hold the image. */
export function severalText({ also, ...first }: Static<typeof DeploysOutput>): string {
  const proof = Check(DeployOutput, first) ? { output: first } : {};
  return [{ ...first, ...proof }, ...also]
    .map(({ disk, outcome, error, output }) =>
      output === undefined
        ? facts([
            ["disk", nameOf(disk)],
            ["outcome", outcome],
            ...(error === undefined ? [] : ([["error", `${error.message} (${error.code})`]] as const)),
          ])
        : `${facts([["outcome", outcome]])}\n${outputText(output)}`,
    )
    .join("\n\n");
}

function nameOf({ path, serial, backing }: Output["disk"]): string {
  return [...new Set([path, serial, backing])].filter((part) => part !== null).join("  ");
}

/** A plan's output, as the host told it. */
export function planText(plan: DeployPlanOutput, image: Pick<ImageView, "name">, host: string): string {
  return changeText(
    [[["host", host]], deployPairs({ ...plan, image: { ...plan.image, name: image.name } })],
    plan.guards,
  );
}

export function outputText(output: Output): string {
  const { resumed, readback, seconds } = output;
  return facts([
    ["disk", nameOf(output.disk)],
    ["fetched", formatBytes(output.bytesFetched)],
    [
      "written",
      `${formatBytes(output.bytesWritten)}, ${formatBytes(output.bytesZeroed)} zeroed, ${formatBytes(output.bytesSkipped)} already right`,
    ],
    ...(resumed.times === 0
      ? []
      : [
          [
            "resumed",
            `${resumed.times} times: ${resumed.groupsKept} groups kept, ${resumed.groupsRechecked} checked again, ${resumed.groupsRewritten} written again`,
          ] as [string, string],
        ]),
    ...wrongPairs(
      readback.repairedGroups,
      readback.repaired,
      "read back wrong twice, written again, right now",
    ),
    [
      "took",
      `${formatSeconds(seconds.total)}: write ${formatSeconds(seconds.write)}, read back ${formatSeconds(seconds.readback)}`,
    ],
    ["image root", output.root],
    [
      "disk root",
      `${readback.root}  ${readback.root === output.root ? "the same" : "DIFFERENT"}, read ${readback.direct ? "past" : "through"} the page cache`,
    ],
  ]);
}

const wrongShownMax = 8;

/** Groups that a disk gave back wrong, by the logical blocks that they lie in. */
export function wrongPairs(
  wrong: readonly WrongGroup[] = [],
  count = wrong.length,
  what = "differ",
): (readonly [string, string])[] {
  if (count === 0) return [];
  const shown = wrong
    .slice(0, wrongShownMax)
    .map(
      ({ group, offset, lba, blocks, expected, found }) =>
        [
          "",
          `LBA ${lba} to ${lba + blocks - 1}, group ${group} from byte ${offset}: ${found}, not ${expected}`,
        ] as const,
    );
  const rest = count - shown.length;
  return [
    ["wrong groups", `${count} ${what}`],
    ...shown,
    ...(rest > 0 ? ([["", `and ${rest} more`]] as const) : []),
  ];
}

/** Of an image.verify that came to an end. */
export function wrongPairsOf({ result }: Pick<CommandView, "result">): (readonly [string, string])[] {
  const output: unknown = result?.output;
  return Check(VerifyOutput, output) ? wrongPairs(output.wrong, output.wrongGroupCount) : [];
}

/** How to select this disk and no other, ready to paste; null when nothing stable names it. */
export function selectorOf(disk: Static<typeof Disk>): string | null {
  const selector: DiskSelector | undefined =
    disk.fileDisk !== null
      ? { file: disk.fileDisk }
      : disk.type === "loop" && disk.backing !== null
        ? { loop: disk.backing }
        : disk.serial !== null
          ? { serial: disk.serial }
          : disk.wwn !== null
            ? { wwn: disk.wwn }
            : disk.byId[0] !== undefined
              ? { byId: disk.byId[0] }
              : disk.hctl !== null
                ? { hctl: disk.hctl }
                : undefined;
  // A comma separates a selector's parts, so a value with one cannot be written.
  return selector === undefined || Object.values(selector).some((value) => `${value}`.includes(","))
    ? null
    : formatDiskSelector(selector);
}
