// What the demo measured, and whether every act ended as it must.
import type { Static } from "typebox";
import type { HostView } from "../../protocol/api.ts";
import type { DeployOutput } from "../../protocol/commands.ts";
import type { Inventory } from "../../protocol/inventory.ts";
import { labUnsigned } from "./disks.ts";

export interface DemoSummary {
  ok: boolean;
  host: {
    readonly name: string;
    readonly id: string;
    readonly hostname: string;
    readonly agentVersion: string;
    readonly agentRuns: string;
    /** A lab's policy: these kinds of command need no operator's signature. */
    readonly unsigned: readonly string[];
    readonly kernel: string;
    readonly architecture: string;
    readonly processor: string | null;
    readonly threads: number;
    readonly memoryBytes: number;
    readonly disks: readonly {
      readonly path: string;
      readonly type: string;
      readonly sizeBytes: number;
      readonly allowed: boolean;
    }[];
  } | null;
  telemetry: { readonly samples: number; readonly series: number; readonly gaps: number } | null;
  image: { readonly root: string; readonly sizeBytes: number } | null;
  deploy: {
    readonly state: string;
    readonly bytesFetched: number;
    readonly bytesWritten: number;
    readonly bytesSkipped: number;
    readonly seconds: number;
    /** The root computed from what the disk gave back; null when it did not come so far. */
    readonly readback: string | null;
  } | null;
  corrupt: {
    readonly state: string;
    readonly code: string | null;
    readonly group: number | null;
    readonly bytesWrittenOfBadGroup: number;
  } | null;
  resume: { readonly state: string; readonly groupsRewritten: number } | null;
}

export function emptySummary(): DemoSummary {
  return {
    ok: false,
    host: null,
    telemetry: null,
    image: null,
    deploy: null,
    corrupt: null,
    resume: null,
  };
}

/** What must hold, as sentences of what does not. */
export function faultsOf(
  summary: DemoSummary,
  expected: { readonly flippedGroup: number | undefined },
): string[] {
  const { host, telemetry, image, deploy, corrupt, resume } = summary;
  const faults: [boolean, string][] = [
    [host !== null, "the host did not show its inventory"],
    [telemetry !== null && telemetry.series > 0 && telemetry.samples > 0, "no telemetry came"],
    [image !== null, "there is no image"],
    [deploy?.state === "succeeded", `the deploy ended ${deploy?.state ?? "before it began"}`],
    [deploy !== null && deploy.readback === image?.root, "the disk does not hold the image"],
    [
      corrupt?.state === "failed",
      `with a flipped bit the deploy ended ${corrupt?.state ?? "before it began"}`,
    ],
    [corrupt?.code === "image.corrupt", `with a flipped bit the code is ${corrupt?.code ?? "none"}`],
    [
      corrupt !== null && corrupt.group === expected.flippedGroup,
      "the corrupt group is not the one whose bit was flipped",
    ],
    [corrupt?.bytesWrittenOfBadGroup === 0, "bytes of the corrupt group reached the disk"],
    [resume?.state === "succeeded", `the killed deploy ended ${resume?.state ?? "before it began"}`],
  ];
  return faults.filter(([holds]) => !holds).map(([, fault]) => fault);
}

export function hostSummary(
  host: HostView,
  inventory: Static<typeof Inventory>,
  agentRuns: string,
): DemoSummary["host"] {
  const { system, cpu, memory, disks } = inventory;
  return {
    name: host.name,
    id: host.id,
    hostname: host.hostname,
    agentVersion: host.agentVersion,
    agentRuns,
    unsigned: labUnsigned,
    kernel: system.kernel,
    architecture: system.architecture,
    processor: cpu.model,
    threads: cpu.threads,
    memoryBytes: memory.totalBytes,
    disks: disks.map(({ path, type, sizeBytes, allowed }) => ({ path, type, sizeBytes, allowed })),
  };
}

export function deploySummary(
  state: string,
  output: Static<typeof DeployOutput> | undefined,
): DemoSummary["deploy"] {
  return {
    state,
    bytesFetched: output?.bytesFetched ?? 0,
    bytesWritten: output?.bytesWritten ?? 0,
    bytesSkipped: output?.bytesSkipped ?? 0,
    seconds: output?.seconds.total ?? 0,
    readback: output?.readback.root ?? null,
  };
}
