// Reads an open disk and compares it with an image, group by group.
import { mergeGroups } from "../../assembly/index.ts";
import { equalBytes, hex } from "../../protocol/bytes.ts";
import type { VerifyOutput } from "../../protocol/commands.ts";
import { groupCount, type Manifest } from "../../protocol/manifest.ts";
import type { Clock } from "../host/clock.ts";
import type { Pause } from "../host/pause.ts";
import type { OpenDisk } from "./direct-file.ts";
import { countOf } from "./image-job.ts";
import { createImageRun, type ImageWorkers } from "./image-run.ts";
import { shareImage } from "./share-image.ts";
import { wrongCount, wrongGroups } from "./wrong-groups.ts";

export interface VerifyRequest {
  readonly manifest: Manifest;
  readonly open: OpenDisk;
  readonly sectorBytes: number;
  /** Of what is read; undefined: as fast as it goes. */
  readonly bytesPerSecondMax?: number | undefined;
  readonly workers: ImageWorkers;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly pause: Pause;
  readonly phase: (name: string, total: number, done: () => number) => void;
}

export async function verifyImage({
  manifest,
  open,
  sectorBytes,
  bytesPerSecondMax,
  workers,
  clock,
  signal,
  pause,
  phase,
}: VerifyRequest): Promise<VerifyOutput> {
  const started = clock.monotonic();
  const shared = shareImage(manifest);
  const count = groupCount(manifest.sizeBytes);
  const disk = { path: open.path, fd: open.fd, direct: open.direct };
  const { sizeBytes } = manifest;
  const job = {
    disk,
    sectorBytes,
    sizeBytes,
    claimedBefore: 0,
    shared,
    sources: [],
    ca: "",
    bytesPerSecondMax,
  };
  const run = createImageRun({ job, workers, clock });
  const onStart = () => phase("verify", sizeBytes, () => countOf(shared, "done"));
  await run.run("verify", { first: 0, signal, pause, onStart, onTick: async () => {} });
  const root = mergeGroups(new Uint8Array(shared.found), count);
  const wrongGroupCount = wrongCount(shared);
  const wrong = wrongGroups(job);
  return {
    root: hex(root),
    expectedRoot: hex(manifest.root),
    matches: equalBytes(root, manifest.root) && wrongGroupCount === 0,
    direct: open.direct,
    groups: count,
    wrongGroups: wrong.map(({ group }) => group),
    wrongGroupCount,
    wrong,
    rereads: countOf(shared, "rereads"),
    seconds: (clock.monotonic() - started) / 1000,
  };
}
