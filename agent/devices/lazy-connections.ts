// Connections that are made when the first one is asked for: whoever reads local files alone never loads what speaks HTTP.
import type { Connections } from "./connections.ts";

/** Connections as image-source.ts makes them: some MiB less in a worker that needs none. */
export function lazyConnections(ca: string): Connections {
  let made: Promise<Connections> | undefined;
  const make = async () => (await import("./image-source.ts")).openConnections(ca);
  return {
    async open(...request) {
      made ??= make();
      return (await made).open(...request);
    },
    [Symbol.dispose]: () => void made?.then((connections) => connections[Symbol.dispose]()).catch(() => {}),
  };
}
