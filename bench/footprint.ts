// What a host and a controller pay for being there: memory and processor time of an agent that only streams telemetry,
// the time from its start to its connection, and the controller's memory for each agent that is connected and idle.
import { createPrivateKey, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { type ApiClient, openApi } from "../cli/api-client.ts";
import { parseClientFile } from "../cli/connection.ts";
import { openPrivateHost } from "../cli/demo/private-host.ts";
import { decodeFrame, encodeFrame } from "../protocol/frames.ts";
import { linkProofBytes } from "../protocol/link-proof.ts";
import { type ControllerMessage, exporter, subprotocol, tlsServerName } from "../protocol/messages.ts";
import { type Bench, figuresOf, median } from "./harness.ts";
import {
  builtProgram,
  eventually,
  memoryOf,
  node,
  type Program,
  processorSecondsOf,
  startProgram,
} from "./processes.ts";

const settleSeconds = 12;
const watchedSeconds = 22;
const starts = 5;
const idleAgents = 300;
const startMs = 30_000;
const kib = 1024;

interface Figures {
  readonly residentMib: number;
  readonly anonymousMib: number;
  readonly processorPercent: number;
  readonly connectedMs: number;
  readonly idleAgentKib: number;
  /** Beyond what a server of the WebSocket library takes that does nothing. */
  readonly overBareKib: number;
}

export const footprint: Bench = {
  name: "footprint",
  title: `The built program at rest: an agent with telemetry at 1 Hz over ${watchedSeconds} s, a controller with ${idleAgents} agents`,
  async prepare() {
    await using stack = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), "bedplate-bench-"));
    stack.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
    const kept = stack.move();
    let measured = 0;
    const figure = figuresOf<keyof Figures>(() => measure(join(directory, `${measured++}`)));
    return {
      rounds: 0,
      sliceSeconds: 0,
      candidates: {},
      rows: [
        {
          name: "agent's resident memory, most (aim 84)",
          unit: "MiB",
          measure: () => figure("residentMib"),
          // Half of it are pages of node's own file: how many around a touched one are mapped is the kernel's choice.
          most: 92,
        },
        {
          name: "of it anonymous, most (aim 36)",
          unit: "MiB",
          measure: () => figure("anonymousMib"),
          most: 37,
        },
        {
          name: "agent's processor time (aim 0.3)",
          unit: "%",
          measure: () => figure("processorPercent"),
          // Where others use the processor's caches meanwhile, the same work takes twice as long.
          most: 1,
        },
        {
          name: "agent from its start to connected, median (aim 400)",
          unit: "ms",
          measure: () => figure("connectedMs"),
          most: 1200,
        },
        {
          // The aim was set by Node 20, whose bare server took 29: Node 24 and its OpenSSL take twice that.
          name: "controller's resident memory for an idle agent (aim 40)",
          unit: "KiB",
          measure: () => figure("idleAgentKib"),
          most: 88,
        },
        {
          name: "more than a bare server of ws on TLS takes",
          unit: "KiB",
          measure: () => figure("overBareKib"),
          most: 40,
        },
      ],
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  },
};

async function measure(directory: string): Promise<Figures> {
  await mkdir(directory, { mode: 0o711 });
  await using stack = new AsyncDisposableStack();
  const controller = await startController(join(directory, "controller"));
  stack.use(controller);
  const agent = await prepareAgent(directory, controller);
  stack.use(agent);
  const times: number[] = [];
  // The first start joins, and fills the cache of compiled code as the first start on a host does.
  for (let k = 0; k <= starts; k++) {
    const connectedMs = await agent.start();
    if (k > 0) times.push(connectedMs);
    if (k < starts) await agent.stop();
  }
  // The agent rests on a controller that rests; meanwhile another one takes a crowd.
  const [atRest, { idleAgentKib, bareKib }] = await Promise.all([
    watch(agent.pid()),
    crowd(join(directory, "crowd")),
  ]);
  return { ...atRest, connectedMs: median(times), idleAgentKib, overBareKib: idleAgentKib - bareKib };
}

async function watch(
  pid: number,
): Promise<Pick<Figures, "residentMib" | "anonymousMib" | "processorPercent">> {
  await sleep(settleSeconds * 1000);
  const started = performance.now();
  const before = processorSecondsOf(pid);
  let [resident, anonymous] = [0, 0];
  while (performance.now() - started < watchedSeconds * 1000) {
    const { residentKib, anonymousKib } = memoryOf(pid);
    resident = Math.max(resident, residentKib);
    anonymous = Math.max(anonymous, anonymousKib);
    await sleep(500);
  }
  const seconds = (performance.now() - started) / 1000;
  return {
    residentMib: resident / kib,
    anonymousMib: anonymous / kib,
    processorPercent: (100 * (processorSecondsOf(pid) - before)) / seconds,
  };
}

/** How the program is started on a real machine. */
async function serviceOf(unit: string) {
  const text = await readFile(new URL(`../packaging/${unit}`, import.meta.url), "utf8");
  const command = /^ExecStart=\S+\/node (.*?)\S+\/bedplate\.js /m.exec(text)![1]!;
  const settings = [...text.matchAll(/^Environment=(.*)$/gm)].flatMap((match) => match[1]!.split(" "));
  return {
    nodeOptions: command.split(" ").filter((word) => word !== ""),
    environment: Object.fromEntries(settings.map((setting) => setting.split("=") as [string, string])),
  };
}

interface BuiltController extends AsyncDisposable {
  readonly pid: number;
  readonly url: string;
  readonly ca: string;
  readonly api: ApiClient;
}

async function startController(stateDirectory: string): Promise<BuiltController> {
  const service = await serviceOf("bedplate-controller.service");
  const program = startProgram({
    argv: [
      node,
      ...service.nodeOptions,
      builtProgram,
      "controller",
      "--listen",
      "127.0.0.1:0",
      "--state-directory",
      stateDirectory,
    ],
    logFile: `${stateDirectory}.log`,
    environment: service.environment,
  });
  const clientFile = join(stateDirectory, "client.json");
  const connection = await eventually(
    startMs,
    async () => {
      if (!program.alive) throw new Error(`the controller ended: ${program.log().slice(-500)}`);
      if (!program.log().includes("the controller listens")) return undefined;
      return parseClientFile(await readFile(clientFile, "utf8"), clientFile);
    },
    () => program.log().slice(-500),
  );
  const stopped = new AbortController();
  const api = openApi(connection, stopped.signal);
  return {
    pid: program.pid,
    url: connection.url.origin,
    ca: connection.ca,
    api,
    async [Symbol.asyncDispose]() {
      stopped.abort();
      api[Symbol.dispose]();
      await program[Symbol.asyncDispose]();
    },
  };
}

interface MeasuredAgent extends AsyncDisposable {
  /** Milliseconds from the start of the program to its connection. */
  start(): Promise<number>;
  stop(): Promise<void>;
  pid(): number;
}

async function prepareAgent(directory: string, controller: BuiltController): Promise<MeasuredAgent> {
  const service = await serviceOf("bedplate-agent.service");
  const home = join(directory, "host");
  const paths = {
    etc: join(home, "etc"),
    var: join(home, "var"),
    run: join(home, "run"),
    agent: join(home, "agent"),
  };
  for (const path of Object.values(paths)) await mkdir(path, { recursive: true, mode: 0o700 });
  await mkdir(join(paths.var, "executor"), { mode: 0o700 });
  const { token } = await controller.api.createJoinToken({ uses: 1 });
  const config = join(home, "agent.toml");
  await writeFile(
    config,
    `controller = "${controller.url}"
name = "measured"
joinToken = "${token}"
stateDirectory = "${paths.agent}"
[metrics]
listen = "off"
[executor]
policy = "${paths.etc}/policy.toml"
stateDirectory = "${paths.var}/executor"
runDirectory = "${paths.run}"
`,
    { mode: 0o600 },
  );
  // As root its executor's paths are fixed: the machine's own are not to be touched.
  const host =
    process.geteuid?.() === 0
      ? await openPrivateHost([
          { source: paths.etc, target: "/etc/bedplate" },
          { source: paths.var, target: "/var/lib/bedplate" },
          { source: paths.run, target: "/run/bedplate" },
        ])
      : undefined;
  if (typeof host === "string") throw new Error(host);
  const logFile = join(home, "agent.log");
  // The clock starts when node does, not when its mounts are made.
  const begun = ["sh", "-c", 'date +"begun %s%3N"; exec "$@"', "sh"];
  let program: Program | undefined;
  return {
    pid: () => program!.pid,
    async start() {
      await rm(logFile, { force: true });
      const argv: [string, ...string[]] = [
        begun[0]!,
        ...begun.slice(1),
        node,
        ...service.nodeOptions,
        builtProgram,
        "agent",
        "--config",
        config,
      ];
      program = startProgram({
        argv: host?.wrap(argv) ?? argv,
        logFile,
        environment: { ...service.environment, CACHE_DIRECTORY: home, TMPDIR: home },
      });
      const log = await eventually(startMs, () => {
        const text = program!.log();
        return text.includes("connected to the controller") ? text : undefined;
      });
      const connectedAt = /"time":(\d+)[^\n]*"msg":"connected to the controller"/.exec(log)![1];
      return Number(connectedAt) - Number(/^begun (\d+)$/m.exec(log)![1]);
    },
    async stop() {
      await program?.[Symbol.asyncDispose]();
    },
    async [Symbol.asyncDispose]() {
      await program?.[Symbol.asyncDispose]();
      await host?.[Symbol.asyncDispose]();
    },
  };
}

/** KiB for each of many agents that are connected and only say that they live; and of as many on a bare server. */
async function crowd(stateDirectory: string): Promise<{ idleAgentKib: number; bareKib: number }> {
  await using controller = await startController(stateDirectory);
  const { token } = await controller.api.createJoinToken({ uses: idleAgents });
  const agents = Array.from({ length: idleAgents }, (_, k) => newAgent(k));
  // All join and go: what a known host costs on disk and in caches is not what a connection costs.
  for (const agent of agents) (await connect(controller, agent, token)).terminate();
  const idleAgentKib = await grown(controller.pid, agents, (agent) => connect(controller, agent));
  const { environment } = await serviceOf("bedplate-controller.service");
  await using bare = startProgram({
    argv: [node, fileURLToPath(new URL("./bare-server.ts", import.meta.url)), stateDirectory],
    logFile: `${stateDirectory}-bare.log`,
    environment,
  });
  const port = await eventually(startMs, () => /^listening (\d+)$/m.exec(bare.log())?.[1]);
  const server = { url: `https://127.0.0.1:${port}`, ca: controller.ca };
  // As the other one, it has served all of them once.
  for (const agent of agents) (await open(server, agent)).terminate();
  const bareKib = await grown(bare.pid, agents, async (agent) => {
    const socket = await open(server, agent);
    socket.send(new Uint8Array(300));
    return socket;
  });
  return { idleAgentKib, bareKib };
}

async function grown(
  pid: number,
  agents: readonly CrowdAgent[],
  join: (agent: CrowdAgent) => Promise<WebSocket>,
): Promise<number> {
  await sleep(2000);
  const before = memoryOf(pid).residentKib;
  const sockets: WebSocket[] = [];
  try {
    for (const agent of agents) sockets.push(await join(agent));
    await sleep(4000);
    if (sockets.some(({ readyState }) => readyState !== WebSocket.OPEN))
      throw new Error("an idle agent was dropped");
    return (memoryOf(pid).residentKib - before) / agents.length;
  } finally {
    for (const socket of sockets) socket.terminate();
  }
}

interface CrowdAgent {
  readonly name: string;
  /** Each from an address of its own: one address may not bring hundreds at once. */
  readonly localAddress: string;
  readonly linkKey: Uint8Array;
  sign(data: Uint8Array): Uint8Array;
}

function newAgent(k: number): CrowdAgent {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const key = createPrivateKey(privateKey.export({ type: "pkcs8", format: "pem" }));
  return {
    name: `idle-${k}`,
    localAddress: `127.0.${1 + (k >> 6)}.${1 + (k & 63)}`,
    linkKey: Uint8Array.from(publicKey.export({ type: "spki", format: "der" }).subarray(-32)),
    sign: (data) => Uint8Array.from(sign(null, data, key)),
  };
}

interface Server {
  readonly url: string;
  readonly ca: string;
}

async function open(server: Server, { localAddress }: CrowdAgent): Promise<WebSocket> {
  const tls: ConnectionOptions & { localAddress: string } = {
    ...{ ca: server.ca, servername: tlsServerName, minVersion: "TLSv1.3" },
    localAddress,
  };
  const socket = new WebSocket(`${server.url.replace(/^https/, "wss")}/v1/link`, [subprotocol], {
    ...(tls as object),
    perMessageDeflate: false,
  });
  await new Promise<void>((resolve, reject) => {
    socket.once("open", resolve);
    socket.once("error", reject);
  });
  return socket;
}

/** Through the handshake, and then a heartbeat when it is due. */
async function connect(server: Server, agent: CrowdAgent, joinToken?: string): Promise<WebSocket> {
  const socket = await open(server, agent);
  const waiting: ControllerMessage[] = [];
  let wake = () => {};
  socket.on("message", (data) => {
    waiting.push(decodeFrame(Uint8Array.from(data as Buffer)) as ControllerMessage);
    wake();
  });
  const failed = new Promise<never>((_, reject) => {
    socket.on("error", reject);
    socket.on("close", (code, reason) => reject(new Error(`closed with ${code} ${reason.toString()}`)));
  });
  failed.catch(() => {});
  const next = async () => {
    while (waiting.length === 0)
      await Promise.race([failed, new Promise<void>((resolve) => (wake = resolve))]);
    return waiting.shift()!;
  };
  const nonce = Uint8Array.from(randomBytes(32));
  const hello = encodeFrame({
    ...{ t: "hello", versions: { min: 1, max: 1 }, agentVersion: "0", linkKey: agent.linkKey, nonce },
    ...{ instance: agent.name, bootId: "boot", hostname: agent.name },
  });
  socket.send(hello);
  const challenge = await next();
  if (challenge.t !== "challenge") throw new Error(`"${challenge.t}" where a challenge was due`);
  const { _socket } = socket as unknown as { _socket: TLSSocket };
  const exported = _socket.exportKeyingMaterial(exporter.bytes, exporter.label, Buffer.alloc(0));
  const proof = await linkProofBytes({
    ...{ agentNonce: nonce, controllerNonce: challenge.nonce, exported: Uint8Array.from(exported), hello },
  });
  const signature = agent.sign(proof);
  socket.send(
    encodeFrame({
      t: "auth",
      signature,
      name: agent.name,
      ...(joinToken === undefined ? {} : { joinToken }),
    }),
  );
  const welcome = await next();
  if (welcome.t !== "welcome") throw new Error(`"${welcome.t}" where a welcome was due`);
  const outbox = { records: 0, recordBytes: 0, sampleBytes: 0 };
  const beat = encodeFrame({ t: "heartbeat", at: Date.now(), operations: [], outbox });
  const beating = setInterval(() => socket.send(beat), welcome.heartbeatMs);
  socket.on("close", () => clearInterval(beating));
  return socket;
}
