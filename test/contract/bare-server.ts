// A server that does nothing but TLS and HTTP, by Node alone: what a connection costs before anything of ours is added.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";

const [certificateFile, keyFile] = process.argv.slice(2);
const server = createServer({
  key: readFileSync(keyFile!),
  cert: readFileSync(certificateFile!),
  minVersion: "TLSv1.3",
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`port ${(server.address() as AddressInfo).port}\n`);
});
