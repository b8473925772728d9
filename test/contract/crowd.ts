// Connections from many addresses of this machine, as from many machines: one address may not bring hundreds at once.
import type { ConnectionOptions } from "node:tls";
import { WebSocket } from "ws";
import { hostIdOf } from "../../protocol/link-proof.ts";
import { subprotocol, tlsServerName } from "../../protocol/messages.ts";
import { type Identity, type Joined, type LinkAddress, LinkClient, prove } from "../support/link-client.ts";

/** Addresses of the loopback network, each new one another. */
export function createAddresses(): () => string {
  let count = 0;
  return () => {
    count += 1;
    return `127.${1 + ((count >> 16) & 63)}.${(count >> 8) & 255}.${count & 255}`;
  };
}

export async function openFrom(localAddress: string, address: LinkAddress): Promise<LinkClient> {
  const tls: ConnectionOptions & { localAddress: string } = {
    ...{ ca: address.ca, servername: tlsServerName, minVersion: "TLSv1.3" },
    localAddress,
  };
  const url = `${address.url.replace(/^https/, "wss")}/v1/link`;
  const socket = new WebSocket(url, [subprotocol], {
    ...(tls as object),
    ...{ perMessageDeflate: false, handshakeTimeout: 60_000 },
  });
  const client = new LinkClient(socket);
  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  return client;
}

export async function joinFrom(
  localAddress: string,
  address: LinkAddress,
  identity: Identity,
): Promise<Joined> {
  const client = await openFrom(localAddress, address);
  await prove(client, identity);
  const welcome = await client.next("welcome");
  return { client, welcome, host: await hostIdOf(identity.key.publicKey) };
}
