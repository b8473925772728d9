// Unpacks gzip, zstd and xz streams to their very end: what is cut short or followed by garbage is an error.
import { Readable, type Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { BedplateError } from "../../protocol/errors.ts";
import { type ExpansionBound, imageLimits } from "./limits.ts";
import { type Programs, runTool } from "./tool.ts";
import { createFrameScanner } from "./zstd-frames.ts";

export interface DecodeOptions {
  readonly format: "gzip" | "zstd" | "xz";
  readonly programs: Programs;
  readonly signal: AbortSignal;
}

/**
 * @throws `image.truncated`, `image.corrupt`, `image.unsupported` (a zstd or xz window larger than is taken),
 * `image.tool-missing`, and what the input throws
 */
export function decode(
  input: AsyncIterable<Uint8Array>,
  { format, programs, signal }: DecodeOptions,
): AsyncIterable<Uint8Array> {
  switch (format) {
    case "gzip":
      return decodeGzip(input, signal);
    case "zstd":
      return decodeZstd(input, signal);
    case "xz":
      return decodeXz(input, programs, signal);
  }
}

async function* decodeGzip(
  input: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  // zlib joins members by itself, and stops at a zero byte after one: padding, unless anything else follows.
  let [fed, contentEnd] = [0, 0];
  const watched = async function* () {
    for await (const chunk of input) {
      const last = chunk.findLastIndex((byte) => byte !== 0);
      if (last >= 0) contentEnd = fed + last + 1;
      fed += chunk.length;
      yield chunk;
    }
  };
  const decoder = createGunzip({ chunkSize: outputBytes });
  yield* through(watched(), { decoder, label: "gzip", signal });
  if (decoder.bytesWritten < contentEnd)
    throw new BedplateError("image.corrupt", "The gzip input is followed by other bytes.");
}

const outputBytes = 256 * 1024;

async function* decodeZstd(
  input: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  // A decoder for each frame: Node's ends at the end of its first one, and says nothing about the rest.
  const reader = createFrameReader(input);
  try {
    while (await reader.more()) {
      yield* through(reader.frame(), {
        decoder: createZstdDecompress({ chunkSize: outputBytes }),
        label: "zstd",
        signal,
      });
    }
  } finally {
    await reader.close();
  }
}

/** Cuts the input at the ends of frames. */
function createFrameReader(input: AsyncIterable<Uint8Array>) {
  const iterator = input[Symbol.asyncIterator]();
  const scanner = createFrameScanner();
  let chunk: Uint8Array = new Uint8Array();
  let at = 0;
  const more = async () => {
    while (at === chunk.length) {
      const next = await iterator.next();
      if (next.done === true) return false;
      [chunk, at] = [next.value, 0];
    }
    return true;
  };
  return {
    more,
    async *frame(): AsyncGenerator<Uint8Array> {
      while (await more()) {
        const start = at;
        const { end, ended } = scanner.scan(chunk, start);
        at = end;
        yield chunk.subarray(start, end);
        if (ended) return;
      }
      throw new BedplateError("image.truncated", "The zstd input ends within a frame.");
    },
    async close() {
      await iterator.return?.();
    },
  };
}

/** Feeds the decoder in the background and gives what comes out; ends when both are done. */
async function* through(
  input: AsyncIterable<Uint8Array>,
  { decoder, label, signal }: { decoder: Transform; label: string; signal: AbortSignal },
): AsyncGenerator<Uint8Array> {
  let failure: unknown;
  const fed = pipeline(Readable.from(input, { objectMode: false, highWaterMark: 1 }), decoder, {
    signal,
  }).catch((error) => {
    failure ??= error;
  });
  try {
    // Not destroyed at its end: zlib may end early, and the rest of the input must pass as well.
    yield* decoder.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
    await fed;
  } catch (error) {
    failure ??= error;
  } finally {
    decoder.destroy();
    await fed;
  }
  if (failure !== undefined) throw decodeError(label, failure);
}

function decodeError(label: string, cause: unknown): unknown {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "Z_BUF_ERROR")
    return new BedplateError("image.truncated", `The ${label} input ends before its content does.`, {
      cause,
    });
  if (
    code === "ZSTD_error_frameParameter_windowTooLarge" ||
    code === "ZSTD_error_frameParameter_unsupported"
  ) {
    return new BedplateError(
      "image.unsupported",
      "The zstd input needs more than 128 MiB of memory to unpack.",
      {
        hint: "Pack it again without --long=28 and above, or unpack it first.",
        cause,
      },
    );
  }
  if (code?.startsWith("Z_") === true || code?.startsWith("ZSTD_") === true) {
    return new BedplateError("image.corrupt", `The ${label} input is corrupt (${message}).`, { cause });
  }
  return cause;
}

async function* decodeXz(
  input: AsyncIterable<Uint8Array>,
  programs: Programs,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const tool = await runTool({
    program: "xz",
    package: "xz-utils",
    args: [
      "--decompress",
      "--stdout",
      "--keep",
      "--quiet",
      "--threads=1",
      `--memlimit-decompress=${imageLimits.xzBytesMax}`,
      "--format=xz",
    ],
    stdin: input,
    limits: { addressBytes: 2 * imageLimits.xzBytesMax, fileBytes: 0 },
    programs,
    signal,
  });
  try {
    yield* tool.stdout;
    const { exitCode, message } = await tool.ended;
    if (exitCode !== 0) throw xzError(message);
  } finally {
    await tool.stop();
  }
}

function xzError(message: string): BedplateError {
  if (/Unexpected end of input/.test(message))
    return new BedplateError("image.truncated", "The xz input ends before its content does.");
  if (/Memory usage limit/.test(message)) {
    return new BedplateError(
      "image.unsupported",
      `The xz input needs more than ${imageLimits.xzBytesMax} bytes of memory to unpack.`,
    );
  }
  return new BedplateError("image.corrupt", `The xz input cannot be unpacked (${message}).`);
}

/**
 * Passes unpacked bytes on as long as they are within the bound.
 * @throws `image.expansion`
 */
export async function* boundExpansion(
  bytes: AsyncIterable<Uint8Array>,
  { bound, inputBytes }: { bound: ExpansionBound; inputBytes: () => number },
): AsyncGenerator<Uint8Array> {
  let total = 0;
  for await (const chunk of bytes) {
    total += chunk.length;
    checkExpansion(total, inputBytes(), bound);
    yield chunk;
  }
}

/** @throws `image.expansion` */
export function checkExpansion(
  total: number,
  inputBytes: number,
  { bytes, ratio, freeBytes }: ExpansionBound,
): void {
  const past =
    total > bytes
      ? `${bytes} bytes`
      : total > freeBytes && total > ratio * inputBytes
        ? `${ratio} times what was read`
        : null;
  if (past === null) return;
  throw new BedplateError(
    "image.expansion",
    `The input expands past ${past}: ${inputBytes} bytes gave ${total} so far.`,
    {
      hint: "If it is what you expect, unpack it first and import the raw image.",
      details: { inputBytes, outputBytes: total },
    },
  );
}
