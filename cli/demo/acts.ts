// The demo's acts, each on the stage that is set: what is done, what is measured, what must hold.
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ImageView, LiveDictionary, LiveSample } from "../../protocol/api.ts";
import { DeployOutput, DeployPlanOutput, VerifyOutput } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { Inventory } from "../../protocol/inventory.ts";
import { outputText, planText } from "../deploy.ts";
import { inventoryText } from "../host-show.ts";
import { importIntoStore, uploadImage } from "../image-add.ts";
import { type Operation, type OperationOptions, operate, outputOf } from "../operation.ts";
import { facts, formatBytes, formatSeconds, progressLine } from "../output.ts";
import type { Terminal } from "../terminal.ts";
import { type DemoDisk, readDisk, writeDisk } from "./disks.ts";
import { flipBit } from "./flip-bit.ts";
import type { DemoImage } from "./image.ts";
import { killHalfWay } from "./kill-half-way.ts";
import type { DemoHost, Stage } from "./stage.ts";
import type { Story } from "./story.ts";
import { type DemoSummary, deploySummary, hostSummary } from "./summary.ts";
import { vitalsLine, vitalsOf } from "./vitals.ts";

export interface Play {
  readonly stage: Stage;
  readonly host: DemoHost;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly story: Story;
  readonly summary: DemoSummary;
  /** What did not end as it must, beyond what the summary shows. */
  readonly faults: string[];
}

const operationSeconds = 120;
const mib = 1 << 20;

function operation(
  play: Play,
  options: Pick<OperationOptions, "kind" | "mode" | "arguments">,
): Promise<Operation> {
  const { stage, host, terminal, signal } = play;
  return operate({
    client: stage.client,
    terminal,
    signal,
    reference: host.name,
    timeoutSeconds: operationSeconds,
    ...options,
  });
}

function prove(play: Play, holds: boolean, text: string): void {
  play.story.proof(holds, text);
  if (!holds) play.faults.push(`not so: ${text}`);
}

export async function showHost(play: Play): Promise<void> {
  const { host, story, summary } = play;
  story.act(
    "What the host is, and how it is",
    "An executor process reads the inventory, by stable names only: /dev/sda may be another disk after the next boot. The agent samples the kernel's counters every second in WebAssembly.",
  );
  const { host: known, view } = await operation(play, { kind: "host.inventory" });
  if (view.state !== "succeeded") throw failed("The inventory", view.result?.error?.message ?? view.state);
  const inventory = outputOf(view, Inventory);
  summary.host = hostSummary(known, inventory, host.rights.kind);
  story.show(inventoryText(inventory));
  story.gap();
  await showTelemetry(play, known.id);
}

async function showTelemetry({ stage, story, signal }: Play, host: string): Promise<void> {
  let dictionary: LiveDictionary | undefined;
  let before: LiveSample | undefined;
  let shown = 0;
  const stop = new AbortController();
  for await (const event of stage.client.live(host, AbortSignal.any([signal, stop.signal]))) {
    if (event.type === "dictionary") {
      dictionary = event.dictionary;
      before = undefined;
      continue;
    }
    if (dictionary !== undefined && before !== undefined) {
      story.show(vitalsLine(vitalsOf(dictionary, before, event.sample)));
      if (++shown === 3) break;
    }
    before = event.sample;
  }
  stop.abort();
  signal.throwIfAborted();
  story.say(
    `${dictionary?.series.length ?? 0} series a second, live over the same connection that commands go down.`,
  );
}

export async function addImage(
  play: Play,
  { path, content }: DemoImage,
  imported: { store: string; image: ImageView } | undefined,
): Promise<ImageView> {
  const { stage, terminal, signal, story, summary } = play;
  story.act(
    "An image",
    "It is cut into 1 MiB groups. The manifest has the BLAKE3 digest of each, so that each can be verified alone before it is written; together they give the root, which is what b3sum prints for the whole.",
  );
  story.say(`Content: ${content}.`);
  const { store, image } = imported ?? (await importImageOf({ path, stage, terminal, signal }));
  await uploadImage({ client: stage.client, terminal, signal, store, root: image.root });
  await rm(store, { recursive: true, force: true });
  summary.image = { root: image.root, sizeBytes: image.sizeBytes };
  story.show(
    `${formatBytes(image.sizeBytes)} in ${image.groups} groups, ${image.zeroGroups} of them zero; ${formatBytes(image.storedBytes)} to send\nroot ${image.root}`,
  );
  return image;
}

export interface ImportSource {
  readonly path: string;
  readonly stage: Pick<Stage, "directory">;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
}

export async function importImageOf({
  path,
  stage,
  terminal,
  signal,
}: ImportSource): Promise<{ store: string; image: ImageView }> {
  const store = join(stage.directory, "import");
  const image = await importIntoStore({ terminal, signal, input: path, store, name: "demo" });
  return { store, image };
}

export async function deployAct(play: Play, image: ImageView, disk: DemoDisk): Promise<void> {
  const { story, summary } = play;
  story.act(
    "Deploy",
    "First a plan: every guard is evaluated and nothing is written. Apply quotes the disk's fingerprint, and the host refuses if it has changed. Groups are verified in WebAssembly and written from that same memory; the first MiB comes last, so that a half-written disk boots nothing.",
  );
  await soil(disk);
  const plan = await planFor(play, image, disk);
  story.show(planText(plan, image, play.host.name).trimEnd());
  story.gap();
  const { view } = await applyTo(play, image, disk, plan);
  const output = view.state === "succeeded" ? outputOf(view, DeployOutput) : undefined;
  summary.deploy = deploySummary(view.state, output);
  if (output === undefined) {
    story.proof(
      false,
      `the deploy ended ${view.state}: ${view.result?.error?.message ?? "it does not say why"}`,
    );
    return;
  }
  const rate = image.sizeBytes / Math.max(0.001, output.seconds.write);
  story.show(
    progressLine(
      {
        phase: "written",
        done: image.sizeBytes,
        total: image.sizeBytes,
        unit: "bytes",
        rate,
        secondsLeft: null,
      },
      100,
    ),
  );
  story.gap();
  story.show(outputText(output));
  story.gap();
  prove(
    play,
    output.readback.root === image.root,
    `read-back: the disk gives back the image${output.readback.direct ? ", read past the page cache" : ""}`,
  );

  const verified = await operation(play, {
    kind: "image.verify",
    arguments: { image: referenceTo(image), disk: disk.selector },
  });
  const verify = verified.view.state === "succeeded" ? outputOf(verified.view, VerifyOutput) : undefined;
  prove(
    play,
    verify?.matches === true && verify.root === image.root,
    `verified once more, as a command of its own${verify === undefined ? "" : `: ${verify.root}`}`,
  );
}

/** Old data in every fourth MiB, so that what is zero in the image has to be made zero. */
async function soil(disk: DemoDisk): Promise<void> {
  const offsets: number[] = [];
  for (let offset = 2 * mib; offset + mib <= disk.sizeBytes; offset += 4 * mib) offsets.push(offset);
  await writeDisk(disk, offsets, new Uint8Array(mib).fill(0x6f));
}

export async function flippedBitAct(play: Play, image: ImageView, disk: DemoDisk): Promise<number> {
  const { stage, story, summary, signal } = play;
  story.act(
    "A server that flips one bit",
    "Disks rot and proxies err. One bit of one group is flipped in the controller's own store; the same image is then deployed to the second disk, which holds old data.",
  );
  const flipped = await flipBit(join(stage.directory, "controller", "images", image.root));
  const old = new Uint8Array(flipped.length).map((_, i) => (i * 31 + 7) & 0xff);
  await writeDisk(disk, [flipped.offset], old);
  const before = await readDisk(disk, flipped.offset, flipped.length);
  story.say(
    `Bit ${flipped.bit} of byte ${flipped.at} of the stored groups is flipped: group ${flipped.group}, image offset ${flipped.offset}.${flipped.silent ? " Decompression does not notice." : ""}`,
  );
  const plan = await planFor(play, image, disk);
  const { view } = await applyTo(play, image, disk, plan);
  await flipped.restore();
  signal.throwIfAborted();
  const after = await readDisk(disk, flipped.offset, flipped.length);
  const changed = after.reduce((count, byte, i) => count + (byte === before[i] ? 0 : 1), 0);
  const error = view.result?.error;
  const named = error?.details?.group;
  summary.corrupt = {
    state: view.state,
    code: error?.code ?? null,
    group: typeof named === "number" ? named : null,
    bytesWrittenOfBadGroup: changed,
  };
  story.show(`${view.state}: ${error?.code ?? "no code"}\n${error?.message ?? ""}`);
  story.gap();
  prove(
    play,
    view.state === "failed" && error?.code === "image.corrupt",
    "the operation failed with image.corrupt",
  );
  prove(
    play,
    named === flipped.group && error?.details?.offset === flipped.offset,
    `it names group ${flipped.group} and its offset`,
  );
  prove(play, changed === 0, `${changed} of the ${flipped.length} bytes of that group changed on the disk`);
  const head = await readDisk(disk, 0, 1024);
  prove(
    play,
    !looksBootable(head),
    "the half-written disk has neither boot signature nor partition table: it boots nothing",
  );
  return flipped.group;
}

/** The signature of an MBR, or the header of a GUID partition table in 512-byte sectors. */
function looksBootable(head: Uint8Array): boolean {
  return (
    (head[510] === 0x55 && head[511] === 0xaa) ||
    Buffer.from(head.subarray(512, 520)).toString("latin1") === "EFI PART"
  );
}

const killAttempts = 3;
const killAtShare = 0.4;

export async function killedExecutorAct(play: Play, image: ImageView, disk: DemoDisk): Promise<void> {
  const { host, story, summary, signal } = play;
  story.act(
    "The executor killed half-way",
    "SIGKILL cannot be caught: whatever the executor knew is gone but for its journal. The agent starts it again; groups that the journal calls good are kept, those in doubt are read and compared.",
  );
  const storedBytes = (image.groups - image.zeroGroups) * mib;
  for (let attempt = 1; attempt <= killAttempts; attempt++) {
    await blank(disk);
    const plan = await planFor(play, image, disk);
    const over = new AbortController();
    const killing = killHalfWay(host.pid, storedBytes * killAtShare, AbortSignal.any([signal, over.signal]));
    let ended: Operation;
    try {
      ended = await applyTo(play, image, disk, plan);
    } finally {
      over.abort();
    }
    const killed = await killing;
    if (killed === undefined) {
      story.say(
        `The executor was done before it could be killed; once more with a blank disk (${attempt} of ${killAttempts}).`,
      );
      continue;
    }
    story.say(
      `Process ${killed.pid} was killed when it had written ${formatBytes(killed.bytesWritten)} of ${formatBytes(storedBytes)}.`,
    );
    const { view } = ended;
    const output = view.state === "succeeded" ? outputOf(view, DeployOutput) : undefined;
    summary.resume = { state: view.state, groupsRewritten: output?.resumed.groupsRewritten ?? 0 };
    if (output === undefined) {
      story.proof(false, `it ended ${view.state}: ${view.result?.error?.message ?? "it does not say why"}`);
      return;
    }
    const { times, groupsKept, groupsRechecked, groupsRewritten } = output.resumed;
    story.show(
      facts([
        ["resumed", times === 1 ? "once" : `${times} times`],
        ["kept", `${groupsKept} of ${output.groups} groups, which its journal calls good`],
        [
          "in doubt",
          `${groupsRechecked} groups, claimed but not journalled: read again, ${groupsRewritten} of them written again`,
        ],
        [
          "then",
          `${formatBytes(output.bytesWritten)} written, ${formatBytes(output.bytesSkipped)} found right on the disk`,
        ],
        ["image root", output.root],
        ["disk root", output.readback.root],
      ]),
    );
    story.gap();
    prove(play, times >= 1 && view.runs >= 2, "the agent resumed it");
    prove(
      play,
      output.bytesWritten < storedBytes,
      `it went on instead of beginning anew: ${formatBytes(output.bytesWritten)} of ${formatBytes(storedBytes)} were left to write`,
    );
    prove(
      play,
      output.readback.root === image.root,
      `the disk holds the image, ${formatSeconds((view.updatedAt - view.createdAt) / 1000)} after it was asked for`,
    );
    return;
  }
  throw failed(
    "The executor",
    `could not be killed half-way in ${killAttempts} attempts: try a larger --size`,
  );
}

/** As if it were new. */
async function blank(disk: DemoDisk): Promise<void> {
  await using file = await open(disk.backing, "r+");
  await file.truncate(0);
  await file.truncate(disk.sizeBytes);
  await file.sync();
}

async function planFor(play: Play, image: ImageView, disk: DemoDisk) {
  const { view } = await operation(play, {
    kind: "image.deploy",
    mode: "plan",
    arguments: { image: referenceTo(image), disk: disk.selector },
  });
  if (view.state !== "succeeded") throw failed("The plan", view.result?.error?.message ?? view.state);
  const plan = outputOf(view, DeployPlanOutput);
  const refusing = plan.guards.filter((guard) => !guard.ok);
  if (!plan.allowed)
    throw failed("The plan", `is refused: ${refusing.map((guard) => guard.finding).join("; ")}`);
  return plan;
}

function applyTo(
  play: Play,
  image: ImageView,
  disk: DemoDisk,
  { fingerprint }: Awaited<ReturnType<typeof planFor>>,
): Promise<Operation> {
  return operation(play, {
    kind: "image.deploy",
    mode: "apply",
    arguments: { image: referenceTo(image), disk: disk.selector, fingerprint },
  });
}

function referenceTo({ root, sizeBytes, name }: ImageView) {
  return { root, sizeBytes, name };
}

function failed(what: string, why: string): BedplateError {
  return new BedplateError("demo.failed", `${what}: ${why}`);
}
