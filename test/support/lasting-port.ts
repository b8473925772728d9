// A port for a server that is started again and again while its clients keep trying.
import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";

/** Free now, and below those that the kernel gives to whoever connects: nobody has it by chance while the server is away. */
export async function lastingPort(): Promise<number> {
  const [first = 32_768] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8")
    .split("\t")
    .map(Number);
  for (;;) {
    const port = randomInt(10_000, Math.max(first, 20_000));
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
