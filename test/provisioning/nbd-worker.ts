// A disk in memory behind an NBD server (github.com/NetworkBlockDevice/nbd, doc/proto.md), in a thread of its own: it
// writes down all that reaches it, and fails, loses or spoils what it is told to.
import { createServer, type Socket } from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import type { DiskRequest, DiskRule, FromDisk, ToDisk } from "./recording-disk.ts";

const { content, socketPath } = workerData as { content: SharedArrayBuffer; socketPath: string };
const disk = Buffer.from(content);
const log: DiskRequest[] = [];
let rules: { rule: DiskRule; skip: number; times: number }[] = [];
let delivered = 0;

const commands = { read: 0, write: 1, disconnect: 2, flush: 3 } as const;
const options = { exportName: 1, abort: 2, info: 6, go: 7 } as const;
/** Has flags, sends flush. */
const flags = 1 | 4;
const errors = { EIO: 5, ENOSPC: 28 } as const;
const errorUnsupported = 0x8000_0001;

const tell = (message: FromDisk) => parentPort!.postMessage(message);
parentPort!.on("message", (message: ToDisk) => {
  if (message.ask === "rules") {
    rules = message.rules.map((rule) => ({ rule, skip: rule.skip ?? 0, times: rule.times ?? 1 }));
    delivered = 0;
  }
  if (message.ask === "clear") log.length = 0;
  tell({ log: message.ask === "log" ? log : [], delivered });
});

const server = createServer((socket) => {
  socket.on("error", () => {});
  void serve(socket).catch(() => socket.destroy());
});
server.listen(socketPath, () => tell({ log: [], delivered: 0 }));

async function serve(socket: Socket): Promise<void> {
  const read = readerOf(socket);
  const greeting = Buffer.alloc(18);
  greeting.write("NBDMAGICIHAVEOPT", 0, "latin1");
  // Fixed newstyle, no zeroes.
  greeting.writeUInt16BE(3, 16);
  socket.write(greeting);
  await read(4);
  for (;;) {
    const asked = await read(16);
    const option = asked.readUInt32BE(8);
    await read(asked.readUInt32BE(12));
    if (option === options.exportName || option === options.abort) return void socket.destroy();
    if (option !== options.go && option !== options.info) {
      socket.write(optionReply(option, errorUnsupported));
      continue;
    }
    const info = Buffer.alloc(12);
    info.writeBigUInt64BE(BigInt(disk.length), 2);
    info.writeUInt16BE(flags, 10);
    socket.write(Buffer.concat([optionReply(option, 3, info), optionReply(option, 1)]));
    if (option === options.go) break;
  }
  for (;;) {
    const request = await read(28);
    const type = request.readUInt16BE(6);
    const offset = Number(request.readBigUInt64BE(16));
    const length = request.readUInt32BE(24);
    if (type === commands.disconnect) return void socket.end();
    const data = type === commands.write ? await read(length) : undefined;
    const answer = perform(type, offset, length, data);
    const reply = Buffer.alloc(16);
    reply.writeUInt32BE(0x6744_6698, 0);
    reply.writeUInt32BE(typeof answer === "number" ? answer : 0, 4);
    request.copy(reply, 8, 8, 16);
    socket.write(reply);
    if (typeof answer !== "number") socket.write(answer);
  }
}

/** An error's number, 0, or what was read. */
function perform(type: number, offset: number, length: number, data: Buffer | undefined): number | Buffer {
  const name = type === commands.write ? "write" : type === commands.read ? "read" : "flush";
  const what = ruleFor(name, offset, length);
  if (what === "EIO" || what === "ENOSPC") return errors[what];
  if (data !== undefined) {
    const kept = Buffer.from(data);
    if (what === "flip") kept[kept.length >> 1]! ^= 4;
    if (what !== "lose") disk.set(kept, offset);
    log.push({ kind: "write", offset, data: kept });
    return 0;
  }
  if (name === "flush") {
    log.push({ kind: "flush", offset: 0, data: new Uint8Array() });
    return 0;
  }
  const copy = Buffer.from(disk.subarray(offset, offset + length));
  if (what === "flip") copy[copy.length >> 1]! ^= 4;
  return copy;
}

function ruleFor(on: DiskRule["on"], offset: number, length: number): DiskRule["what"] | undefined {
  for (const each of rules) {
    const { rule } = each;
    if (rule.on !== on || each.times === 0) continue;
    if (on !== "flush" && (offset + length <= rule.from || offset >= rule.to)) continue;
    if (each.skip > 0) {
      each.skip--;
      continue;
    }
    each.times--;
    delivered++;
    return rule.what;
  }
  return undefined;
}

function optionReply(option: number, type: number, data = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(0x3e8_8904_5565_a9n, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(data.length, 16);
  return Buffer.concat([head, data]);
}

function readerOf(socket: Socket): (count: number) => Promise<Buffer> {
  const pieces: Buffer[] = [];
  let held = 0;
  let wake = () => {};
  let over = false;
  socket.on("data", (piece: Buffer) => {
    pieces.push(piece);
    held += piece.length;
    wake();
  });
  socket.on("close", () => {
    over = true;
    wake();
  });
  return async (count) => {
    while (held < count) {
      if (over) throw new Error("the connection ended");
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const all = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
    pieces.length = 0;
    held = all.length - count;
    if (held > 0) pieces.push(all.subarray(count));
    return all.subarray(0, count);
  };
}
