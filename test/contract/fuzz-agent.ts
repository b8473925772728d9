// Fuzzes an agent as a controller that has its trust can reach it: mutated messages in each state of a connection,
// broken WebSocket framing, floods. The agent's answer to each frame is foretold by the specification's own checks.
import { setTimeout as sleep } from "node:timers/promises";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import { type ControllerMessage, checkControllerMessage } from "../../protocol/messages.ts";
import { type AgentPeer, type HostileController, welcomeOf } from "../support/hostile-controller.ts";
import { createLots, type Lots, mutateBytes, mutateValue, oddValues } from "./mutations.ts";
import { controllerMessage } from "./samples.ts";

export interface AgentFuzz {
  readonly controller: HostileController;
  readonly seconds: number;
  /** Goes on until it says so, however long that takes. */
  readonly enough: (counts: AgentCounts) => boolean;
  readonly seed: number;
}

export interface AgentCounts {
  connections: number;
  frames: number;
  taken: number;
  refused: number;
  broken: number;
  flooded: number;
}

const framesOfSession = 80;
const answerMs = 30_000;

interface Run {
  readonly lots: Lots;
  readonly odd: readonly unknown[];
  readonly counts: AgentCounts;
}

export async function fuzzAgent({ controller, seconds, enough, seed }: AgentFuzz): Promise<AgentCounts> {
  const lots = createLots(seed);
  const counts: AgentCounts = { connections: 0, frames: 0, taken: 0, refused: 0, broken: 0, flooded: 0 };
  const run: Run = { lots, odd: oddValues(seed, 400), counts };
  let failure: unknown;
  controller.serve(async (peer) => {
    counts.connections += 1;
    try {
      await lots.pick([unproven, unwelcome, session, session, session, session, brokenFraming, flood])(
        peer,
        run,
      );
      failure ??= peer.violations[0];
    } catch (error) {
      failure ??= error;
    }
  });
  const until = performance.now() + seconds * 1000;
  while ((performance.now() < until || !enough(counts)) && failure === undefined) await sleep(50);
  controller.serve(async () => {});
  if (failure !== undefined) throw failure;
  return counts;
}

type Foretold = { readonly taken: ControllerMessage } | { readonly code: string };

function foretell(bytes: Uint8Array): Foretold {
  try {
    return { taken: checkControllerMessage(decodeFrame(bytes)) };
  } catch (error) {
    return { code: (error as { code: string }).code };
  }
}

function mutated(message: unknown, { lots, odd }: Run): Uint8Array {
  if (lots.chance(0.5)) return encodeFrame(mutateValue(message, odd, lots));
  return mutateBytes(encodeFrame(message), encodeFrame(controllerMessage("ab".repeat(32), lots)), lots);
}

/** The agent closes: with our code for what is malformed; a WebSocket library may be first for what is too large. */
async function expectClosed(
  peer: AgentPeer,
  frame: Uint8Array,
  codes: readonly number[] = [4400],
): Promise<void> {
  const closed = await Promise.race([peer.closed, sleep(answerMs)]);
  if (closed === undefined || !codes.includes(closed.code))
    throw new Error(`${JSON.stringify(closed)} where ${codes.join(", ")} was due: ${show(frame)}`);
}

function show(frame: Uint8Array): string {
  return Buffer.from(frame.subarray(0, 2048)).toString("hex");
}

/** In place of the challenge. */
async function unproven(peer: AgentPeer, run: Run): Promise<void> {
  if ((await peer.next("hello")) === undefined) return;
  const challenge = { t: "challenge", nonce: run.lots.bytes(32), version: 1, epoch: 1, at: Date.now() };
  const frame = mutated(run.lots.chance(0.7) ? challenge : controllerMessage("ab".repeat(32), run.lots), run);
  peer.sendRaw(frame);
  run.counts.frames += 1;
  const foretold = foretell(frame);
  if ("code" in foretold) {
    await expectClosed(peer, frame);
    run.counts.refused += 1;
  } else if (foretold.taken.t === "challenge") {
    if ((await peer.next("auth", answerMs)) === undefined) throw new Error(`no proof came: ${show(frame)}`);
    run.counts.taken += 1;
  } else {
    await expectRefused(peer, foretold.taken, frame, run);
  }
}

/** A message that is not due: the agent leaves, with or without a word; after a goodbye it waits for our close. */
async function expectRefused(
  peer: AgentPeer,
  message: ControllerMessage,
  frame: Uint8Array,
  run: Run,
): Promise<void> {
  if (message.t === "goaway") {
    run.counts.taken += 1;
    return;
  }
  await expectClosed(peer, frame, [1005, 1006, 4400]);
  run.counts.refused += 1;
}

/** In place of the welcome. */
async function unwelcome(peer: AgentPeer, run: Run): Promise<void> {
  const host = await peer.prove();
  if (host === undefined) return;
  const frame = mutated(run.lots.chance(0.7) ? welcomeOf(host) : controllerMessage(host, run.lots), run);
  peer.sendRaw(frame);
  run.counts.frames += 1;
  const foretold = foretell(frame);
  if ("code" in foretold) {
    await expectClosed(peer, frame);
    run.counts.refused += 1;
  } else if (foretold.taken.t === "welcome") {
    await Promise.race([peer.next("heartbeat", 1000), peer.closed]);
    run.counts.taken += 1;
  } else if (foretold.taken.t === "probe") {
    if ((await peer.next("proof", answerMs)) === undefined) throw new Error(`no answer came: ${show(frame)}`);
    run.counts.taken += 1;
  } else {
    await expectRefused(peer, foretold.taken, frame, run);
  }
}

/** A welcome, then messages of which a part is wounded; an honest acknowledgement now and then. */
async function session(peer: AgentPeer, run: Run): Promise<void> {
  const { lots, counts } = run;
  const host = await welcomed(peer);
  if (host === undefined) return;
  for (let k = 0; k < framesOfSession && peer.open; k++) {
    const message = controllerMessage(host, lots);
    const frame = lots.chance(0.7) ? encodeFrame(message) : mutated(message, run);
    const foretold = foretell(frame);
    peer.sendRaw(frame);
    counts.frames += 1;
    if ("code" in foretold) {
      await expectClosed(peer, frame);
      counts.refused += 1;
      return;
    }
    if (foretold.taken.t === "challenge" || foretold.taken.t === "welcome") {
      await expectClosed(peer, frame);
      counts.refused += 1;
      return;
    }
    if (foretold.taken.t === "offer" || foretold.taken.t === "authority") {
      // What is no command, and no certificate, may end the session too.
      await sleep(2);
      if (!peer.open) {
        await expectClosed(peer, frame);
        counts.refused += 1;
        return;
      }
    }
    counts.taken += 1;
    const records = peer.received.flatMap((each) => (each.t === "record" ? [each.seq] : []));
    const samples = peer.received.flatMap((each) => (each.t === "batch" ? [each.seq] : []));
    peer.received.length = 0;
    if (lots.chance(0.3) && records.length > 0)
      peer.send({ t: "ack", records: Math.max(...records), samples: Math.max(0, ...samples) });
  }
}

async function welcomed(peer: AgentPeer): Promise<string | undefined> {
  const host = await peer.prove();
  if (host === undefined) return undefined;
  peer.send(welcomeOf(host));
  return (await peer.next("heartbeat", answerMs)) === undefined ? undefined : host;
}

async function brokenFraming(peer: AgentPeer, { lots, counts }: Run): Promise<void> {
  if (lots.chance(0.5) && (await welcomed(peer)) === undefined) return;
  const payload = encodeFrame({ t: "heartbeat", at: Date.now() });
  const first = lots.pick([0x82, 0x02, 0x80, 0x89, 0x8a, 0x88, 0xc2, 0x83, 0x81]);
  const whole = Buffer.concat([Uint8Array.of(first, payload.length), payload]);
  for (let k = 1 + lots.below(4); k > 0; k--) peer.tls.write(mutateBytes(whole, whole, lots));
  counts.broken += 1;
  await Promise.race([peer.closed, sleep(50)]);
}

/** Much of what is valid at once, nothing of it acknowledged; or one message beyond its bound. */
async function flood(peer: AgentPeer, { lots, counts }: Run): Promise<void> {
  const host = await welcomed(peer);
  if (host === undefined) return;
  counts.flooded += 1;
  if (lots.chance(0.3)) {
    const frame = new Uint8Array(limits.frameBytesMax + 1 + lots.below(1000));
    peer.sendRaw(frame);
    await expectClosed(peer, frame.subarray(0, 16), [1009, 4413, 4400]);
    return;
  }
  for (let k = 0; k < 500 && peer.open; k++) {
    const message = controllerMessage(host, lots);
    peer.sendRaw(encodeFrame(message));
  }
  counts.frames += 500;
  // Alive still: it beats or, because an offer was none, has left.
  await Promise.race([peer.next("record", answerMs), peer.closed]);
}
