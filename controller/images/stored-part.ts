// Reading an image's manifest or frames by ranges: what is asked for is opened before the first byte, wherever it lies.
import { createReadStream, open as openDescriptor } from "node:fs";
import { type FileHandle, open as openHandle, stat } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { BedplateError } from "../../protocol/errors.ts";
import type { StoredImage } from "./catalog.ts";
import { readLayout, stretchesOf } from "./layout.ts";

export interface StoredPart {
  readonly sizeBytes: number;
  /**
   * Bytes `start` up to, not including, `end`. They can be read to their end whatever happens to the image meanwhile.
   * @throws `image.unknown` when it is gone
   */
  read(range: { readonly start: number; readonly end: number }): Promise<Readable>;
}

export async function openStored(image: StoredImage, part: "manifest" | "frames"): Promise<StoredPart> {
  const { size } = await stat(join(image.directory, "manifest")).catch((cause) => gone(image, cause));
  return part === "manifest"
    ? { sizeBytes: size, read: (range) => readStretches(image, () => [{ name: part, ...range }]) }
    : {
        sizeBytes: image.layout.starts.at(-1)!,
        read: (range) => readStretches(image, () => stretchesOf(image.layout, range)),
      };
}

interface Stretch {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

async function readStretches(image: StoredImage, find: () => readonly Stretch[]): Promise<Readable> {
  const stream = await open(image.directory, find());
  if (stream !== undefined) return stream;
  // Its files may just have moved, and not by this process: its directory says where to.
  image.layout = await readLayout(image.directory, image.view.storedBytes).catch((cause) =>
    gone(image, cause),
  );
  return (await open(image.directory, find())) ?? gone(image);
}

const openFile = promisify(openDescriptor);

/** Undefined when a file is not there. */
async function open(directory: string, stretches: readonly Stretch[]): Promise<Readable | undefined> {
  const [first, ...more] = stretches;
  try {
    if (first !== undefined && more.length === 0) {
      const fd = await openFile(join(directory, first.name), "r");
      return createReadStream("", { fd, start: first.start, end: first.end - 1 });
    }
    const files = await openAll(directory, [...new Set(stretches.map(({ name }) => name))]);
    const stream = Readable.from(pieces(stretches, files), { objectMode: false, highWaterMark: readBytes });
    stream.once("close", () => void closeAll(files).catch(() => {}));
    return stream;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

const readBytes = 256 * 1024;

async function* pieces(
  stretches: readonly Stretch[],
  files: ReadonlyMap<string, FileHandle>,
): AsyncGenerator<Uint8Array> {
  for (const { name, start, end } of stretches) {
    for (let position = start; position < end; ) {
      const buffer = Buffer.allocUnsafeSlow(Math.min(readBytes, end - position));
      const { bytesRead } = await files.get(name)!.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0)
        throw new BedplateError("image.truncated", `The file ${name} of the image is cut off.`);
      yield buffer.subarray(0, bytesRead);
      position += bytesRead;
    }
  }
}

async function openAll(directory: string, names: readonly string[]): Promise<Map<string, FileHandle>> {
  const files = new Map<string, FileHandle>();
  try {
    for (const name of names) files.set(name, await openHandle(join(directory, name), "r"));
    return files;
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

async function closeAll(files: ReadonlyMap<string, FileHandle>): Promise<void> {
  for (const file of files.values()) await file.close();
}

function gone({ view: { root } }: StoredImage, cause?: unknown): never {
  throw new BedplateError("image.unknown", `The files of image ${root} are gone.`, { cause });
}
