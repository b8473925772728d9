// A wire between agents and a controller that can go dead without a word: what was connected stays so, and hears nothing.

import type { AddressInfo } from "node:net";
import { connect, createServer, type Socket } from "node:net";

/** What becomes of the bytes of the connections that are open now. */
export type Wire = "passes" | "swallows all" | "swallows what comes back";

export interface SwallowingProxy extends AsyncDisposable {
  readonly url: string;
  readonly open: number;
  /** For the connections that are open; new ones pass, unless `newOnes` are swallowed as well. */
  set(wire: Wire, options?: { readonly newOnes?: Wire }): void;
}

export async function openProxy(targetPort: number): Promise<SwallowingProxy> {
  const pairs = new Set<{ wire: Wire; readonly near: Socket; readonly far: Socket }>();
  let wireOfNew: Wire = "passes";
  const server = createServer((near) => {
    const far = connect(targetPort, "127.0.0.1");
    const pair = { wire: wireOfNew, near, far };
    pairs.add(pair);
    near.on("data", (data) => pair.wire !== "swallows all" && far.write(data));
    far.on("data", (data) => pair.wire === "passes" && near.write(data));
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => {});
      one.on("close", () => {
        if (pair.wire === "passes") other.destroy();
        if (near.destroyed && far.destroyed) pairs.delete(pair);
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get open() {
      return pairs.size;
    },
    set(wire, { newOnes = "passes" } = {}) {
      for (const pair of pairs) pair.wire = wire;
      wireOfNew = newOnes;
    },
    async [Symbol.asyncDispose]() {
      for (const { near, far } of pairs) {
        near.destroy();
        far.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
