// A stretch of groups as a stream from a source: frames or raw bytes, one range request or file reads, resumed where it
// broke off, at other sources if need be.
import type { IncomingMessage } from "node:http";
import { BedplateError } from "../../protocol/errors.ts";
import { groupBytes, groupLength } from "../../protocol/groups.ts";
import { isTransient, reasonOf, watchForStall } from "./connections.ts";
import { readSource } from "./file-source.ts";
import type { UsableSource } from "./open-sources.ts";
import type { Fetching } from "./sources.ts";

export interface FrameAt {
  readonly group: number;
  /** Where its frame begins in the frames file. */
  readonly start: number;
  readonly bytes: number;
}

export interface Frame {
  readonly group: number;
  readonly source: UsableSource;
  /** A compressed frame, valid until the next one is asked for; or the group itself, in the window it was asked into. */
  readonly data: Uint8Array;
  readonly raw: boolean;
}

/** A request that is under way before anybody reads its answer. */
export interface Opening extends Disposable {
  readonly source: UsableSource;
  readonly response: Promise<IncomingMessage>;
}

/** Tries in a row, without one whole frame between them, until a source is given up. */
const triesMax = 6;
const backoffMs = { first: 200, most: 5000 } as const;

/** Asks for the stretch's beginning; undefined where there is nothing to ask. */
export function openAhead(stretch: readonly FrameAt[], options: Fetching): Opening | undefined {
  const source = options.sources.current;
  if (source.fd !== undefined) return undefined;
  const response = openRange(stretch, source, options);
  response.catch(() => {});
  return {
    source,
    response,
    [Symbol.dispose]: () => void response.then((opened) => opened.destroy()).catch(() => {}),
  };
}

/**
 * Groups in order. What is read ahead stays in the kernel's socket buffer until asked for: the memory taken is one frame.
 * @param stretch not empty, each frame beginning where the one before ends
 * @param target where the bytes of a raw group go, as long as it is; asked for right before they are read
 * @throws `image.fetch-failed`, `image.truncated`, `source.refused`, when no source is left; the signal's reason
 */
export async function* frames(
  stretch: readonly FrameAt[],
  options: Fetching,
  target: (group: number) => Uint8Array,
  ahead?: Opening,
): AsyncGenerator<Frame, void, void> {
  const { sources, clock, random, signal } = options;
  let buffer: Uint8Array | undefined;
  let opening = ahead;
  let next = 0;
  for (let tries = 0; next < stretch.length; ) {
    const source = sources.current;
    let failure: unknown;
    const begun = opening;
    opening = undefined;
    if (begun !== undefined && begun.source !== source) begun[Symbol.dispose]();
    try {
      using reading = await openReading(stretch.slice(next), source, options, begun);
      while (next < stretch.length && reading.groups > 0 && sources.uses(source)) {
        const frame = stretch[next]!;
        const raw = source.layout === "raw";
        buffer ??= raw ? undefined : new Uint8Array(Math.max(...stretch.map(({ bytes }) => bytes)));
        const data = raw ? target(frame.group) : buffer!.subarray(0, frame.bytes);
        await options.pace?.(data.length);
        await reading.fill(frame, data);
        tries = 0;
        // Also when the consumer ends here: it has this one.
        next++;
        yield { group: frame.group, source, data, raw };
      }
      continue;
    } catch (error) {
      failure = error;
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

/** Groups of the stretch, in order, as one answer of a source holds them. */
interface Reading extends Disposable {
  /** How many are still to come. */
  readonly groups: number;
  fill(frame: FrameAt, target: Uint8Array): Promise<void>;
}

async function openReading(
  stretch: readonly FrameAt[],
  source: UsableSource,
  options: Fetching,
  ahead: Opening | undefined,
): Promise<Reading> {
  const { fd } = source;
  if (fd !== undefined)
    return {
      groups: stretch.length,
      async fill({ group }, target) {
        readSource(source, fd, target, group * groupBytes);
        options.onBytes(target.length, source);
      },
      [Symbol.dispose]() {},
    };
  let left = besides(stretch, source);
  const response = await (ahead?.source === source ? ahead.response : openRange(stretch, source, options));
  const body = bodyOf(response, source, options);
  return {
    get groups() {
      return left;
    },
    async fill(_, target) {
      await body.fill(target);
      left--;
      // Read to its end, so that the connection can be used again.
      if (left === 0) body.end().catch(() => response.destroy());
    },
    // Also when the consumer stops early.
    [Symbol.dispose]() {
      if (left > 0) response.destroy();
    },
  };
}

/** How many groups from the stretch's first on lie side by side: in a raw image those of zeroes lie between. */
function besides(stretch: readonly FrameAt[], source: UsableSource): number {
  if (source.layout !== "raw") return stretch.length;
  const end = stretch.findIndex(({ group }, index) => group !== stretch[0]!.group + index);
  return end < 0 ? stretch.length : end;
}

function openRange(
  stretch: readonly FrameAt[],
  source: UsableSource,
  { connections, sizeBytes, signal }: Fetching,
): Promise<IncomingMessage> {
  const first = stretch[0]!;
  const last = stretch[besides(stretch, source) - 1]!;
  if (source.layout === "raw") {
    const end = last.group * groupBytes + groupLength(sizeBytes, last.group);
    const range = { start: first.group * groupBytes, end, of: sizeBytes };
    return connections.open(source, undefined, { range, signal });
  }
  return connections.open(source, "frames", {
    range: { start: first.start, end: last.start + last.bytes },
    signal,
  });
}

interface Body {
  /** Fills `target` with the next bytes. */
  fill(target: Uint8Array): Promise<void>;
  end(): Promise<void>;
}

function bodyOf(response: IncomingMessage, source: UsableSource, { signal, onBytes }: Fetching): Body {
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
          onBytes(piece.length, source);
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

function truncate(source: UsableSource): never {
  throw truncated(source, "the answer is shorter than its range");
}

function truncated(source: UsableSource, why: string, cause?: unknown): BedplateError {
  return new BedplateError("image.truncated", `The transfer from ${source.url} broke off: ${why}.`, {
    details: { source: source.url, transient: true },
    ...(cause === undefined ? {} : { cause }),
  });
}
