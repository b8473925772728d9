// Freeing what no image has any more: asks the controller, and draws how far it is until it answers.
import type { CollectionRequest, CollectionView } from "../protocol/api-images.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { ApiClient } from "./api-client.ts";
import { sleep } from "./clock.ts";
import { createMeter } from "./image-add.ts";
import { facts, formatBytes } from "./output.ts";
import type { Terminal } from "./terminal.ts";

const pollMs = 500;

export interface CollectImages {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly request: CollectionRequest;
}

/** Interrupted, the controller stops, too: what it has freed stays freed, and the rest is for another time. */
export async function collectImages({
  client,
  terminal,
  signal,
  request,
}: CollectImages): Promise<CollectionView> {
  const stop = new AbortController();
  const watching = draw(client, terminal, AbortSignal.any([signal, stop.signal])).catch(() => {});
  try {
    return await client.collectImages(request);
  } catch (error) {
    if (signal.aborted)
      terminal.note("What was freed stays freed; `bedplate image gc` goes on with the rest.");
    throw error;
  } finally {
    stop.abort(new BedplateError("command.cancelled", "The collection has ended."));
    await watching;
    terminal.status("");
  }
}

/** An answer that does not come leaves the line as it is: the collection itself says what is wrong. */
async function draw(client: ApiClient, terminal: Terminal, until: AbortSignal): Promise<void> {
  const meter = createMeter(terminal, "copy");
  for (;;) {
    await sleep(pollMs, until);
    const progress = await client.collectionProgress(until);
    if (progress !== null) meter(progress.copiedBytes, progress.copyBytes);
  }
}

export function collectionText(
  { images, storedBytes, deadBytes, freedBytes, copiedBytes, left }: CollectionView,
  dryRun: boolean,
): string {
  const files = `${left.files} file${left.files === 1 ? "" : "s"}`;
  return facts([
    ["images", `${images}`],
    ["stored", formatBytes(storedBytes)],
    ["in no image", formatBytes(deadBytes)],
    [dryRun ? "would free" : "freed", formatBytes(freedBytes)],
    [dryRun ? "would copy" : "copied", formatBytes(copiedBytes)],
    [
      dryRun ? "would stay" : "stays",
      left.files === 0
        ? "nothing"
        : `${formatBytes(left.bytes)} in ${files} of which less than a quarter is in no image: --all frees them, and copies ${formatBytes(left.copyBytes)} for it`,
    ],
  ]);
}
