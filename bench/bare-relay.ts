// The least that can bring a command to a host and lose it nowhere, for bench/link.ts: two processes of TLS, the WebSocket
// library and SQLite, each of which stores what it is given before it passes it on. `center DIRECTORY` listens and tells how
// many milliseconds each command of its client took until the host has it; `host DIRECTORY PORT` is that host. The directory
// is a controller's, whose certificates serve here too.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { DatabaseSync } from "node:sqlite";
import type { ConnectionOptions } from "node:tls";
import { type RawData, WebSocket, WebSocketServer } from "ws";
import { tlsServerName } from "../protocol/tls.ts";

const [role, directory, port] = process.argv.slice(2);
const database = new DatabaseSync(`${directory}-bare-${role}.sqlite`);
database.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE kept (command BLOB)");
const insert = database.prepare("INSERT INTO kept VALUES (?)");
const keep = (command: RawData) => insert.run(command as Buffer);

if (role === "host") {
  const tls: ConnectionOptions = { ca: readFileSync(`${directory}/ca.pem`), servername: tlsServerName };
  const options = { ...(tls as object), perMessageDeflate: false };
  const link = new WebSocket(`wss://127.0.0.1:${port}/host`, options);
  link.on("message", (command) => {
    keep(command);
    link.send(command);
  });
} else {
  const server = createServer({
    key: readFileSync(`${directory}/server.key`),
    cert: readFileSync(`${directory}/server.pem`),
    minVersion: "TLSv1.3",
  });
  const host = Promise.withResolvers<WebSocket>();
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  sockets.on("connection", (socket, { url }) => {
    if (url === "/host") host.resolve(socket);
    else
      socket.on("message", async (command) => {
        const takenAt = performance.now();
        const link = await host.promise;
        keep(command);
        link.once("message", () => socket.send(String(performance.now() - takenAt)));
        link.send(command);
      });
  });
  server.listen(0, "127.0.0.1", () => console.log(`listening ${(server.address() as AddressInfo).port}`));
}
