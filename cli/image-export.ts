// Writing an image as a mirror serves it: manifest, frames and signatures in a directory, each group verified on the way.
import { mkdir, open, rename, rm, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { verifyFrames } from "../controller/images/verify.ts";
import type { ImageView } from "../protocol/api.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { ApiClient } from "./api-client.ts";
import { createMeter } from "./image-add.ts";
import { fetchManifest } from "./image-sign.ts";
import type { Terminal } from "./terminal.ts";

export interface ExportOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
  /** Must not exist: it is there only once all of the image is. */
  readonly directory: string;
}

/** @throws `file.unreadable`, `image.corrupt`, `image.truncated`, `image.bad-manifest`; nothing is then left */
export async function exportImage({
  client,
  terminal,
  signal,
  reference,
  directory,
}: ExportOptions): Promise<ImageView> {
  const { image, bytes, manifest } = await fetchManifest(client, reference);
  const signatures = await client.imageSignatures(image.root);
  const partial = `${resolve(directory)}.partial`;
  const meter = createMeter(terminal, "export");
  try {
    await refuseExisting(directory);
    await mkdir(partial);
    try {
      await writeFile(`${partial}/manifest`, bytes, { flag: "wx" });
      await writeFile(`${partial}/signatures`, JSON.stringify({ signatures }), { flag: "wx" });
      {
        await using file = await open(`${partial}/frames`, "wx");
        const frames = kept(await client.frames(image.root), (chunk) => file.writeFile(chunk));
        const onProgress = (done: number) => meter(done, image.storedBytes);
        await verifyFrames({ manifest, frames, signal, onProgress });
        await file.sync();
      }
      await rename(partial, resolve(directory));
    } catch (error) {
      await rm(partial, { recursive: true, force: true });
      throw error;
    }
  } catch (cause) {
    const { code, path, syscall } = cause as NodeJS.ErrnoException;
    if (syscall === undefined) throw cause;
    throw new BedplateError("file.unreadable", `${path ?? directory} cannot be written: ${code}.`, {
      ...(code === "EEXIST"
        ? { hint: "Another export is under way, or left it when it was cut off: then remove it." }
        : {}),
      cause,
    });
  } finally {
    terminal.status("");
  }
  return image;
}

async function refuseExisting(directory: string): Promise<void> {
  const there = await open(directory, "r").catch(() => undefined);
  if (there === undefined) return;
  await there.close();
  throw new BedplateError("usage", `${directory} is there already, and is not written over.`);
}

async function* kept(
  bytes: AsyncIterable<Uint8Array>,
  keep: (chunk: Uint8Array) => Promise<void>,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of bytes) {
    await keep(chunk);
    yield chunk;
  }
}
