// Strangers who begin and never finish: at each step from the TCP connection to the proof, silent or a byte at a time.
import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { encodeFrame } from "../../protocol/frames.ts";
import { tlsServerName } from "../../protocol/messages.ts";
import { helloOf, type LinkAddress, newLinkKey } from "../support/link-client.ts";

export const upgradeHead = [
  "GET /v1/link HTTP/1.1",
  "Host: x",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Protocol: bedplate.v1",
  "\r\n",
].join("\r\n");

export interface Stalled extends Disposable {
  /** Resolves with the seconds it was let be, when the other end has closed. */
  readonly closedAfterSeconds: Promise<number>;
  readonly open: boolean;
}

export type Stall = (address: LinkAddress, localAddress: string) => Promise<Stalled>;

const dripMs = 150;

function stalled(socket: Socket, since: number): Stalled {
  let open = true;
  const closedAfterSeconds = new Promise<number>((resolve) => {
    const end = () => {
      open = false;
      resolve((performance.now() - since) / 1000);
    };
    socket.once("end", end);
    socket.once("close", end);
  });
  socket.on("error", () => {});
  // Unread, its end would not be seen.
  socket.resume();
  return {
    closedAfterSeconds,
    get open() {
      return open;
    },
    [Symbol.dispose]: () => socket.destroy(),
  };
}

/** One byte at a time, for as long as it may. */
function drip(socket: Socket, bytes: Uint8Array): void {
  let at = 0;
  const timer = setInterval(() => {
    if (at >= bytes.length || !socket.writable) return clearInterval(timer);
    socket.write(bytes.subarray(at, at + 1));
    at += 1;
  }, dripMs);
  socket.once("close", () => clearInterval(timer));
}

function plainTo(address: LinkAddress, localAddress: string): Promise<Socket> {
  const { hostname, port } = new URL(address.url);
  return new Promise((resolve, reject) => {
    const socket = connectPlain({ host: hostname, port: Number(port), localAddress });
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
  });
}

function secureTo(address: LinkAddress, localAddress: string): Promise<TLSSocket> {
  const { hostname, port } = new URL(address.url);
  return new Promise((resolve, reject) => {
    const socket = connectTls({
      ...{ host: hostname, port: Number(port), ca: address.ca, servername: tlsServerName },
      ...({ localAddress } as object),
    });
    socket.once("secureConnect", () => resolve(socket));
    socket.once("error", reject);
  });
}

/** Upgraded to a WebSocket, by hand. */
export async function upgradedTo(address: LinkAddress, localAddress: string): Promise<TLSSocket> {
  const socket = await secureTo(address, localAddress);
  socket.write(upgradeHead);
  const answer = await new Promise<Buffer>((resolve) => {
    socket.once("data", resolve);
    socket.once("close", () => resolve(Buffer.alloc(0)));
  });
  if (!answer.toString("latin1").startsWith("HTTP/1.1 101")) {
    socket.destroy();
    throw new Error(`no upgrade: ${answer.toString("latin1").split("\r\n")[0]}`);
  }
  socket.resume();
  return socket;
}

/** A WebSocket frame as a client sends it, masked with zeroes. */
export function clientFrame(payload: Uint8Array): Buffer {
  const length =
    payload.length < 126
      ? [0x80 | payload.length]
      : [0x80 | 127, 0, 0, 0, 0, ...[24, 16, 8, 0].map((shift) => (payload.length >> shift) & 255)];
  return Buffer.concat([Uint8Array.of(0x82, ...length, 0, 0, 0, 0), payload]);
}

const anyHello = () => clientFrame(encodeFrame(helloOf({ key: newLinkKey() }, new Uint8Array(32))));

async function slowBody(address: LinkAddress, from: string, what: string): Promise<Stalled> {
  const since = performance.now();
  const socket = await secureTo(address, from);
  socket.write(
    `${what} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n`,
  );
  drip(socket, new Uint8Array(9000).fill(0x20));
  return stalled(socket, since);
}

/** By what is missing. The clock of each starts with its TCP connection, but for the WebSocket's, which have begun anew. */
export const stalls: Readonly<Record<string, Stall>> = {
  "all of TLS": async (address, from) => {
    const since = performance.now();
    return stalled(await plainTo(address, from), since);
  },
  "the rest of TLS's first record": async (address, from) => {
    const since = performance.now();
    const socket = await plainTo(address, from);
    drip(socket, Buffer.concat([Buffer.from("16030101ff010001fb0303", "hex"), new Uint8Array(500)]));
    return stalled(socket, since);
  },
  "the request": async (address, from) => {
    const since = performance.now();
    return stalled(await secureTo(address, from), since);
  },
  "the rest of the request": async (address, from) => {
    const since = performance.now();
    const socket = await secureTo(address, from);
    drip(socket, Buffer.from(`${upgradeHead.slice(0, -2)}${"X-More: 1\r\n".repeat(200)}`));
    return stalled(socket, since);
  },
  "the rest of a body, without a token": (address, from) => slowBody(address, from, "POST /v1/commands"),
  "the rest of a body, to no path": (address, from) => slowBody(address, from, "POST /nowhere"),
  "the rest of a body, to what all may read": (address, from) => slowBody(address, from, "GET /v1/ca"),
  "the hello": async (address, from) => {
    const since = performance.now();
    return stalled(await upgradedTo(address, from), since);
  },
  "the rest of the hello": async (address, from) => {
    const since = performance.now();
    const socket = await upgradedTo(address, from);
    drip(socket, anyHello());
    return stalled(socket, since);
  },
  "the proof": async (address, from) => {
    const since = performance.now();
    const socket = await upgradedTo(address, from);
    socket.write(anyHello());
    return stalled(socket, since);
  },
};
