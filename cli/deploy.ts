// Writing an image onto a disk of a host: which image and disk, and the proof that is printed of it.
import type { Static } from "typebox";
import type { ImageView } from "../protocol/api.ts";
import { DeployOutput, type DeployPlanOutput } from "../protocol/commands.ts";
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
  readonly selector: DiskSelector;
  /** How long the disk may still take to appear. */
  readonly waitSeconds?: number | undefined;
  readonly overrides?: readonly OverridableGuard[] | undefined;
}

type Output = Static<typeof DeployOutput>;

export async function deploy({
  image: reference,
  selector,
  waitSeconds,
  overrides,
  ...options
}: DeployOptions): Promise<ExitCode> {
  const { client, terminal } = options;
  const { root, sizeBytes, name } = await client.image(reference);
  const changed = await change({
    ...options,
    kind: "image.deploy",
    arguments: {
      image: { root, sizeBytes, name },
      disk: selector,
      ...(waitSeconds === undefined ? {} : { waitSeconds }),
      ...(overrides === undefined ? {} : { overrides: [...new Set(overrides)] }),
    },
  });
  if (typeof changed === "number") return changed;
  const { plan, view } = changed;
  const exitCode = exitCodeOfChange(changed, terminal);
  if (exitCode !== exitCodes.ok) return exitCode;
  const output = outputOf(view, DeployOutput);
  terminal.document({ plan, deploy: output, command: view });
  terminal.print(outputText(output));
  return exitCodes.ok;
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
    [
      "disk",
      [...new Set([output.disk.path, output.disk.serial, output.disk.backing])]
        .filter((part) => part !== null)
        .join("  "),
    ],
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
