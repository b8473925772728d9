// What a command's program prints, as it comes from the controller, on our own standard output and error.
import type { OutputView } from "../protocol/api.ts";
import { BedplateError } from "../protocol/errors.ts";
import { bytesOfBase64 } from "../protocol/ssh-wire.ts";
import type { ApiClient } from "./api-client.ts";
import { harmless } from "./output.ts";

/** How long one question waits for more. */
const waitSeconds = 20;

export interface OutputSinks {
  /** `offset` is the first byte's, both streams counted together. */
  stdout(bytes: Uint8Array, offset: number): void;
  stderr(bytes: Uint8Array, offset: number): void;
  /** So many bytes before `from` are no longer kept by host or controller. */
  skipped(bytes: number, from: number): void;
}

export interface OutputOptions {
  readonly client: ApiClient;
  readonly id: string;
  readonly after?: number;
  /** Until the command has ended; else what is there now. */
  readonly follow: boolean;
  readonly until: AbortSignal;
  readonly sinks: OutputSinks;
}

/**
 * Hands every piece to its sink once, in order.
 * @returns the offset after the last one
 * @throws `message.invalid` when the controller's pieces overlap or run back; the signal's reason
 */
export async function readOutput(options: OutputOptions): Promise<number> {
  const { client, id, follow, until, sinks } = options;
  let at = options.after ?? 0;
  for (;;) {
    until.throwIfAborted();
    const view = await client.output(id, at, follow ? waitSeconds : 0, until);
    const next = deliver(view, at, sinks);
    // Asked for what is there now, an answer without news is the end of it.
    if (follow ? view.ended && next >= view.to : next === at) return next;
    at = next;
  }
}

/** @returns the offset to go on from */
function deliver(view: OutputView, from: number, sinks: OutputSinks): number {
  let at = from;
  for (const { stream, offset, data } of view.pieces) {
    const bytes = bytesOfBase64(data);
    if (bytes === undefined || offset < at)
      throw new BedplateError("message.invalid", "The controller's pieces of output do not fit each other.");
    if (offset > at) sinks.skipped(offset - at, offset);
    sinks[stream](bytes, offset);
    at = offset + bytes.length;
  }
  // What is gone at the end is gone too: the next question goes on behind it.
  if (view.to > at) {
    sinks.skipped(view.to - at, view.to);
    at = view.to;
  }
  return at;
}

/**
 * Sinks on this process's streams. A terminal gets no control characters of another machine but line ends and tabs;
 * files and pipes get the very bytes.
 */
export function processSinks(note: (text: string) => void): OutputSinks {
  const write = (stream: NodeJS.WriteStream): ((bytes: Uint8Array) => void) => {
    if (stream.isTTY !== true) return (bytes) => void stream.write(bytes);
    const decoder = new TextDecoder();
    return (bytes) => void stream.write(harmless(decoder.decode(bytes, { stream: true })));
  };
  return {
    stdout: write(process.stdout),
    stderr: write(process.stderr),
    skipped: (bytes) => note(`… ${bytes} bytes of output are no longer kept`),
  };
}

/** One line a piece, its bytes in base64. */
export function jsonSinks(line: (value: unknown) => void): OutputSinks {
  const piece = (stream: "stdout" | "stderr") => (bytes: Uint8Array, offset: number) =>
    line({ stream, offset, bytes: bytes.length, data: Buffer.from(bytes).toString("base64") });
  return {
    stdout: piece("stdout"),
    stderr: piece("stderr"),
    skipped: (bytes, from) => line({ skipped: bytes, from }),
  };
}
