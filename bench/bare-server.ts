// The least that a server of agents can be: TLS and the WebSocket library with nothing behind it, for bench/footprint.ts.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";

const [directory] = process.argv.slice(2);
const server = createServer({
  key: readFileSync(`${directory}/server.key`),
  cert: readFileSync(`${directory}/server.pem`),
  minVersion: "TLSv1.3",
});
const webSockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, clientTracking: false });
server.on("upgrade", (request, socket, head) =>
  webSockets.handleUpgrade(request, socket, head, (webSocket) => webSocket.on("message", () => {})),
);
server.listen(0, "127.0.0.1", () => console.log(`listening ${(server.address() as AddressInfo).port}`));
