// Writing an image onto a disk of a host: the plan shown, the loss confirmed, the plan applied, the proof printed.
import { basename } from "node:path";
import { createInterface } from "node:readline/promises";
import type { Static } from "typebox";
import type { ImageView } from "../protocol/api.ts";
import { DeployOutput, DeployPlanOutput } from "../protocol/commands.ts";
import { type Disk, type DiskSelector, formatDiskSelector } from "../protocol/disks.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { ApiClient } from "./api-client.ts";
import { errorOfReport } from "./context.ts";
import { type ExitCode, exitCodeOfState, exitCodes } from "./exit-codes.ts";
import { operate, outputOf, succeeded } from "./operation.ts";
import { facts, formatBytes, formatSeconds, plain, table } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export interface DeployOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
  /** Name, root or the beginning of a root. */
  readonly image: string;
  readonly selector: DiskSelector;
  readonly planOnly: boolean;
  readonly confirmed: boolean;
  readonly timeoutSeconds?: number;
}

type Plan = Static<typeof DeployPlanOutput>;
type Output = Static<typeof DeployOutput>;

export async function deploy(options: DeployOptions): Promise<ExitCode> {
  const { client, terminal, signal, reference, selector } = options;
  const image = await client.image(options.image);
  const wanted = {
    image: { root: image.root, sizeBytes: image.sizeBytes, name: image.name },
    disk: selector,
  };
  const common = {
    client,
    terminal,
    signal,
    reference,
    kind: "image.deploy" as const,
    ...(options.timeoutSeconds === undefined ? {} : { timeoutSeconds: options.timeoutSeconds }),
  };

  const planned = await operate({ ...common, mode: "plan", arguments: wanted });
  if (!succeeded(planned.view, terminal)) return exitCodeOfState(planned.view.state);
  const plan = outputOf(planned.view, DeployPlanOutput);
  terminal.print(planText(plan, image, planned.host.name));
  if (!plan.allowed) {
    terminal.fail(refusalOf(plan), { plan });
    return exitCodes.refused;
  }
  if (options.planOnly) {
    terminal.document({ plan });
    return exitCodes.ok;
  }
  if (!options.confirmed) await confirm(plan.disk, planned.host.name, signal);

  const { view } = await operate({
    ...common,
    mode: "apply",
    arguments: { ...wanted, fingerprint: plan.fingerprint },
  });
  if (!succeeded(view, terminal, { plan })) return exitCodeOfState(view.state);
  const output = outputOf(view, DeployOutput);
  terminal.document({ plan, deploy: output, command: view });
  terminal.print(outputText(output));
  return exitCodes.ok;
}

/** What must be typed before a disk is overwritten: its serial, else the name of the file behind it. */
export function confirmationOf(disk: Pick<Static<typeof Disk>, "serial" | "backing" | "path">): string {
  return disk.serial ?? (disk.backing === null ? disk.path : basename(disk.backing));
}

async function confirm(disk: Static<typeof Disk>, host: string, signal: AbortSignal): Promise<void> {
  const expected = confirmationOf(disk);
  const what = disk.serial === null ? (disk.backing === null ? "path" : "backing file's name") : "serial";
  const questions = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const answer = await questions.question(
      `All data on ${plain(disk.path)} of ${plain(host)} will be lost. Type its ${what} (${plain(expected)}) to go on: `,
      { signal },
    );
    if (answer.trim() === expected) return;
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    questions.close();
  }
  throw new BedplateError("command.cancelled", "That is not it; nothing was changed.");
}

function refusalOf(plan: Plan): BedplateError {
  const refusing = plan.guards.filter((guard) => !guard.ok);
  const first = refusing[0];
  const code = first?.code ?? "policy.denied";
  return errorOfReport({
    code,
    message: `Refused: ${refusing.map((guard) => guard.finding).join("; ") || "the host does not allow it"}`,
    ...(code === "disk.not-allowed" || code === "policy.missing"
      ? { hint: "Only the host's own root can allow a disk, by its serial in /etc/bedplate/policy.toml." }
      : {}),
    details: { guards: refusing },
  });
}

export function planText(plan: Plan, image: Pick<ImageView, "name">, host: string): string {
  const { disk, fingerprint } = plan;
  const identity = [
    ...(fingerprint.serial === null ? [] : [`serial ${fingerprint.serial}`]),
    ...(fingerprint.wwn === null ? [] : [`wwn ${fingerprint.wwn}`]),
    ...(fingerprint.backing === null ? [] : [`backing ${fingerprint.backing}`]),
  ];
  return [
    facts([
      ["host", host],
      ["image", `${image.name}  ${plan.image.root}`],
      [
        "disk",
        `${disk.path}  ${formatBytes(disk.sizeBytes)} ${disk.type}${disk.model === null ? "" : ` ${disk.model}`}`,
      ],
      ["fingerprint", [...identity, `edges ${fingerprint.edges.slice(0, 16)}`].join(", ")],
      ["sectors", `${fingerprint.logicalSectorBytes} logical, ${fingerprint.physicalSectorBytes} physical`],
      ["to fetch", `at most ${formatBytes(plan.bytesToFetchMax)}`],
      ["to write", `at most ${formatBytes(plan.bytesToWriteMax)}`],
    ]),
    "",
    table(plan.guards, [
      { title: "GUARD", of: (guard) => guard.guard },
      { title: "", of: (guard) => (guard.ok ? "ok" : "REFUSES") },
      { title: "FINDING", of: (guard) => guard.finding },
    ]),
    "",
  ].join("\n");
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
