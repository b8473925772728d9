// What stands where systemd would start executors: answers each request as one that refuses, or with wounded events.

import { mkdirSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { createLots, mutateBytes } from "./mutations.ts";

export interface RefusingExecutor extends AsyncDisposable {
  readonly requests: number;
}

const linesMax = 1 << 20;

export async function openRefusingExecutor(runDirectory: string, seed: number): Promise<RefusingExecutor> {
  const lots = createLots(seed);
  const operations = join(runDirectory, "operations");
  mkdirSync(operations, { recursive: true, mode: 0o700 });
  const servers = new Set<Server>();
  let requests = 0;
  const answer = (socket: Socket) => {
    const error = { code: "policy.denied", message: "Not here." };
    const lines = [
      { type: "accepted", seq: 1, at: Date.now() },
      { type: "running", seq: 2, at: Date.now(), run: 1 },
      lots.chance(0.5)
        ? { type: "refused", seq: 1, at: Date.now(), error }
        : {
            type: "result",
            seq: 3,
            at: Date.now(),
            result: { outcome: "failed", startedAt: 1, endedAt: 2, error },
          },
    ];
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
    socket.end(lots.chance(0.5) ? mutateBytes(Buffer.from(text), Buffer.from(text), lots) : text);
  };
  const activated = createServer((socket) => {
    socket.on("error", () => {});
    const lines = createInterface({ input: socket });
    lines.once("line", (line) => {
      requests += 1;
      socket.destroy();
      const command = /"id":"([0-9a-f-]{36})"/.exec(
        Buffer.from(
          String((JSON.parse(line.slice(0, linesMax)) as { document?: string }).document),
          "base64",
        ).toString(),
      )?.[1];
      if (command === undefined) return;
      const server = createServer((follower) => {
        follower.on("error", () => {});
        follower.once("data", () => answer(follower));
      });
      servers.add(server);
      server.on("error", () => servers.delete(server));
      server.listen(join(operations, `${command}.sock`));
      setTimeout(() => {
        server.close();
        servers.delete(server);
      }, 3000).unref();
    });
  });
  await new Promise<void>((resolve) => activated.listen(join(runDirectory, "executor.sock"), resolve));
  return {
    get requests() {
      return requests;
    },
    async [Symbol.asyncDispose]() {
      for (const server of servers) server.close();
      await new Promise((resolve) => activated.close(resolve));
    },
  };
}
