// A stretch of neighbouring frames as a stream: one range request, resumed where it broke off, at other sources if need be.
import type { IncomingMessage } from "node:http";
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import type { Clock } from "../host/clock.ts";
import type { Random } from "../host/random.ts";
import { type Connections, isTransient, reasonOf, watchForStall } from "./image-source.ts";

export interface FrameAt {
  readonly group: number;
  /** Where its frame begins in the frames file. */
  readonly start: number;
  readonly bytes: number;
}

export interface Frame extends FrameAt {
  /** Valid until the next frame is asked for. */
  readonly data: Uint8Array;
  readonly source: ImageSource;
}

export interface FrameOptions {
  readonly connections: Connections;
  readonly sources: Sources;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Told of every byte of a body, also of those that come to nothing. */
  readonly onBytes: (count: number) => void;
}

/** Tries in a row, without one whole frame between them, until a source is given up. */
const triesMax = 6;
const backoffMs = { first: 200, most: 5000 } as const;

/** The sources still in use, best first. */
export interface Sources {
  /** @throws `image.fetch-failed` when there is none */
  readonly current: ImageSource;
  /** Never asked again by this worker. @throws `why` when it was the last one */
  giveUp(source: ImageSource, why: unknown): void;
}

export function sourcesOf(all: readonly ImageSource[]): Sources {
  const left = [...all];
  return {
    get current() {
      const [first] = left;
      if (first === undefined)
        throw new BedplateError("image.fetch-failed", "No source of the image is left.");
      return first;
    },
    giveUp(source, why) {
      const at = left.indexOf(source);
      if (at >= 0) left.splice(at, 1);
      if (left.length === 0) throw why;
    },
  };
}

/**
 * Frames in order. What is read ahead stays in the kernel's socket buffer until asked for: the memory taken is one frame.
 * @param stretch not empty, each beginning where the one before ends
 * @throws `image.fetch-failed`, `image.truncated`, `source.refused`, when no source is left; the signal's reason
 */
export async function* frames(
  stretch: readonly FrameAt[],
  options: FrameOptions,
): AsyncGenerator<Frame, void, void> {
  const { connections, sources, clock, random, signal } = options;
  const end = stretch.at(-1)!.start + stretch.at(-1)!.bytes;
  const buffer = new Uint8Array(Math.max(...stretch.map((frame) => frame.bytes)));
  let next = 0;
  for (let tries = 0; next < stretch.length; ) {
    const source = sources.current;
    let failure: unknown;
    let response: IncomingMessage | undefined;
    try {
      response = await connections.open(source, "frames", {
        range: { start: stretch[next]!.start, end },
        signal,
      });
      const body = bodyOf(response, source, options);
      while (next < stretch.length) {
        const frame = stretch[next]!;
        const data = buffer.subarray(0, frame.bytes);
        await body.fill(data);
        tries = 0;
        yield { ...frame, data, source };
        next++;
      }
      // Read to its end, so that the connection can be used again.
      await body.end();
      return;
    } catch (error) {
      failure = error;
    } finally {
      // Also when the consumer stops early.
      if (next < stretch.length) response?.destroy();
    }
    signal.throwIfAborted();
    tries++;
    if (!isTransient(failure) || tries >= triesMax) {
      sources.giveUp(source, failure);
      tries = 0;
    } else {
      const wait = Math.min(backoffMs.most, backoffMs.first * 2 ** (tries - 1));
      await clock.sleep(wait * (0.5 + random.fraction() / 2), signal);
    }
  }
}

interface Body {
  /** Fills `target` with the next bytes. */
  fill(target: Uint8Array): Promise<void>;
  end(): Promise<void>;
}

function bodyOf(response: IncomingMessage, source: ImageSource, { signal, onBytes }: FrameOptions): Body {
  const pieces = response
    .iterator({ destroyOnReturn: true })
    [Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  let piece = new Uint8Array();
  let waiting = false;
  watchForStall(response, source, () => waiting);
  const nextPiece = async () => {
    waiting = true;
    try {
      const read = await pieces.next();
      return read.done === true ? undefined : (read.value as Uint8Array<ArrayBuffer>);
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof BedplateError ? error : truncated(source, reasonOf(error), error);
    } finally {
      waiting = false;
    }
  };
  return {
    async fill(target) {
      for (let filled = 0; filled < target.length; ) {
        if (piece.length === 0) {
          piece = (await nextPiece()) ?? truncate(source);
          onBytes(piece.length);
        }
        const taken = piece.subarray(0, target.length - filled);
        target.set(taken, filled);
        filled += taken.length;
        piece = piece.subarray(taken.length);
      }
    },
    async end() {
      if (piece.length > 0 || (await nextPiece()) !== undefined) response.destroy();
    },
  };
}

function truncate(source: ImageSource): never {
  throw truncated(source, "the answer is shorter than its range");
}

function truncated(source: ImageSource, why: string, cause?: unknown): BedplateError {
  return new BedplateError("image.truncated", `The transfer from ${source.url} broke off: ${why}.`, {
    details: { source: source.url, transient: true },
    ...(cause === undefined ? {} : { cause }),
  });
}
