// The /metrics page for Prometheus: the agent's own metrics, then the host's. On loopback, since it asks for no password.
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { BedplateError } from "../../protocol/errors.ts";
import { whenAborted } from "../host/abort.ts";
import type { Log } from "../host/log.ts";
import { createExposition, type Exposition } from "./exposition.ts";
import type { Snapshot } from "./newest-values.ts";
import { createOwnMetrics, type OwnMetrics, type OwnMetricsOptions } from "./own-metrics.ts";

// Imported by name, node:http has its getters called, and one of them loads all of fetch and HTTP/2: 12 MB for nothing.
const { createServer } = process.getBuiltinModule("node:http");

export interface MetricsOptions extends OwnMetricsOptions {
  /** `ADDRESS:PORT`, `[ADDRESS]:PORT`; port 0 for any. */
  readonly listen: string;
  /** Default false: only loopback addresses are taken. */
  readonly allowRemote?: boolean;
  readonly snapshot: () => Snapshot | undefined;
  readonly log: Pick<Log, "info" | "warn">;
  readonly onListening?: (address: AddressInfo) => void;
}

const contentType = "text/plain; version=0.0.4; charset=utf-8";
const requestMsMax = 5000;
const connectionsMax = 32;

/**
 * Serves until the signal aborts.
 * @throws `config.invalid` for an address that is none or not loopback; `metrics.unavailable` when it cannot be listened at
 */
export async function serveMetrics(options: MetricsOptions, signal: AbortSignal): Promise<void> {
  const { host, port } = addressOf(options);
  using own = createOwnMetrics(options);
  const page = createPage(options.snapshot, own);
  const server = createServer({
    requestTimeout: requestMsMax,
    headersTimeout: requestMsMax,
    keepAliveTimeout: requestMsMax,
  });
  server.maxConnections = connectionsMax;
  server.on("request", (request, response) => {
    const path = request.url?.split("?")[0];
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.writeHead(405, { allow: "GET, HEAD", "content-type": contentType }).end("Only GET.\n");
    } else if (path !== "/metrics") {
      response.writeHead(404, { "content-type": contentType }).end("The metrics are at /metrics.\n");
    } else {
      page().then(
        (text) =>
          response
            .writeHead(200, { "content-type": contentType, "content-length": Buffer.byteLength(text) })
            .end(text),
        (error: unknown) => {
          options.log.warn({ err: error }, "The metrics page could not be made.");
          response
            .writeHead(500, { "content-type": contentType })
            .end("The page could not be made; the agent's log has more.\n");
        },
      );
    }
  });
  if (signal.aborted) return;
  await listening(server, { host, port });
  options.onListening?.(server.address() as AddressInfo);
  options.log.info({ listen: options.listen }, "The metrics page is served.");
  await whenAborted(signal);
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
}

function createPage(snapshot: () => Snapshot | undefined, own: OwnMetrics): () => Promise<string> {
  let known: { readonly id: number; readonly exposition: Exposition } | null = null;
  return async () => {
    const text = await own.text();
    const newest = snapshot();
    if (newest === undefined) return text;
    const { dictionary, values } = newest;
    if (known?.id !== dictionary.id)
      known = { id: dictionary.id, exposition: createExposition(dictionary.series) };
    return text + known.exposition.write(values);
  };
}

function addressOf({ listen, allowRemote = false }: MetricsOptions): { host: string; port: number } {
  const [, bracketed, plain, portText] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(listen) ?? [];
  const host = bracketed ?? plain;
  const port = Number(portText);
  if (host === undefined || !(port <= 65_535)) {
    throw new BedplateError(
      "config.invalid",
      `The metrics address ${listen} is not of the form ADDRESS:PORT.`,
    );
  }
  if (!allowRemote && !isLoopback(host)) {
    throw new BedplateError(
      "config.invalid",
      `The metrics page is not served at ${listen}: it asks for no password.`,
      {
        hint: "Use a loopback address such as 127.0.0.1:9464, with a proxy before it if others must read it.",
      },
    );
  }
  return { host, port };
}

function isLoopback(host: string): boolean {
  return /^127(\.\d{1,3}){3}$/.test(host) || host === "::1";
}

function listening(server: Server, address: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const where = `${address.host} port ${address.port}`;
      reject(
        new BedplateError(
          "metrics.unavailable",
          `The metrics page cannot be served at ${where} (${(cause as NodeJS.ErrnoException).code}).`,
          {
            hint: "Set metrics.listen to a free address, or to off.",
            cause,
          },
        ),
      );
    });
    server.listen(address, resolve);
  });
}
