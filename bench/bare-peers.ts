// Starts and asks the peers of bench/link.ts: a pair that only relays and stores, and a process that only starts.
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import type { ConnectionOptions } from "node:tls";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { executorFlags } from "../agent/door/executor-process.ts";
import { tlsServerName } from "../protocol/tls.ts";
import { eventually, node, startProgram } from "./processes.ts";

const relayProgram = fileURLToPath(new URL("./bare-relay.ts", import.meta.url));
const startMs = 30_000;
/** About what a signed offer of a ping takes. */
const commandBytes = 512;

export interface BareRelay extends AsyncDisposable {
  /** Milliseconds from the taking of a command to the moment its host has stored it. */
  ping(): Promise<number>;
}

/** `directory`: the state of a controller, whose certificates it uses. */
export async function openBareRelay(directory: string): Promise<BareRelay> {
  await using stack = new AsyncDisposableStack();
  const start = (name: string, ...argv: string[]) =>
    stack.use(startProgram({ argv: [node, relayProgram, ...argv], logFile: `${directory}-${name}.log` }));
  const center = start("bare-center", "center", directory);
  const port = await eventually(startMs, () => /^listening (\d+)$/m.exec(center.log())?.[1], center.log);
  start("bare-host", "host", directory, port);
  const tls: ConnectionOptions = { ca: await readFile(`${directory}/ca.pem`), servername: tlsServerName };
  const options = { ...(tls as object), perMessageDeflate: false };
  const client = new WebSocket(`wss://127.0.0.1:${port}/client`, options);
  stack.defer(() => client.terminate());
  await new Promise<void>((resolve, reject) => {
    client.once("open", resolve);
    client.once("error", reject);
  });
  const ping = () =>
    new Promise<number>((resolve, reject) => {
      const gone = () => reject(new Error(`the bare pair ended: ${center.log()}`));
      client.once("close", gone);
      client.once("message", (text) => {
        client.off("close", gone);
        resolve(Number(text));
      });
      client.send(new Uint8Array(commandBytes));
    });
  // Until the host has connected too.
  await ping();
  const kept = stack.move();
  return { ping, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

const store = `
const { writeFileSync } = require("node:fs");
const { DatabaseSync } = require("node:sqlite");
try { writeFileSync("/proc/self/autogroup", "10"); } catch {}
const database = new DatabaseSync(process.argv[1]);
database.exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS kept (command BLOB)");
database.prepare("INSERT INTO kept VALUES (?)").run(new Uint8Array(${commandBytes}));
`;

/** Milliseconds that a process takes which is started as executors are, stores a row and ends. */
export function startBareProcess(databaseFile: string): Promise<number> {
  const startedAt = performance.now();
  const argv = ["-n", "10", node, ...executorFlags, "-e", store, databaseFile];
  return new Promise((resolve, reject) => {
    spawn("nice", argv, { detached: true, stdio: "ignore" })
      .once("error", reject)
      .once("exit", (code) =>
        code === 0 ? resolve(performance.now() - startedAt) : reject(new Error(`it ended with ${code}`)),
      );
  });
}
