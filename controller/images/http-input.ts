// Fetches an image over HTTP(S) as the exact bytes the server sends, with redirects, length and silence bounded.
import type { IncomingMessage } from "node:http";
import { get as getHttps } from "node:https";
import { BedplateError } from "../../protocol/errors.ts";
import { imageLimits } from "./limits.ts";

// Imported by name, node:http has its getters called, and one of them loads all of fetch and HTTP/2.
const { get: getHttp } = process.getBuiltinModule("node:http");

export interface HttpBody {
  readonly bytes: AsyncIterable<Uint8Array>;
  readonly totalBytes: number | null;
}

// Not by fetch: that one unpacks Content-Encoding by itself, and a vendor's digest is over the bytes as published.
/** @throws `image.fetch-failed`, `source.refused`; reading the bytes: `image.truncated`, `image.fetch-failed` */
export async function openHttp(address: string, signal: AbortSignal): Promise<HttpBody> {
  let url = new URL(address);
  for (let redirects = 0; ; redirects++) {
    const response = await request(url, signal);
    const status = response.statusCode ?? 0;
    if (status === 200) return bodyOf(response, url);
    response.destroy();
    const { location } = response.headers;
    if (![301, 302, 303, 307, 308].includes(status) || location === undefined) {
      throw new BedplateError(
        "image.fetch-failed",
        `${url.origin}${url.pathname} answered with status ${status}.`,
        { details: { status } },
      );
    }
    url = nextLocation(url, location, redirects);
  }
}

/** @throws `source.refused` for the sixth redirect, from https to http, and to what is neither */
export function nextLocation(current: URL, location: string, redirectsBefore: number): URL {
  const refuse = (why: string) => new BedplateError("source.refused", `${current.origin} redirects ${why}.`);
  if (redirectsBefore >= imageLimits.redirectsMax)
    throw refuse(`once more after ${imageLimits.redirectsMax} times`);
  const next = URL.parse(location, current.href);
  if (next === null || !["http:", "https:"].includes(next.protocol))
    throw refuse("to what is no http or https address");
  if (current.protocol === "https:" && next.protocol === "http:") throw refuse("from https to plain http");
  return next;
}

function request(url: URL, signal: AbortSignal): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const get = url.protocol === "https:" ? getHttps : getHttp;
  const sent = get(
    url,
    { signal, headers: { "accept-encoding": "identity", "user-agent": "bedplate" }, agent: false },
    resolve,
  );
  sent.setTimeout(imageLimits.stallMs, () =>
    sent.destroy(new Error(`silent for ${imageLimits.stallMs / 1000} s`)),
  );
  sent.on("error", (cause) => reject(fetchFailed(url, cause)));
  return promise;
}

function bodyOf(response: IncomingMessage, url: URL): HttpBody {
  const header = response.headers["content-length"];
  const totalBytes = header === undefined ? null : Number(header);
  return { totalBytes, bytes: checkedBody(response, { url, totalBytes }) };
}

async function* checkedBody(
  response: IncomingMessage,
  { url, totalBytes }: { url: URL; totalBytes: number | null },
) {
  let received = 0;
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) {
      received += chunk.length;
      yield chunk;
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ECONNRESET") throw fetchFailed(url, cause);
    // A body that ends before its Content-Length or its last chunk is a reset connection to Node.
    throw truncated(url, received, totalBytes);
  }
  if (totalBytes !== null && received !== totalBytes) throw truncated(url, received, totalBytes);
}

function truncated(url: URL, received: number, totalBytes: number | null): BedplateError {
  const of = totalBytes === null ? "" : ` of ${totalBytes}`;
  return new BedplateError(
    "image.truncated",
    `${url.origin}${url.pathname} ended after ${received}${of} bytes.`,
    {
      details: { received, expected: totalBytes },
    },
  );
}

function fetchFailed(url: URL, cause: unknown): BedplateError {
  const { code, message } = cause as NodeJS.ErrnoException;
  return new BedplateError(
    "image.fetch-failed",
    `${url.origin}${url.pathname} cannot be fetched (${code ?? message}).`,
    { cause },
  );
}
