// A real HTTPS server of one image, with a real authority, that can be told to misbehave.
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Authority, openAuthority } from "../../controller/authority/authority.ts";
import type { TestImage } from "./test-image.ts";

export interface ImageServer extends AsyncDisposable {
  readonly url: string;
  readonly ca: string;
  readonly bearer: string;
  /** As an offer names it. */
  readonly source: { readonly url: string; readonly bearer: string };
  /** Bytes of frames that were sent. */
  readonly sentBytes: () => number;
  readonly requests: () => readonly string[];
  /** Replaces how requests for frames are answered; "serve" from within does it properly. */
  misbehave(how: Misbehaviour | undefined): void;
}

export type Misbehaviour = (
  request: { readonly start: number; readonly end: number; readonly number: number },
  response: ServerResponse,
  serve: (bytes?: Uint8Array) => void,
) => void;

/** Requests for frames that wait for their answer. They get it at the latest when this is disposed of. */
export interface Holding extends Disposable {
  /** So many wait now. */
  readonly count: () => number;
  release(): void;
}

/**
 * Holds all requests for frames but the first so many, so that a deploy stands still half-way. The very first is the one
 * that a deploy sends before it writes anything.
 */
export function holdAfter(server: ImageServer, requests: number): Holding {
  const held: (() => void)[] = [];
  let seen = 0;
  server.misbehave((_, __, serve) => {
    if (seen++ < requests) serve();
    else held.push(serve);
  });
  const release = () => {
    server.misbehave(undefined);
    for (const serve of held.splice(0)) serve();
  };
  return { count: () => held.length, release, [Symbol.dispose]: release };
}

let sharedAuthority: Promise<Authority> | undefined;

/** Made once for all tests of a run: keys take time. */
export function testAuthority(): Promise<Authority> {
  sharedAuthority ??= (async () => {
    const directory = await mkdtemp(join(tmpdir(), "bedplate-test-authority-"));
    try {
      return await openAuthority(directory, [], {
        bytes: (count: number) => new Uint8Array(randomBytes(count)),
      } as never);
    } finally {
      await rm(directory, { recursive: true });
    }
  })();
  return sharedAuthority;
}

export async function serveImage(
  image: TestImage,
  options: { readonly ratePerSecond?: number } = {},
): Promise<ImageServer> {
  const authority = await testAuthority();
  const bearer = `image-${randomBytes(12).toString("hex")}`;
  const requests: string[] = [];
  let sent = 0;
  let number = 0;
  let misbehaviour: Misbehaviour | undefined;
  const server = createServer(
    { cert: authority.certificatePem, key: authority.keyPem, minVersion: "TLSv1.3" },
    (request, response) => {
      requests.push(`${request.url} ${request.headers.range ?? ""}`);
      if (request.headers.authorization !== `Bearer ${bearer}`) return void response.writeHead(401).end();
      if (request.url === "/image/manifest") return void response.writeHead(200).end(image.manifestBytes);
      if (request.url !== "/image/frames") return void response.writeHead(404).end();
      const range = rangeOf(request);
      const serve = (bytes: Uint8Array = image.frames.subarray(range.start, range.end)) => {
        response.writeHead(206, {
          "content-range": `bytes ${range.start}-${range.end - 1}/${image.frames.length}`,
          "content-length": bytes.length,
        });
        sent += bytes.length;
        if (options.ratePerSecond === undefined) response.end(bytes);
        else trickle(response, bytes, options.ratePerSecond);
      };
      number++;
      if (misbehaviour === undefined) serve();
      else misbehaviour({ ...range, number }, response, serve);
      return undefined;
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/image`;
  return {
    url,
    ca: authority.caPem,
    bearer,
    source: { url, bearer },
    sentBytes: () => sent,
    requests: () => requests,
    misbehave: (how) => {
      misbehaviour = how;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function rangeOf(request: IncomingMessage): { start: number; end: number } {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  if (match === null) throw new Error(`a request without a range: ${request.url}`);
  return { start: Number(match[1]), end: Number(match[2]) + 1 };
}

function trickle(response: ServerResponse, bytes: Uint8Array, ratePerSecond: number): void {
  const step = Math.ceil(ratePerSecond / 20);
  let at = 0;
  const timer = setInterval(() => {
    response.write(bytes.subarray(at, at + step));
    at += step;
    if (at < bytes.length) return;
    clearInterval(timer);
    response.end();
  }, 50);
  response.on("close", () => clearInterval(timer));
}
