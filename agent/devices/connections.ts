// What is asked of a connection to an image source, and what becomes of one that fails.
import type { IncomingMessage } from "node:http";
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { errnoOf } from "../host/files.ts";
import type { UsableSource } from "./open-sources.ts";

/** Without a byte for so long, a transfer has stalled. */
export const stallMs = 15_000;
export const stallReason = `it sent nothing for ${stallMs / 1000} s`;

export interface Connections extends Disposable {
  /**
   * The body of an answer of the expected status; the caller reads or destroys it.
   * @param name undefined: what the source's address itself stands for
   */
  open(
    source: UsableSource,
    name: "manifest" | "signatures" | "frames" | undefined,
    options: RequestOptions,
  ): Promise<IncomingMessage>;
}

export interface RequestOptions {
  /** Bytes [start, end) of the file, which has `of` bytes where that is known. */
  readonly range?: { readonly start: number; readonly end: number; readonly of?: number };
  readonly signal: AbortSignal;
}

/** Breaks a body off that has stalled. @param waiting a socket is also silent while nobody reads from it: that is no stall */
export function watchForStall(response: IncomingMessage, source: ImageSource, waiting: () => boolean): void {
  const { socket } = response;
  const check = () => {
    if (waiting()) response.destroy(fetchFailed(source, stallReason));
    else socket.setTimeout(stallMs);
  };
  socket.on("timeout", check);
  socket.setTimeout(stallMs);
  response.once("close", () => socket.off("timeout", check));
}

/** Whether another try at the same source may help. */
export function isTransient(error: unknown): boolean {
  return error instanceof BedplateError && error.details?.transient === true;
}

export function fetchFailed(source: ImageSource, why: string, cause?: unknown): BedplateError {
  return new BedplateError("image.fetch-failed", `${source.url} cannot be read: ${why}.`, {
    details: { source: source.url, transient: true },
    ...(cause === undefined ? {} : { cause }),
  });
}

export function reasonOf(error: unknown): string {
  const errno = errnoOf(error);
  const said = error instanceof Error ? error.message : "";
  // A connection tried at several addresses fails with an empty message and its errors within.
  if (error instanceof AggregateError && said === "")
    return error.errors.map((inner) => reasonOf(inner)).join("; ");
  return said.includes(errno) ? said : `${errno} ${said}`.trim();
}
