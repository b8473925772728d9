// Fuzzes a controller as agents and strangers can reach it: mutated frames before and after the proof, broken WebSocket
// framing, broken HTTP, broken TLS. Each frame's fate is foretold by the specification's own checks.
import { connect as connectPlain } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { lostMax } from "../../controller/rules/record-rule.ts";
import { decodeFrame, encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import { linkProofBytes } from "../../protocol/link-proof.ts";
import { type AgentMessage, checkAgentMessage, tlsServerName } from "../../protocol/messages.ts";
import {
  type Closed,
  helloOf,
  type Identity,
  type LinkAddress,
  type LinkClient,
  newLinkKey,
} from "../support/link-client.ts";
import { createAddresses, joinFrom, openFrom } from "./crowd.ts";
import { createLots, type Lots, mutateBytes, mutateValue, oddValues } from "./mutations.ts";
import { type AgentSession, agentMessage } from "./samples.ts";

export interface ControllerFuzz {
  readonly address: LinkAddress;
  readonly seconds: number;
  /** Goes on until it says so, however long that takes. */
  readonly enough: (counts: Counts) => boolean;
  readonly seed: number;
  readonly joinToken: string;
  /** Ids of commands that the host may speak of. */
  command(host: string): Promise<readonly string[]>;
}

export interface Counts {
  connections: number;
  frames: number;
  /** Taken by the session, which went on. */
  taken: number;
  /** Closed with the code foretold. */
  refused: number;
  broken: number;
}

type Foretold = { readonly taken: AgentMessage } | { readonly close: number; readonly code: string };

const peers = 8;
const framesOfSession = 60;
const answerMs = 30_000;

export async function fuzzController(fuzz: ControllerFuzz): Promise<Counts> {
  const counts: Counts = { connections: 0, frames: 0, taken: 0, refused: 0, broken: 0 };
  const until = performance.now() + fuzz.seconds * 1000;
  const odd = oddValues(fuzz.seed, 400);
  // A stranger with so many refused proofs would not be let in again soon.
  const newAddress = createAddresses();
  await Promise.all(
    Array.from({ length: peers }, async (_, peer) => {
      const lots = createLots(fuzz.seed + peer);
      const identity: Identity = {
        ...{ key: newLinkKey(), joinToken: fuzz.joinToken },
        ...{ name: `fuzzed-${peer}`, instance: `instance-${peer}` },
      };
      const run: Run = { ...fuzz, lots, odd, identity, counts, newAddress };
      (await joinFrom(newAddress(), fuzz.address, identity)).client[Symbol.dispose]();
      while (performance.now() < until || !fuzz.enough(counts)) {
        counts.connections += 1;
        await lots.pick([
          early,
          early,
          early,
          session,
          session,
          session,
          brokenFraming,
          brokenHttp,
          brokenTls,
        ])(run);
      }
    }),
  );
  return counts;
}

interface Run extends ControllerFuzz {
  readonly lots: Lots;
  readonly odd: readonly unknown[];
  readonly identity: Identity;
  readonly counts: Counts;
  newAddress(): string;
}

/** What the specification says of a frame where only `due` may come; undefined: any message of an agent. */
function foretell(bytes: Uint8Array, due?: AgentMessage["t"]): Foretold {
  const bytesMax = due === undefined ? limits.frameBytesMax : limits.frameBytesBeforeAuthMax;
  if (bytes.length > bytesMax) return { close: 4413, code: "frame.too-large" };
  try {
    const message = checkAgentMessage(decodeFrame(bytes));
    if (due !== undefined && message.t !== due) return { close: 4400, code: "message.unexpected" };
    return { taken: message };
  } catch (error) {
    return { close: 4400, code: (error as { code: string }).code };
  }
}

function mutated(message: unknown, { lots, odd, identity }: Run): Uint8Array {
  if (lots.chance(0.5)) return encodeFrame(mutateValue(message, odd, lots));
  const other = encodeFrame(agentMessage({ record: 1, batch: 1, commands: [] }, lots));
  return mutateBytes(encodeFrame(message), lots.chance(0.5) ? other : identity.key.publicKey, lots);
}

async function expectClose(client: LinkClient, foretold: { close: number; code: string }, frame: Uint8Array) {
  const closed = await inTime(client.closed, frame);
  if (closed.code !== foretold.close || !closed.reason.startsWith(foretold.code))
    throw new Error(
      `closed with ${closed.code} ${closed.reason}, not ${foretold.close} ${foretold.code}: ${show(frame)}`,
    );
}

async function inTime(closed: Promise<Closed>, frame: Uint8Array): Promise<Closed> {
  const ended = new AbortController();
  const late = sleep(answerMs, undefined, { signal: ended.signal }).then(() => {
    throw new Error(`not closed within ${answerMs} ms: ${show(frame)}`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([closed, late]);
  } finally {
    ended.abort();
  }
}

function show(frame: Uint8Array): string {
  return Buffer.from(frame.subarray(0, 2048)).toString("hex");
}

/** A mutated hello, or a right hello and a mutated proof. */
async function early(run: Run): Promise<void> {
  const { lots, identity, counts, address } = run;
  using client = await openFrom(run.newAddress(), address);
  const nonce = lots.bytes(32);
  const right = encodeFrame(helloOf(identity, nonce));
  const hello = lots.chance(0.6) ? mutated(helloOf(identity, nonce), run) : right;
  client.sendRaw(hello);
  counts.frames += 1;
  const foretold = foretell(hello, "hello");
  if ("close" in foretold) {
    await expectClose(client, foretold, hello);
    counts.refused += 1;
    return;
  }
  const { versions, linkKey } = foretold.taken as Extract<AgentMessage, { t: "hello" }>;
  if (versions.min > 1 || versions.max < 1) {
    await expectClose(client, { close: 4409, code: "link.version" }, hello);
    counts.refused += 1;
    return;
  }
  const challenge = await client.next("challenge", answerMs);
  counts.taken += 1;
  const signed = await linkProofBytes({
    ...{ agentNonce: (foretold.taken as Extract<AgentMessage, { t: "hello" }>).nonce, hello },
    ...{ controllerNonce: challenge.nonce, exported: client.exported() },
  });
  const auth = { t: "auth", signature: identity.key.sign(signed) };
  const frame = mutated(auth, run);
  client.sendRaw(frame);
  counts.frames += 1;
  const second = foretell(frame, "auth");
  if ("close" in second) {
    await expectClose(client, second, frame);
    counts.refused += 1;
    return;
  }
  const { signature } = second.taken as Extract<AgentMessage, { t: "auth" }>;
  const ours = Buffer.from(linkKey).equals(identity.key.publicKey);
  if (ours && Buffer.from(signature).equals(auth.signature)) {
    await client.next("welcome", answerMs);
    counts.taken += 1;
  } else {
    await expectClose(client, { close: 4401, code: "link.auth-failed" }, frame);
    counts.refused += 1;
  }
}

/** A session that sends what is half right until it is closed for it, or has had enough. */
async function session(run: Run): Promise<void> {
  const { lots, identity, counts, address } = run;
  const { client, welcome, host } = await joinFrom(run.newAddress(), address, identity);
  using _closing = client;
  const commands = await run.command(host);
  let agreed: AgentSession = { record: welcome.records + 1, batch: welcome.samples + 1, commands };
  // What the first record of a session leaves out is lost, and said so; a later one may leave nothing out.
  let told = false;
  for (let k = 0; k < framesOfSession; k++) {
    const message = agentMessage(agreed, lots);
    const frame = lots.chance(0.4) ? encodeFrame(message) : mutated(message, run);
    client.sendRaw(frame);
    counts.frames += 1;
    const foretold = foretell(frame);
    if ("close" in foretold) {
      await expectClose(client, foretold, frame);
      counts.refused += 1;
      return;
    }
    const left = foretold.taken.t === "record" ? foretold.taken.seq - agreed.record : 0;
    const hole = left > 0 && (told || left > lostMax);
    const fate = await fateOf(client, foretold.taken, hole, frame);
    if (fate === "closed") {
      counts.refused += 1;
      return;
    }
    counts.taken += 1;
    const { taken } = foretold;
    if (taken.t === "record") {
      told = true;
      agreed = { ...agreed, record: Math.max(agreed.record, taken.seq + 1) };
    }
    if (taken.t === "batch" && taken.seq >= agreed.batch) agreed = { ...agreed, batch: taken.seq + 1 };
  }
}

/** A message that is valid: whether the session goes on is a matter of its moment. */
async function fateOf(
  client: LinkClient,
  message: AgentMessage,
  hole: boolean,
  frame: Uint8Array,
): Promise<"taken" | "closed"> {
  if (message.t === "goaway") {
    const closed = await inTime(client.closed, frame);
    if (closed.code !== 4000) throw new Error(`a goodbye was closed with ${closed.code}: ${show(frame)}`);
    return "closed";
  }
  if (message.t === "hello" || message.t === "auth" || hole) {
    await expectClose(client, { close: 4400, code: "message.unexpected" }, frame);
    return "closed";
  }
  // Answered after all that came before it: a heartbeat each message, no more, so that none answers for a later one.
  if (message.t !== "heartbeat")
    client.send({
      ...{ t: "heartbeat", at: 0, operations: [] },
      outbox: { records: 0, recordBytes: 0, sampleBytes: 0 },
    });
  const closed = client.closed.then((how) => how);
  const answered = client.next("heartbeat", answerMs).then(
    () => undefined,
    async (error: unknown) => {
      if (client.socket.readyState === client.socket.OPEN) throw error;
      return await closed;
    },
  );
  const how = await answered;
  if (how === undefined) return "taken";
  // Readings that decode to nothing, or a piece of output that does not fit what came before.
  if (how.code === 4400 && /^(message\.(invalid|unexpected)|frame\.)/.test(how.reason)) return "closed";
  throw new Error(`a valid message was closed with ${how.code} ${how.reason}: ${show(frame)}`);
}

/** Frames of RFC 6455 with a wound: masks, lengths, opcodes, reserved bits. Any end will do, but it must end in time. */
async function brokenFraming(run: Run): Promise<void> {
  const { lots, counts, address, identity } = run;
  const proven = lots.chance(0.5);
  const client = proven
    ? (await joinFrom(run.newAddress(), address, identity)).client
    : await openFrom(run.newAddress(), address);
  using _closing = client;
  const payload = encodeFrame(helloOf(identity, lots.bytes(32)));
  const mask = lots.bytes(4);
  const masked = payload.map((byte, k) => byte ^ mask[k & 3]!);
  const length =
    payload.length < 126 ? [0x80 | payload.length] : [0x80 | 126, payload.length >> 8, payload.length & 255];
  const whole = Buffer.concat([
    Uint8Array.of(lots.pick([0x82, 0x02, 0x80, 0x89, 0x8a, 0x88, 0xc2, 0x83]), ...length),
    mask,
    masked,
  ]);
  const socket = (client.socket as unknown as { _socket: TLSSocket })._socket;
  for (let k = 1 + lots.below(4); k > 0; k--) socket.write(mutateBytes(whole, whole, lots));
  counts.broken += 1;
  // What was cut short waits for more bytes; a goodbye from our side ends it.
  await Promise.race([client.closed, sleep(50)]);
}

const upgrade = [
  "GET /v1/link HTTP/1.1",
  "Host: x",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Protocol: bedplate.v1",
  "\r\n",
].join("\r\n");

async function brokenHttp({ lots, counts, address, newAddress }: Run): Promise<void> {
  const { hostname, port } = new URL(address.url);
  const socket = connectTls({
    ...{ host: hostname, port: Number(port), ca: address.ca, servername: tlsServerName },
    ...({ localAddress: newAddress() } as object),
  });
  socket.on("error", () => {});
  const bytes = Buffer.from(
    lots.chance(0.8) ? upgrade : "POST /v1/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
  );
  socket.write(mutateBytes(bytes, bytes, lots));
  counts.broken += 1;
  await Promise.race([new Promise((resolve) => socket.once("close", resolve)), sleep(50)]);
  socket.destroy();
}

/** The first bytes of a TLS 1.3 ClientHello, broken, or none of it. */
async function brokenTls({ lots, counts, address, newAddress }: Run): Promise<void> {
  const { hostname, port } = new URL(address.url);
  const socket = connectPlain({ host: hostname, port: Number(port), localAddress: newAddress() });
  socket.on("error", () => {});
  const start = Buffer.concat([Buffer.from("160301006f0100006b0303", "hex"), lots.bytes(108)]);
  socket.write(lots.chance(0.8) ? mutateBytes(start, start, lots) : lots.bytes(200));
  counts.broken += 1;
  await Promise.race([new Promise((resolve) => socket.once("close", resolve)), sleep(50)]);
  socket.destroy();
}
