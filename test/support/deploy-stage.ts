// The stage of a deploy: a host with real executors, an image, and a server that offers it; and what is asked and looked at there.
import { readFile } from "node:fs/promises";
import type { Command, DeployPlanOutput } from "../../protocol/commands.ts";
import {
  type ExecutorHost,
  hostId,
  mintId,
  openExecutorHost,
  type RunOptions,
  resultOf,
  runToEnd,
} from "./executor-host.ts";
import { type ImageServer, serveImage } from "./image-server.ts";
import { type ImageOptions, makeImage, type TestImage } from "./test-image.ts";

export interface DeployStage extends AsyncDisposable {
  readonly host: ExecutorHost;
  readonly image: TestImage;
  readonly server: ImageServer;
  /** Of the image, by the server alone. */
  readonly offer: RunOptions;
}

export async function openDeployStage(of: ImageOptions): Promise<DeployStage> {
  await using opened = new AsyncDisposableStack();
  const host = opened.use(await openExecutorHost());
  const image = await makeImage(of);
  const server = opened.use(await serveImage(image));
  const offer = { sources: [server.source], ca: server.ca };
  const closing = opened.move();
  return { host, image, server, offer, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

/** image.deploy onto a disk that the policy declares. @param more further arguments */
export function deployOf(
  image: TestImage,
  disk: { readonly name: string },
  mode: "plan" | "apply",
  more: object = {},
  limits: Command["limits"] = {},
): Command {
  return {
    id: mintId(),
    host: hostId,
    kind: "image.deploy",
    mode,
    arguments: { image: image.reference, disk: { file: disk.name }, ...more },
    limits,
  } as Command;
}

/** What a plan says that succeeds, whether it allows the deploy or not. */
export async function planOf(
  { host, offer }: Pick<DeployStage, "host" | "offer">,
  plan: Command,
): Promise<DeployPlanOutput> {
  const { outcome, error, output } = resultOf((await runToEnd(host, plan, offer)).last);
  if (outcome !== "succeeded") throw new Error(`the plan ${outcome}: ${JSON.stringify(error)}`);
  return output as DeployPlanOutput;
}

/** Whether the disk begins with the image, byte for byte. */
export async function holdsImage(disk: { readonly path: string }, image: TestImage): Promise<boolean> {
  return Buffer.compare((await readFile(disk.path)).subarray(0, image.bytes.length), image.bytes) === 0;
}
