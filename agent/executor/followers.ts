// The operation's own socket: replays its events to whoever attaches, passes on new ones, and takes cancels.
import { connect, createServer, type Server, type Socket } from "node:net";
import { assert, BedplateError } from "../../protocol/errors.ts";
import type { Clock } from "../host/clock.ts";
import { errnoOf, type Files } from "../host/files.ts";
import { checkFollowerRequest, type ExecutorEvent, lineBytesMax } from "./contract.ts";
import type { JournalledEvent } from "./journal.ts";

export interface CancelAnswer {
  readonly answer: "cancelling" | "too-late";
  readonly reason: string;
}

export interface FollowerHooks {
  readonly replay: (afterSeq: number) => readonly JournalledEvent[];
  readonly cancel: (reason: string) => CancelAnswer;
}

export interface Followers extends AsyncDisposable {
  /** From here on followers are answered; those that came earlier have waited. */
  serve(hooks: FollowerHooks): void;
  /** Passes on an event, which is in the journal already unless it is progress. */
  publish(event: ExecutorEvent): void;
  /**
   * Resolves when nobody is left to tell: a follower that got everything has gone, or nobody came for a while, or it
   * has taken too long; or when `until` says so.
   */
  drained(clock: Clock, signal: AbortSignal, until?: () => boolean): Promise<void>;
}

const followersMax = 32;
/** A follower that does not read gets no progress beyond this, and is closed beyond the next. */
const progressBytesMax = 64 << 10;
const backlogBytesMax = 2 << 20;
assert(backlogBytesMax > lineBytesMax, "a follower can wait for one whole line");
const lingerMs = 2000;
const drainMs = 30_000;
const pollMs = 50;

interface Follower {
  readonly socket: Socket;
  text: string;
  attached: boolean;
  lastSeq: number;
  gotAll: boolean;
}

/** Whether a process listens there. */
export async function isListening(path: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.on("connect", () => resolve(true));
  socket.on("error", (error) => {
    const errno = errnoOf(error);
    // A full queue of connections is a listener's too.
    if (errno === "EAGAIN") resolve(true);
    else if (errno === "ENOENT" || errno === "ECONNREFUSED") resolve(false);
    else
      reject(
        new BedplateError("executor.failed", `The operation's socket ${path} cannot be reached: ${errno}.`, {
          cause: error,
        }),
      );
  });
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

/** Binds the socket (mode 0660) in place of a stale one. The caller makes sure that nobody listens there. */
export async function bindFollowers(files: Files, path: string, gid: number): Promise<Followers> {
  files.remove(path);
  const sockets = new Set<Socket>();
  let accept = (socket: Socket): void => {
    waiting.push(socket);
  };
  const waiting: Socket[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    if (sockets.size >= followersMax) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    accept(socket);
  });
  await listen(server, path);
  files.changeGroup(path, gid);

  const followers = new Set<Follower>();
  let lastSeen = -1;
  let toldAndGone = false;
  const attach = (socket: Socket, hooks: FollowerHooks) => {
    const follower: Follower = { socket, text: "", attached: false, lastSeq: 0, gotAll: false };
    followers.add(follower);
    socket.on("close", () => {
      followers.delete(follower);
      if (follower.gotAll) toldAndGone = true;
    });
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => takeText(follower, text, hooks));
  };
  return {
    serve(hooks) {
      accept = (socket) => attach(socket, hooks);
      for (const socket of waiting.splice(0)) accept(socket);
    },
    publish(event) {
      for (const follower of followers) if (follower.attached) send(follower, event);
    },
    async drained(clock, signal, until = () => false) {
      const began = clock.monotonic();
      lastSeen = began;
      while (!signal.aborted && !until()) {
        const now = clock.monotonic();
        if (sockets.size > 0) lastSeen = now;
        else if (toldAndGone || now - lastSeen > lingerMs) return;
        if (now - began > drainMs) return;
        await clock.sleep(pollMs, signal).catch(() => {});
      }
    },
    async [Symbol.asyncDispose]() {
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      for (const socket of sockets) {
        socket.end();
        // What was written is the kernel's to deliver; nobody is waited for.
        socket.destroySoon();
      }
      await closed.promise;
    },
  };
}

async function listen(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.on("error", (cause) =>
    reject(
      new BedplateError("executor.failed", `No socket can be made at ${path}: ${errnoOf(cause)}.`, { cause }),
    ),
  );
  // The mode is set as it is made: nobody connects in between.
  const before = process.umask(0o117);
  try {
    server.listen(path, resolve);
  } finally {
    process.umask(before);
  }
  await promise;
}

/** Takes what a follower sent; one that does not keep to the contract is closed. */
function takeText(follower: Follower, text: string, hooks: FollowerHooks): void {
  follower.text += text;
  for (let end = follower.text.indexOf("\n"); end >= 0; end = follower.text.indexOf("\n")) {
    const line = follower.text.slice(0, end);
    follower.text = follower.text.slice(end + 1);
    try {
      takeLine(follower, line, hooks);
    } catch {
      follower.socket.destroy();
      return;
    }
  }
  if (follower.text.length > lineBytesMax) follower.socket.destroy();
}

function takeLine(follower: Follower, line: string, hooks: FollowerHooks): void {
  const request = checkFollowerRequest(JSON.parse(line));
  if ("attach" in request) {
    follower.lastSeq = request.attach.afterSeq;
    follower.attached = true;
    for (const event of hooks.replay(request.attach.afterSeq)) send(follower, event);
  } else {
    send(follower, { type: "cancel", ...hooks.cancel(request.cancel.reason) });
  }
}

function send(follower: Follower, event: ExecutorEvent): void {
  const { socket } = follower;
  if ("seq" in event) {
    if (event.seq <= follower.lastSeq) return;
    follower.lastSeq = event.seq;
    if (event.type === "result" || event.type === "refused") follower.gotAll = true;
  } else if (event.type === "progress" && socket.writableLength > progressBytesMax) return;
  if (socket.writableLength > backlogBytesMax) socket.destroy();
  else if (socket.writable) socket.write(`${JSON.stringify(event)}\n`);
}
