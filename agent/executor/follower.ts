// One connection on an operation's socket: its requests, the events it gets, and the output it reads at its own pace.
import type { Socket } from "node:net";
import { assert } from "../../protocol/errors.ts";
import { checkFollowerRequest, type ExecutorEvent, lineBytesMax } from "../door/contract.ts";
import type { JournalledEvent } from "./journal.ts";
import type { OutputReader, OutputSpool } from "./output-spool.ts";

export interface CancelAnswer {
  readonly answer: "cancelling" | "too-late";
  readonly reason: string;
}

export interface FollowerHooks {
  readonly replay: (afterSeq: number) => readonly JournalledEvent[];
  readonly cancel: (reason: string) => CancelAnswer;
  /** Absent where nothing runs. */
  readonly pause?: (paused: boolean) => void;
  readonly output: OutputSpool;
}

export interface Follower {
  /** It said last that the agent's link is up. */
  readonly linkUp: boolean;
  /** It has the operation's last event. */
  readonly gotAll: boolean;
  /** It has not yet read all the output there is. */
  readonly readsOutput: boolean;
  /** Passes on an event, if it has attached. */
  publish(event: ExecutorEvent): void;
  /** There is more output. */
  outputGrew(): void;
}

/** A follower that does not read gets no progress beyond this, and is closed beyond the next. */
const progressBytesMax = 64 << 10;
const backlogBytesMax = 2 << 20;
assert(backlogBytesMax > lineBytesMax, "a follower can wait for one whole line");

export function createFollower(socket: Socket, hooks: FollowerHooks): Follower {
  let text = "";
  let attached = false;
  let lastSeq = 0;
  let linkUp = false;
  let gotAll = false;
  /** Undefined: it wants no output. */
  let output: OutputReader | undefined;
  /** The last event waits until all output has gone before it. */
  let held: JournalledEvent | undefined;

  const write = (event: ExecutorEvent): boolean =>
    socket.writable && socket.write(`${JSON.stringify(event)}\n`);

  const deliver = (event: JournalledEvent) => {
    if (socket.writableLength > backlogBytesMax) return void socket.destroy();
    write(event);
    if (isLast(event)) gotAll = true;
  };

  // Taken from the spool only while the socket takes it: nothing piles up for one that is slow.
  const pump = () => {
    while (output !== undefined && socket.writable && !socket.writableNeedDrain) {
      const piece = output.next();
      if (piece === undefined) {
        const last = held;
        held = undefined;
        if (last !== undefined) deliver(last);
        return;
      }
      const { stream, offset, data } = piece;
      write({ type: "output", stream, offset, data: base64Of(data) });
    }
  };
  socket.on("drain", pump);

  const send = (event: ExecutorEvent) => {
    if ("seq" in event) {
      if (event.seq <= lastSeq) return;
      lastSeq = event.seq;
      if (output === undefined || !isLast(event)) return deliver(event);
      held = event;
      return pump();
    }
    if (event.type === "progress" && socket.writableLength > progressBytesMax) return;
    if (socket.writableLength > backlogBytesMax) socket.destroy();
    else write(event);
  };

  const takeLine = (line: string) => {
    const request = checkFollowerRequest(JSON.parse(line));
    if ("attach" in request) {
      const { afterSeq, afterOutput } = request.attach;
      lastSeq = afterSeq;
      attached = true;
      held = undefined;
      output = afterOutput === undefined ? undefined : hooks.output.reader(afterOutput);
      for (const event of hooks.replay(afterSeq)) send(event);
      pump();
    } else if ("link" in request) {
      linkUp = request.link === "up";
    } else if ("pause" in request) {
      hooks.pause?.(request.pause.paused);
    } else {
      send({ type: "cancel", ...hooks.cancel(request.cancel.reason) });
    }
  };

  socket.setEncoding("utf8");
  socket.on("data", (more: string) => {
    text += more;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      try {
        takeLine(line);
      } catch {
        // One that does not keep to the contract is closed.
        socket.destroy();
        return;
      }
    }
    if (text.length > lineBytesMax) socket.destroy();
  });

  return {
    get linkUp() {
      return attached && linkUp;
    },
    get gotAll() {
      return gotAll;
    },
    get readsOutput() {
      return held !== undefined;
    },
    publish(event) {
      if (attached) send(event);
    },
    outputGrew: pump,
  };
}

function base64Of({ buffer, byteOffset, length }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, length).toString("base64");
}

function isLast(event: JournalledEvent): boolean {
  return event.type === "result" || event.type === "refused";
}
