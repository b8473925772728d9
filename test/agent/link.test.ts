// The link against a pretended controller over real TLS: what the agent does after every close, at every moment.
import { generateKeyPairSync, sign } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { type WebSocket, WebSocketServer } from "ws";
import { systemClock } from "../../agent/host/clock.ts";
import { openStateDirectory } from "../../agent/host/state-directory.ts";
import { openPins } from "../../agent/link/authority.ts";
import { createBell } from "../../agent/link/bell.ts";
import { runLink } from "../../agent/link/link.ts";
import { byeMs, replacedMs } from "../../agent/link/redial.ts";
import { createSampleQueue } from "../../agent/link/sample-queue.ts";
import { type Authority, openAuthority } from "../../controller/authority/authority.ts";
import { openPrivateDirectory } from "../../controller/machine/files.ts";
import { systemRandom } from "../../controller/machine/system.ts";
import { type CloseName, closeCodes } from "../../protocol/codes.ts";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import {
  type AgentMessage,
  type ControllerMessage,
  checkAgentMessage,
  subprotocol,
} from "../../protocol/messages.ts";
import { newCommandId } from "../support/commands.ts";

let root: string;
let authority: Authority;
let server: Server;
/** What the pretended controller does with a connection; set by each test. */
let serve: (peer: Peer) => void | Promise<void> = () => {};
/** Answered instead of an upgrade, when set. */
let instead: string | undefined;

class Peer {
  readonly #socket: WebSocket;
  readonly #waiting: AgentMessage[] = [];
  #wake = () => {};

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on("message", (data) => {
      this.#waiting.push(checkAgentMessage(decodeFrame(Uint8Array.from(data as Buffer))));
      this.#wake();
    });
    socket.on("error", () => {});
  }

  send(message: ControllerMessage): void {
    this.#socket.send(encodeFrame(message));
  }

  async next<T extends AgentMessage["t"]>(t: T): Promise<Extract<AgentMessage, { t: T }>> {
    for (;;) {
      const index = this.#waiting.findIndex((message) => message.t === t);
      if (index >= 0) return this.#waiting.splice(index, 1)[0] as Extract<AgentMessage, { t: T }>;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async introduced(): Promise<{
    hello: Extract<AgentMessage, { t: "hello" }>;
    auth: Extract<AgentMessage, { t: "auth" }>;
  }> {
    const hello = await this.next("hello");
    this.send({ t: "challenge", nonce: new Uint8Array(32), version: 1, epoch: 3, at: 0 });
    return { hello, auth: await this.next("auth") };
  }

  welcome(): void {
    this.send({
      ...{ t: "welcome", session: "s1", host: "ab".repeat(32), name: "h", at: 0, records: 0, samples: 0 },
      ...{ heartbeatMs: heartbeatMs, reconnectWindowMs: 40_000, creditBytes: 1 << 20 },
    });
  }

  goaway(name: CloseName, reason: string, reconnectWindowMs = 0): void {
    this.send({ t: "goaway", reason, reconnectWindowMs });
    this.#socket.close(closeCodes[name].code, reason.slice(0, 100));
  }

  get ended(): Promise<void> {
    return new Promise((resolve) => this.#socket.once("close", () => resolve()));
  }

  cut(): void {
    this.#socket.terminate();
  }
}

const heartbeatMs = 123_456;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "bedplate-dial-"));
  await openPrivateDirectory(join(root, "ca"));
  authority = await openAuthority(join(root, "ca"), [], systemRandom);
  server = createServer({ key: authority.keyPem, cert: authority.certificatePem, minVersion: "TLSv1.3" });
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => subprotocol });
  server.on("upgrade", (request, socket, head) => {
    if (instead !== undefined) socket.end(instead);
    else sockets.handleUpgrade(request, socket, head, (webSocket) => void serve(new Peer(webSocket)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(root, { recursive: true });
});
beforeEach(() => {
  instead = undefined;
});

/** Runs the link until it has waited so often between two dials; answers these waits. Nothing random: fractions are a half. */
async function dialled(waits: number, joinToken?: string, resume = () => {}) {
  const state = openStateDirectory(join(mkdtempSync(join(root, "host-")), "state"));
  state.write("controller-ca.pem", Buffer.from(authority.caPem));
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const slept: number[] = [];
  const cancelled: unknown[][] = [];
  const states: boolean[] = [];
  const stopping = new AbortController();
  const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };
  await runLink(
    {
      controller: new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`),
      ...{ joinToken, name: "h", hostname: "h", bootId: "b", state, pins: openPins(state) },
      keys: {
        ...{ hostId: "ab".repeat(32), instance: "i" },
        linkKey: Uint8Array.from(publicKey.export({ format: "der", type: "spki" }).subarray(-32)),
        sign: (data) => Uint8Array.from(sign(null, data, privateKey)),
      },
      identity: { welcomed: () => {} },
      random: { bytes: (count) => new Uint8Array(count).fill(7), fraction: () => 0.5 },
      parts: {
        outbox: {
          ...{ recordCount: 0, recordBytes: 0, outputBytes: 0, after: () => [], acknowledge: () => {} },
          resume,
        } as never,
        samples: createSampleQueue(1 << 20),
        ...{ dictionary: () => undefined, takeProgress: () => [], operations: () => [] },
        ...{
          offered: () => "taken" as const,
          cancel(...told: unknown[]) {
            cancelled.push(told);
            return "taken" as const;
          },
          pause: () => "taken" as const,
          countersigned: async () => {},
        },
        bell: createBell(),
        clock: {
          ...systemClock,
          async sleep(ms, signal) {
            if (ms === heartbeatMs || ms === 20) return systemClock.sleep(ms, signal);
            slept.push(ms);
            if (slept.length >= waits) stopping.abort();
          },
        },
        log: log as never,
        intervalMs: 1000,
      },
      onState: ({ connected }) => void states.push(connected),
    },
    stopping.signal,
  );
  return { slept, log, cancelled, states };
}

const inSession: Record<(typeof closeCodes)[CloseName]["retry"], number> = {
  window: 20_000,
  minute: replacedMs,
  hour: byeMs,
  backoff: 1000,
};

test.each(Object.entries(closeCodes))("a session that is closed with %s", async (name, { retry }) => {
  serve = async (peer) => {
    await peer.introduced();
    peer.welcome();
    await peer.next("heartbeat");
    peer.goaway(name as CloseName, "why", 40_000);
  };
  expect((await dialled(1)).slept).toEqual([inSession[retry]]);
});

test.each(Object.entries(closeCodes))("an introduction that is refused with %s", async (name, { retry }) => {
  serve = async (peer) => {
    await peer.introduced();
    peer.goaway(name as CloseName, "enrol.host-revoked The key is revoked.", 30_000);
  };
  const { slept, log } = await dialled(1);
  expect(slept).toEqual([retry === "window" ? 15_000 : inSession[retry]]);
  expect(log.warn.mock.calls[0]?.[0]).toMatchObject({ code: "enrol.host-revoked" });
});

test("a connection that is cut in its session comes back within the window of the welcome; before it, it backs off", async () => {
  serve = async (peer) => {
    await peer.introduced();
    peer.welcome();
    await peer.next("heartbeat");
    peer.cut();
  };
  expect((await dialled(1)).slept).toEqual([20_000]);
  serve = async (peer) => {
    await peer.introduced();
    peer.cut();
  };
  const { slept } = await dialled(8);
  expect(slept[0]).toBe(1000);
  for (const [i, ms] of slept.entries()) if (i > 0) expect(ms).toBeGreaterThan(slept[i - 1]!);
  expect(Math.max(...slept)).toBeLessThanOrEqual(90_000);
});

test("a session that cannot begin, since the disk takes nothing, ends for both sides, and is not taken for a link", async () => {
  const ended: Promise<void>[] = [];
  serve = async (peer) => {
    const before = ended.at(-1);
    ended.push(peer.ended);
    // Not only when the agent stops.
    await before;
    await peer.introduced();
    peer.welcome();
  };
  const { states, log } = await dialled(2, undefined, () => {
    throw new Error("database or disk is full");
  });
  expect(states).toEqual([true, false, true, false]);
  expect(log.warn.mock.calls[0]?.[1]).toContain("disk is full");
  await Promise.all(ended);
});

test("a server that has no room is given the time it asks for", async () => {
  instead =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
  const { slept, log } = await dialled(1);
  expect(slept).toEqual([10_500]);
  expect(log.warn.mock.calls[0]?.[1]).toContain("status 503");
});

test("kept out for another machine has its key, it still hears which of its commands are to be cancelled", async () => {
  serve = async (peer) => {
    await peer.introduced();
    peer.send({ t: "cancel", command: newCommandId(), ifKnown: true });
    peer.goaway("duplicate", "host.quarantined Two machines answer.", 0);
  };
  const { cancelled, log } = await dialled(1);
  expect(cancelled).toEqual([[expect.any(String), true]]);
  expect(JSON.stringify(log.warn.mock.calls)).toContain("host.quarantined");
});

test("what is said before the welcome: the highest epoch seen, and the answer to a probe", async () => {
  const hellos: Extract<AgentMessage, { t: "hello" }>[] = [];
  let proof: Extract<AgentMessage, { t: "proof" }> | undefined;
  serve = async (peer) => {
    const { hello } = await peer.introduced();
    hellos.push(hello);
    peer.send({ t: "probe", nonce: new Uint8Array(32).fill(1) });
    proof = await peer.next("proof");
    peer.welcome();
    await peer.next("heartbeat");
    peer.goaway("drain", "why", 0);
  };
  await dialled(2);
  expect(hellos[0]).not.toHaveProperty("epochSeen");
  expect(hellos[0]).not.toHaveProperty("previousSession");
  expect(hellos[1]).toMatchObject({ epochSeen: 3, previousSession: "s1" });
  expect(proof?.signature.length).toBe(64);
});

test("a controller that does not know the host any more is shown the join token, one that does is not", async () => {
  const joinToken = `bedplate-join.0123456789abcdef.${"s".repeat(43)}.${authority.caSha256}`;
  const shown: (string | undefined)[] = [];
  serve = async (peer) => {
    const { auth } = await peer.introduced();
    shown.push(auth.joinToken);
    if (shown.length === 2) return peer.goaway("unknownHost", "link.unknown-host Who is this?");
    peer.welcome();
    await peer.next("heartbeat");
    peer.goaway("drain", "why", 0);
  };
  await dialled(4, joinToken);
  // Joined; known; not known any more; joined anew; known.
  expect(shown).toEqual([joinToken, undefined, joinToken, undefined]);
});

test("an agent that has been told goodbye with another's words logs them once", async () => {
  serve = async (peer) => {
    await peer.introduced();
    peer.goaway("duplicate", "host.quarantined Two machines answer with this host's key.");
  };
  const { log } = await dialled(5);
  expect(log.warn).toHaveBeenCalledTimes(1);
  expect(log.warn.mock.calls[0]?.[1]).toContain("Two machines answer");
  expect(log.debug).toHaveBeenCalledTimes(4);
});
