// A plain HTTP server of one raw image, as a mirror would be, that can be told to misbehave.
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface RawServer extends AsyncDisposable {
  readonly origin: string;
  /** Of the image. */
  readonly url: string;
  readonly sentBytes: () => number;
}

export interface RawRequest {
  readonly start: number;
  readonly end: number;
  /** Counts from 1. */
  readonly number: number;
}

export type RawMisbehaviour = (
  request: RawRequest,
  response: ServerResponse,
  serve: (bytes?: Uint8Array, total?: number) => void,
) => void;

export async function serveRaw(bytes: Uint8Array, misbehave?: RawMisbehaviour): Promise<RawServer> {
  let sent = 0;
  let number = 0;
  const server = createServer((request, response) => {
    const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    if (request.url !== "/images/disk.raw" || match === null) return void response.writeHead(404).end();
    const [start, end] = [Number(match[1]), Number(match[2]) + 1];
    const serve = (part = bytes.subarray(start, end), total = bytes.length) => {
      sent += part.length;
      response.writeHead(206, {
        "content-range": `bytes ${start}-${end - 1}/${total}`,
        "content-length": part.length,
      });
      response.end(part);
    };
    number++;
    if (misbehave === undefined) serve();
    else misbehave({ start, end, number }, response, serve);
    return undefined;
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    origin,
    url: `${origin}/images/disk.raw`,
    sentBytes: () => sent,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
