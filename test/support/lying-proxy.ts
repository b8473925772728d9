// A controller that was taken over, as the command line meets it: the true certificate, the true token, answers of its own.
import { readFileSync } from "node:fs";
import { createServer, request } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { ClientFile } from "../../protocol/api.ts";
import { tlsServerName } from "../../protocol/messages.ts";

/** What is asked, and the true answer; returns what is answered instead. */
export type Lie = (path: string, answer: unknown) => unknown;

export interface LyingProxy extends AsyncDisposable {
  /** For the client file. */
  readonly client: ClientFile;
  /** Every request that would have changed something: method, path, body. */
  readonly changes: readonly { readonly method: string; readonly path: string; readonly body: string }[];
  tell(lie: Lie): void;
}

export async function lyingProxy(stateDirectory: string, client: ClientFile): Promise<LyingProxy> {
  let lie: Lie = (_, answer) => answer;
  const changes: { method: string; path: string; body: string }[] = [];
  const server = createServer(
    {
      cert: readFileSync(join(stateDirectory, "server.pem")),
      key: readFileSync(join(stateDirectory, "server.key")),
    },
    (asked, answer) => {
      const parts: Buffer[] = [];
      asked.on("data", (part: Buffer) => parts.push(part));
      asked.on("end", () => {
        const [method, path] = [asked.method!, asked.url!];
        const body = Buffer.concat(parts);
        if (method !== "GET") changes.push({ method, path, body: body.toString() });
        const { authorization, "content-type": type } = asked.headers;
        const onward = request(
          new URL(path, client.url),
          {
            method,
            ca: client.ca,
            servername: tlsServerName,
            agent: false,
            headers: {
              ...(authorization === undefined ? {} : { authorization }),
              ...(type === undefined ? {} : { "content-type": type }),
              accept: asked.headers.accept ?? "application/json",
            },
          },
          (true_) => {
            const { "content-type": given = "" } = true_.headers;
            answer.writeHead(true_.statusCode!, { "content-type": given });
            if (!/^application\/json/.test(given)) return void true_.pipe(answer);
            const pieces: Buffer[] = [];
            true_.on("data", (piece: Buffer) => pieces.push(piece));
            true_.on("end", () => {
              const text = Buffer.concat(pieces).toString();
              answer.end(text === "" ? "" : JSON.stringify(lie(path, JSON.parse(text))));
            });
          },
        );
        onward.on("error", () => answer.destroy());
        answer.on("close", () => onward.destroy());
        onward.end(body);
      });
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    client: { ...client, url: `https://127.0.0.1:${port}` },
    changes,
    tell(next) {
      lie = next;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
