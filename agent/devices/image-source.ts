// HTTP to image sources: one pinned authority, no redirect, no link-local address, every answer bounded.
import { type LookupAddress, type LookupOptions, lookup } from "node:dns";
import type { IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { BlockList, isIP } from "node:net";
import { checkServerIdentity, getCACertificates } from "node:tls";
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { tlsServerName } from "../../protocol/tls.ts";
import {
  type Connections,
  fetchFailed,
  type RequestOptions,
  reasonOf,
  stallMs,
  stallReason,
} from "./connections.ts";

// Imported by name, node:http has its getters called, and one of them loads all of fetch and HTTP/2.
const { Agent: PlainAgent, request: plainRequest } = process.getBuiltinModule("node:http");

/** What goes wrong with a socket is told by its request and its answer. */
const ignore = () => {};

/** Metadata services of clouds and whatever else answers on the local wire only. */
const refused = new BlockList();
refused.addSubnet("169.254.0.0", 16, "ipv4");
refused.addSubnet("fe80::", 10, "ipv6");

/**
 * Connections that are kept between requests.
 * @param ca PEM of the one authority that https sources are signed by; those that the policy lists also by the world's
 */
export function openConnections(ca: string): Connections {
  const secure = new Agent({
    keepAlive: true,
    ca,
    servername: tlsServerName,
    rejectUnauthorized: true,
    minVersion: "TLSv1.3",
  });
  // Only where there is one: the world's authorities take memory.
  let worldly: Agent | undefined;
  const mirrors = () => {
    worldly ??= new Agent({
      keepAlive: true,
      ca: [ca, ...getCACertificates("default")].filter((one) => one !== ""),
      checkServerIdentity: (host, certificate) =>
        checkServerIdentity(host, certificate) && checkServerIdentity(tlsServerName, certificate),
      rejectUnauthorized: true,
      minVersion: "TLSv1.2",
    });
    return worldly;
  };
  const plain = new PlainAgent({ keepAlive: true });
  return {
    async open(source, name, { range, signal }) {
      signal.throwIfAborted();
      const url = checkSource(source);
      if (name !== undefined) url.pathname = `${url.pathname.replace(/\/$/, "")}/${name}`;
      const options = {
        signal,
        lookup: lookupAllowed,
        timeout: stallMs,
        headers: {
          "accept-encoding": "identity",
          ...(source.bearer === undefined ? {} : { authorization: `Bearer ${source.bearer}` }),
          ...(range === undefined ? {} : { range: `bytes=${range.start}-${range.end - 1}` }),
        },
      };
      const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
      const outgoing =
        url.protocol === "https:"
          ? request(url, { ...options, agent: source.listed === true ? mirrors() : secure })
          : plainRequest(url, { ...options, agent: plain });
      const stalled = () => outgoing.destroy(fetchFailed(source, stallReason));
      outgoing.on("timeout", stalled);
      outgoing.on("response", (response) => {
        outgoing.off("timeout", stalled);
        resolve(response);
      });
      outgoing.on("socket", (socket) => {
        // Between an answer's end and the socket's return to the agent nobody else listens, and an abort in that moment
        // would end the whole worker.
        if (!socket.listeners("error").includes(ignore)) socket.on("error", ignore);
      });
      outgoing.on("error", (error) => {
        if (signal.aborted) reject(signal.reason);
        else reject(error instanceof BedplateError ? error : fetchFailed(source, reasonOf(error), error));
      });
      outgoing.end();
      const response = await promise;
      try {
        checkAnswer(source, url, response, range);
      } catch (error) {
        response.destroy();
        throw error;
      }
      return response;
    },
    [Symbol.dispose]() {
      secure.destroy();
      worldly?.destroy();
      plain.destroy();
    },
  };
}

/** @throws `source.refused` */
function checkSource(source: ImageSource): URL {
  const url = new URL(source.url);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (isIP(host) !== 0) refuseAddress(host);
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new BedplateError(
      "source.refused",
      `The image source ${url.origin} carries a password, query or fragment.`,
    );
  }
  if (url.protocol === "http:" && source.bearer !== undefined) {
    throw new BedplateError(
      "source.refused",
      `The image source ${url.origin} would send its token in clear.`,
      { hint: "Use https." },
    );
  }
  return url;
}

function checkAnswer(
  source: ImageSource,
  url: URL,
  response: IncomingMessage,
  range: RequestOptions["range"],
): void {
  const status = response.statusCode ?? 0;
  const refuse = (why: string, transient: boolean) =>
    new BedplateError("image.fetch-failed", `${url.href} cannot be used: ${why}.`, {
      details: { source: source.url, status, transient },
    });
  if (status >= 300 && status < 400) {
    throw new BedplateError(
      "source.refused",
      `${url.href} redirects (status ${status}), and redirects are not followed.`,
      {
        details: { source: source.url, status },
      },
    );
  }
  const encoding = response.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") throw refuse(`it is encoded as ${encoding}`, false);
  if (range === undefined) {
    if (status !== 200) throw refuse(`it answers with status ${status}`, status >= 500 || status === 429);
    return;
  }
  if (status === 200) throw refuse("it ignores ranges and sends the whole file", false);
  if (status !== 206) throw refuse(`it answers with status ${status}`, status >= 500 || status === 429);
  const given = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(response.headers["content-range"] ?? "");
  if (given === null || Number(given[1]) !== range.start || Number(given[2]) !== range.end - 1) {
    throw refuse(`it answers with another range, "${response.headers["content-range"] ?? ""}"`, false);
  }
  if (range.of !== undefined && given[3] !== "*" && Number(given[3]) !== range.of)
    throw refuse(`it has ${given[3]} bytes, not the image's ${range.of}`, false);
  const length = response.headers["content-length"];
  if (length !== undefined && Number(length) !== range.end - range.start)
    throw refuse(`it announces ${length} bytes for a range of ${range.end - range.start}`, false);
}

function refuseAddress(address: string): void {
  if (!refused.check(address, isIP(address) === 6 ? "ipv6" : "ipv4")) return;
  throw new BedplateError(
    "source.refused",
    `The image source's address ${address} is link-local and is refused.`,
    { details: { address } },
  );
}

type LookupCallback = (error: Error | null, address: string | LookupAddress[], family?: number) => void;

/** Checks what a name resolves to at the moment it is used. */
function lookupAllowed(host: string, options: LookupOptions, callback: LookupCallback): void {
  lookup(host, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, "");
    try {
      for (const { address } of addresses) refuseAddress(address);
    } catch (refusal) {
      return callback(refusal as Error, "");
    }
    if (options.all === true) return callback(null, addresses);
    return callback(null, addresses[0]!.address, addresses[0]!.family);
  });
}
