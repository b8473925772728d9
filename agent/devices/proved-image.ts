// What can be known of an image before the first write to any disk: that its first MiB can be had, and that what its
// manifest calls zeroes is that. Once for all disks of a command.
import type { GroupKernel } from "../../assembly/index.ts";
import { groupCount, type Manifest } from "../../protocol/manifest.ts";
import type { Clock } from "../host/clock.ts";
import type { Pause } from "../host/pause.ts";
import type { Random } from "../host/random.ts";
import type { Work } from "./group-work.ts";
import { countOf, extentOf, isZeroGroup, type SharedImage } from "./image-job.ts";
import { createImageRun, type ImageWorkers } from "./image-run.ts";
import { lazyConnections } from "./lazy-connections.ts";
import type { UsableSource } from "./open-sources.ts";
import { createPace } from "./pace.ts";
import { fetchFirst } from "./seal.ts";
import { shareImage } from "./share-image.ts";
import { fetchingOf } from "./sources.ts";

export interface ProvedImage extends AsyncDisposable {
  /** What was fetched for it is in here, until a disk takes it to its own account. */
  readonly shared: SharedImage;
  /** Of what the manifest calls zeroes, and how many of them are proved. */
  readonly zeroBytes: number;
  readonly provedBytes: () => number;
  /**
   * The first group, verified, as long as it is in the image: when all is proved. A failure is told once; whoever asks
   * after it has it tried again.
   * @throws `image.bad-manifest`, `image.corrupt` and others
   */
  first(): Promise<Uint8Array>;
}

export interface ProvingOptions {
  readonly manifest: Manifest;
  readonly sources: readonly UsableSource[];
  readonly ca: string;
  readonly fetchBytesPerSecondMax?: number | undefined;
  /** Of this thread: its last window is used while the first group is fetched. */
  readonly kernel: GroupKernel;
  /** Until it is proved they do nothing else. */
  readonly workers: ImageWorkers;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  readonly pause: Pause;
}

/**
 * Zeroes are proved from now on, while the disks are looked at. Nothing is fetched before it is asked for: by then no guard
 * refuses a disk any more. Nothing of it goes on when its disposal has ended.
 */
export function proveImage(options: ProvingOptions): ProvedImage {
  const { manifest, sources, ca, kernel, workers, clock, random, pause } = options;
  const stopped = new AbortController();
  const signal = AbortSignal.any([options.signal, stopped.signal]);
  const shared = shareImage(manifest);
  const job = {
    disk: { path: "", fd: -1, direct: false },
    sectorBytes: 1,
    sizeBytes: manifest.sizeBytes,
    claimedBefore: 0,
    ...{ shared, sources, ca, fetchBytesPerSecondMax: options.fetchBytesPerSecondMax },
  };
  const zeroBytes = zeroBytesOf(job);

  async function fetch(): Promise<Uint8Array> {
    await pause.safePoint(signal);
    using connections = lazyConnections(ca);
    const fetching = fetchingOf(job, { connections, clock, random, signal });
    const pace = createPace(undefined, clock, signal);
    const work: Work = { job: { ...job, phase: "write" }, kernel, signal, fetching, pace };
    return await fetchFirst(work);
  }

  async function proveZeroes(): Promise<void> {
    if (zeroBytes === 0) return;
    const run = createImageRun({ job, clock, workers });
    await run.run("prove", { first: 0, signal, pause, onStart() {}, onTick: async () => {} });
  }

  const zeroes = retried(proveZeroes);
  const first = retried(async () => {
    const [fetched, proved] = await Promise.allSettled([fetch(), zeroes()]);
    if (fetched.status === "rejected") throw fetched.reason;
    if (proved.status === "rejected") throw proved.reason;
    return fetched.value;
  });
  // Unhandled until somebody asks.
  zeroes().catch(() => {});
  return {
    shared,
    zeroBytes,
    provedBytes: () => countOf(shared, "done"),
    first,
    async [Symbol.asyncDispose]() {
      stopped.abort();
      await Promise.allSettled([first.begun(), zeroes.begun()]);
    },
  };
}

function zeroBytesOf(image: Parameters<typeof extentOf>[0] & { readonly shared: SharedImage }): number {
  let bytes = 0;
  for (let group = 0; group < groupCount(image.sizeBytes); group++)
    if (isZeroGroup(image.shared, group)) bytes += extentOf(image, group).length;
  return bytes;
}

/** Done once, for whoever asks: but a failure is told once, and who asks after it has it done again. */
function retried<T>(act: () => Promise<T>): { (): Promise<T>; begun(): Promise<T> | undefined } {
  let doing: Promise<T> | undefined;
  const asked = async () => {
    doing ??= act();
    const mine = doing;
    try {
      return await mine;
    } catch (error) {
      if (doing === mine) doing = undefined;
      throw error;
    }
  };
  return Object.assign(asked, { begun: () => doing });
}
