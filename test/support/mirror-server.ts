// A plain HTTP server of one image's files, as a mirror would be: a directory whose files are given, ranges and all.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface MirrorServer extends AsyncDisposable {
  /** Of the image: its files lie under it. */
  readonly url: string;
  /** Paths asked for, below the image. */
  readonly requests: () => readonly string[];
  readonly sentBytes: () => number;
}

export async function serveMirror(files: Readonly<Record<string, Uint8Array>>): Promise<MirrorServer> {
  const requests: string[] = [];
  let sent = 0;
  const server = createServer((request, response) => {
    const name = (request.url ?? "").replace(/^\/image\//, "");
    requests.push(name);
    const bytes = files[name];
    if (bytes === undefined) return void response.writeHead(404).end();
    const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const [start, end] = match === null ? [0, bytes.length] : [Number(match[1]), Number(match[2]) + 1];
    const part = bytes.subarray(start, end);
    sent += part.length;
    response.writeHead(match === null ? 200 : 206, {
      "content-length": part.length,
      ...(match === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${bytes.length}` }),
    });
    return void response.end(part);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/image`,
    requests: () => requests,
    sentBytes: () => sent,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
