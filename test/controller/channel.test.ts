// A channel over a WebSocket that is only pretended, for what a real one shows too rarely.
import { EventEmitter } from "node:events";
import type { TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import type { WebSocket } from "ws";
import { Channel } from "../../controller/link/channel.ts";
import { LinkMeters } from "../../controller/link/meters.ts";
import { silentLog } from "../../controller/machine/log.ts";
import { systemClock } from "../../controller/machine/system.ts";
import { decodeFrame } from "../../protocol/frames.ts";
import { checkControllerMessage } from "../../protocol/messages.ts";

class PretendedSocket extends EventEmitter {
  bufferedAmount = 0;
  readonly sent: Uint8Array[] = [];
  readonly closes: [code: number, reason: string][] = [];
  terminated = 0;
  send(data: Uint8Array): void {
    this.sent.push(data);
  }
  close(code: number, reason: string): void {
    this.closes.push([code, reason]);
  }
  pause(): void {}
  resume(): void {}
  terminate(): void {
    this.terminated += 1;
    this.emit("close");
  }
}

function pretended() {
  const socket = new PretendedSocket();
  const channel = new Channel({
    webSocket: socket as unknown as WebSocket,
    socket: new EventEmitter() as unknown as TLSSocket,
    clock: systemClock,
    log: silentLog,
    meters: new LinkMeters(),
  });
  return { socket, channel };
}

test("a peer with more unread than is kept for anyone is told once, closed and cut off", async () => {
  const { socket, channel } = pretended();
  socket.bufferedAmount = 5 << 20;
  expect(channel.send({ t: "heartbeat", at: 0 })).toBe("closed");
  expect(channel.send({ t: "heartbeat", at: 0 })).toBe("closed");
  expect(socket.closes.map(([code]) => code)).toEqual([4429]);
  expect(socket.sent.map((bytes) => checkControllerMessage(decodeFrame(bytes)).t)).toEqual(["goaway"]);
  await channel.ended;
  expect(socket.terminated).toBe(1);
});

test("a long reason fits a close frame and a goaway, and is cut between characters", async () => {
  const { socket, channel } = pretended();
  channel.close("bye", "é".repeat(5000));
  const [, reason] = socket.closes[0]!;
  expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(123);
  expect(reason).toMatch(/^é+…$/);
  const goaway = checkControllerMessage(decodeFrame(socket.sent[0]!));
  expect(goaway.t === "goaway" && goaway.reason.length).toBe(1000);
  channel.close("drain", "again");
  expect(socket.closes).toHaveLength(1);
  socket.emit("close");
  await channel.ended;
  expect(socket.terminated).toBe(0);
});
