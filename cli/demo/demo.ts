// `bedplate demo`: sets the stage, plays the acts, says what was measured, and clears everything away.
import { statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import type { ImageView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { monotonic } from "../clock.ts";
import { type ExitCode, exitCodes } from "../exit-codes.ts";
import { formatBytes, formatSeconds } from "../output.ts";
import type { Terminal } from "../terminal.ts";
import {
  addImage,
  deployAct,
  flippedBitAct,
  importImageOf,
  killedExecutorAct,
  type Play,
  showHost,
} from "./acts.ts";
import { labUnsigned } from "./disks.ts";
import { type DemoImage, givenImage, makeImage } from "./image.ts";
import { type DemoHost, openHost, openStage } from "./stage.ts";
import { createStory, type Story } from "./story.ts";
import { type DemoSummary, emptySummary, faultsOf } from "./summary.ts";

export interface DemoOptions {
  readonly terminal: Terminal;
  /** End after the last act. */
  readonly once: boolean;
  readonly sizeBytes: number;
  readonly imageFile?: string;
}

const mib = 1 << 20;
/** Raw image, groups at the importer and in the store, three disks. */
const copiesOfImage = 6;
/** A disk is larger than what is written to it. */
const spareDiskBytes = 16 * mib;
/** Fewer leave nothing to be half-way in. */
const storedGroupsMin = 8;

/** Returns when all it started has ended and all it made is gone. */
export async function runDemo(options: DemoOptions, interrupt: AbortSignal): Promise<ExitCode> {
  const { terminal, once } = options;
  const started = monotonic();
  const summary = emptySummary();
  const faults: string[] = [];
  const stop = new AbortController();
  const signal = AbortSignal.any([interrupt, stop.signal]);
  let failure: unknown;
  let played = false;
  const perform = async (stage: Awaited<ReturnType<typeof openStage>>, cleared: AsyncDisposableStack) => {
    try {
      const story = createStory(terminal);
      const flippedGroup = await play({ ...options, stage, story, summary, faults, signal, stop, cleared });
      faults.push(...faultsOf(summary, { flippedGroup }));
      summary.ok = faults.length === 0;
      played = true;
      finish(terminal, story, { summary, faults, seconds: (monotonic() - started) / 1000 });
      if (!once) await stay(terminal, stage, signal);
    } catch (error) {
      // What was waited for ends with the signal's reason, or with an error that comes of it.
      failure = signal.aborted ? signal.reason : error;
    }
  };
  try {
    await using stage = await openStage({ signal });
    await using cleared = new AsyncDisposableStack();
    await perform(stage, cleared);
  } catch (error) {
    failure ??= error;
  }
  terminal.status("");
  if (failure !== undefined && !played) {
    summary.ok = false;
    if (interrupt.aborted) throw failure;
    terminal.fail(failure, summaryDocument(summary));
    return failure instanceof BedplateError && failure.code === "usage" ? exitCodes.usage : exitCodes.failed;
  }
  if (failure !== undefined && !interrupt.aborted) throw failure;
  if (once) terminal.document(summary);
  return summary.ok ? exitCodes.ok : exitCodes.failed;
}

interface Production extends DemoOptions {
  readonly stage: Awaited<ReturnType<typeof openStage>>;
  readonly story: Story;
  readonly summary: DemoSummary;
  readonly faults: string[];
  readonly signal: AbortSignal;
  readonly stop: AbortController;
  readonly cleared: AsyncDisposableStack;
}

/** @returns the group whose bit was flipped */
async function play(production: Production): Promise<number> {
  const { terminal, stage, story, summary, faults, signal, stop, cleared, sizeBytes, imageFile } = production;
  story.act(
    "A host joins",
    "A controller makes its own authority and listens on loopback. An agent gets a join token, which pins that authority: the agent proves its key to the right controller or to none.",
  );
  let image: DemoImage;
  let imported: { store: string; image: ImageView } | undefined;
  if (imageFile === undefined) {
    await requireSpace(sizeBytes * copiesOfImage);
    image = await makeImage(stage.directory, sizeBytes, signal);
  } else {
    image = await givenImage(imageFile);
    imported = await importImageOf({ path: image.path, stage, terminal, signal });
    requireContent(imported.image);
    await requireSpace(imported.image.sizeBytes * 3);
  }
  const imageBytes = imported?.image.sizeBytes ?? sizeBytes;
  const { token } = await stage.client.createJoinToken({ ttlSeconds: 600, uses: 1 });
  const diskBytes = Math.ceil(imageBytes / mib) * mib + spareDiskBytes;
  const host: DemoHost = cleared.use(await openHost(stage, { diskBytes, joinToken: token, signal }));
  host.died.catch((error: unknown) => stop.abort(error));
  story.say(`The controller listens on ${stage.controllerUrl}.`);
  story.say(`${host.name} has joined; ${rightsText(host)}`);
  story.say(
    `LAB PROFILE: the host's policy says unsigned = ${JSON.stringify(labUnsigned)}, so whoever has the controller's API may overwrite its disks. On a host that matters operators sign: bedplate command sign.`,
  );

  const play: Play = { stage, host, terminal, signal, story, summary, faults };
  await showHost(play);
  const added = await addImage(play, image, imported);
  requireContent(added);
  const [first, second, third] = host.disks.disks;
  await deployAct(play, added, first!);
  const flippedGroup = await flippedBitAct(play, added, second!);
  await killedExecutorAct(play, added, third!);
  const { telemetry } = await stage.client.host(host.name);
  summary.telemetry = { samples: telemetry.samples, series: telemetry.series, gaps: telemetry.gaps };
  return flippedGroup;
}

function rightsText({ rights, disks }: DemoHost): string {
  const kind = disks.kind === "loop" ? "loop devices" : "files that its policy declares as disks";
  const why = disks.reason === undefined ? "" : ` (${disks.reason})`;
  switch (rights.kind) {
    case "private-mounts":
      return `it runs as root, with a policy and a state of its own in a private mount namespace. Its disks are ${kind}${why}.`;
    case "other-user":
      return `${rights.reason ?? "private mounts cannot be used here"}, so it runs as nobody. Its disks are ${kind}${why}.`;
    case "own-user":
      return `it runs as an ordinary user, without root. Its disks are ${kind}${why}.`;
  }
}

async function requireSpace(bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(tmpdir());
  if (bavail * bsize >= bytes) return;
  throw new BedplateError(
    "demo.failed",
    `${tmpdir()} has ${formatBytes(bavail * bsize)} free; the demo needs ${formatBytes(bytes)}.`,
    {
      hint: "Name another place with TMPDIR, or a smaller image with --size.",
    },
  );
}

function requireContent(image: ImageView): void {
  if (image.groups - image.zeroGroups >= storedGroupsMin) return;
  throw new BedplateError(
    "usage",
    `The image has ${image.groups - image.zeroGroups} MiB that are not zero; the demo needs ${storedGroupsMin}.`,
    {
      hint: "Take a larger --image, or leave it to the demo to make one.",
    },
  );
}

function finish(
  terminal: Terminal,
  story: Story,
  { summary, faults, seconds }: { summary: DemoSummary; faults: readonly string[]; seconds: number },
): void {
  story.act(
    summary.ok ? "All of it held" : "Something did not hold",
    `Everything above was measured in ${formatSeconds(seconds)}, with real processes and sockets.`,
  );
  const { telemetry } = summary;
  if (telemetry !== null)
    story.say(
      `Telemetry: ${telemetry.samples} samples of ${telemetry.series} series, ${telemetry.gaps} gaps.`,
    );
  for (const fault of faults) terminal.note(`error: ${fault}`);
}

/** The live view, until interrupted. */
async function stay(
  terminal: Terminal,
  stage: Awaited<ReturnType<typeof openStage>>,
  signal: AbortSignal,
): Promise<void> {
  terminal.print(
    `\n   Now a live view. In another terminal: bedplate --client ${stage.clientFile} hosts\n   Ctrl-C ends all of it and leaves nothing behind.\n`,
  );
  const { watchHost } = await import("../watch.ts");
  await watchHost({ client: stage.client, terminal, signal, reference: "demo-host" });
}

function summaryDocument(summary: DemoSummary): Readonly<Record<string, unknown>> {
  return { ...summary };
}
