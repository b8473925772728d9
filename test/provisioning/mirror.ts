// A mirror of one image by http or https, raw or in frames, that counts what it sends and answers as it is told to.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { testAuthority } from "../support/image-server.ts";
import type { TestImage } from "../support/test-image.ts";
import type { Source } from "./deploys.ts";

export interface Mirror extends AsyncDisposable {
  readonly origin: string;
  readonly source: Source;
  /** Of the image's data: what was handed to the sockets, not the manifest. */
  readonly sentBytes: () => number;
}

export interface Asked {
  readonly what: "manifest" | "data";
  /** Of the file that is asked for. */
  readonly start: number;
  readonly end: number;
  readonly size: number;
}

export interface Answering {
  readonly response: ServerResponse;
  /** The right answer, or other bytes, another status or other headers in its place. */
  serve(bytes?: Uint8Array, more?: Partial<Head>): void;
  /** Announces the whole, sends so many bytes of it, and then does that. */
  begin(bytes: number, then: "close" | "nothing"): void;
  /** The right bytes. */
  readonly right: Uint8Array;
  /** The right head for so many bytes. */
  head(bytes: number): void;
}

export interface Head {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
}

export interface MirrorOptions {
  readonly layout: "frames" | "raw";
  readonly scheme: "http" | "https";
  /** In the place of the image's own. */
  readonly data?: Uint8Array;
  readonly manifest?: Uint8Array;
  /** Undefined: every request is answered rightly. */
  readonly answer?: (asked: Asked, answering: Answering) => void;
}

/** PEM of who signs every https mirror. */
export const mirrorAuthority = async () => (await testAuthority()).caPem;

export async function openMirror(image: TestImage, options: MirrorOptions): Promise<Mirror> {
  const { layout, scheme, answer, manifest = image.manifestBytes } = options;
  const data = options.data ?? (layout === "raw" ? image.bytes : image.frames);
  let sent = 0;
  const listener = (request: IncomingMessage, response: ServerResponse) => {
    const named = request.url?.split("/").at(-1);
    const what = named === "manifest" ? "manifest" : "data";
    const file = what === "manifest" ? manifest : data;
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    if ((named !== "manifest" && named !== "frames" && named !== "disk.raw") || (what === "data" && !range))
      return void response.writeHead(404).end();
    const start = Number(range?.[1] ?? 0);
    const end = range === null ? file.length : Number(range[2]) + 1;
    const right = file.subarray(start, end);
    const send = (bytes: Uint8Array, done: () => void) => {
      if (what === "data") sent += bytes.length;
      response.write(bytes, done);
    };
    const head = (length: number, more: Partial<Head> = {}) =>
      response.writeHead(more.status ?? (range === null ? 200 : 206), {
        "content-length": `${length}`,
        ...(range === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${file.length}` }),
        ...more.headers,
      });
    response.on("error", () => {});
    const answering: Answering = {
      response,
      right,
      head: (bytes) => void head(bytes),
      serve(bytes = right, more = {}) {
        head(bytes.length, more);
        send(bytes, () => response.end());
      },
      begin(bytes, then) {
        head(right.length);
        send(right.subarray(0, bytes), () => {
          if (then === "close") response.destroy();
        });
      },
    };
    if (answer === undefined) answering.serve();
    else answer({ what, start, end, size: file.length }, answering);
    return undefined;
  };
  const authority = await testAuthority();
  const server =
    scheme === "http"
      ? createServer(listener)
      : createSecureServer({ cert: authority.certificatePem, key: authority.keyPem }, listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    origin,
    source:
      layout === "raw"
        ? { url: `${origin}/images/disk.raw`, layout: "raw" }
        : { url: `${origin}/images/one` },
    sentBytes: () => sent,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
