// The operation's own socket: who is connected, who is told of what, and until when the process stays for them.
import { connect, createServer, type Server, type Socket } from "node:net";
import { outputPieceBytesMax } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { ExecutorEvent } from "../door/contract.ts";
import type { Clock } from "../host/clock.ts";
import { errnoOf, type Files } from "../host/files.ts";
import { createFollower, type Follower, type FollowerHooks } from "./follower.ts";
import type { OutputSpool } from "./output-spool.ts";

export type { CancelAnswer, FollowerHooks } from "./follower.ts";

export interface Followers extends AsyncDisposable {
  /** From here on followers are answered; those that came earlier have waited. */
  serve(hooks: FollowerHooks, clock: Clock): void;
  /** Whether one that is connected says that the agent's link is up. */
  linkUp(): boolean;
  /** Passes on an event, which is in the journal already unless it is progress. */
  publish(event: ExecutorEvent): void;
  /**
   * Resolves when nobody is left to tell: a follower that got everything has gone, or nobody came for a while, or it
   * has taken too long; or when `until` says so.
   */
  drained(clock: Clock, signal: AbortSignal, until?: () => boolean): Promise<void>;
}

const followersMax = 32;
const lingerMs = 2000;
/** Without a byte going to anybody. One that reads output may wait for room on a link that is down. */
const drainMs = { usual: 30_000, reading: 600_000 } as const;
const pollMs = 50;
/** What a program prints in little pieces is gathered for so long. */
const gatherMs = 50;

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
  let toldAndGone = false;
  const attach = (socket: Socket, hooks: FollowerHooks) => {
    const follower = createFollower(socket, hooks);
    followers.add(follower);
    socket.on("close", () => {
      followers.delete(follower);
      if (follower.gotAll) toldAndGone = true;
    });
  };
  const closing = new AbortController();
  let told = 0;
  let gathering = false;
  const tellOfOutput = (output: OutputSpool) => {
    told = output.bytes;
    for (const follower of followers) follower.outputGrew();
  };
  const gather = (output: OutputSpool, clock: Clock) => {
    if (output.bytes - told >= outputPieceBytesMax) return tellOfOutput(output);
    if (gathering) return;
    gathering = true;
    clock.sleep(gatherMs, closing.signal).then(
      () => {
        gathering = false;
        tellOfOutput(output);
      },
      () => {},
    );
  };
  /** Bytes that the kernel took for those who are connected. */
  const taken = () =>
    [...sockets].reduce((sum, socket) => sum + socket.bytesWritten - socket.writableLength, 0);
  return {
    serve(hooks, clock) {
      const { output } = hooks;
      accept = (socket) => attach(socket, hooks);
      for (const socket of waiting.splice(0)) accept(socket);
      told = output.bytes;
      const listening = output.onAppend(() => gather(output, clock));
      closing.signal.addEventListener("abort", () => listening[Symbol.dispose](), { once: true });
    },
    linkUp: () => [...followers].some((follower) => follower.linkUp),
    publish(event) {
      for (const follower of followers) follower.publish(event);
    },
    async drained(clock, signal, until = () => false) {
      let seenMs = clock.monotonic();
      let movedMs = seenMs;
      let moved = taken();
      while (!signal.aborted && !until()) {
        const nowMs = clock.monotonic();
        if (sockets.size > 0) seenMs = nowMs;
        else if (toldAndGone || nowMs - seenMs > lingerMs) return;
        const now = taken();
        if (now !== moved) movedMs = nowMs;
        moved = now;
        const reading = [...followers].some(({ readsOutput }) => readsOutput);
        if (nowMs - movedMs > (reading ? drainMs.reading : drainMs.usual)) return;
        await clock.sleep(pollMs, signal).catch(() => {});
      }
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
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
