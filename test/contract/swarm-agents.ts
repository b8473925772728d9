// A process of many agents: the agent's own link, outbox, sample queue and operations, each on its own directory and
// connection; only telemetry is made up. Prints a line of JSON for each thing that happens.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../agent/host/clock.ts";
import { systemRandom } from "../../agent/host/random.ts";
import { openStateDirectory } from "../../agent/host/state-directory.ts";
import { openPins } from "../../agent/link/authority.ts";
import { createBell } from "../../agent/link/bell.ts";
import { openKeys } from "../../agent/link/keys.ts";
import { runLink } from "../../agent/link/link.ts";
import { openOutbox } from "../../agent/link/outbox.ts";
import { createSampleQueue } from "../../agent/link/sample-queue.ts";
import { createOperations } from "../../agent/operations/operations.ts";
import { limits } from "../../protocol/limits.ts";
import { encodeReadings } from "../support/readings.ts";

export interface SwarmOptions {
  readonly controller: string;
  readonly joinToken: string;
  readonly directory: string;
  readonly agents: number;
  readonly sampleMs: number;
}

/** One series: the number of the sample. */
const series = [{ name: "swarm_samples", labels: {}, type: "counter" as const, scale: 1 }];
const keyEvery = 10;
const options = JSON.parse(process.argv[2]!) as SwarmOptions;
const stopping = new AbortController();
process.on("SIGTERM", () => stopping.abort());

const say = (facts: object) => process.stdout.write(`${JSON.stringify({ ...facts, at: Date.now() })}\n`);
await Promise.all(Array.from({ length: options.agents }, (_, k) => runAgent(k, stopping.signal)));
process.exit(0);

async function runAgent(agent: number, signal: AbortSignal): Promise<void> {
  const state = openStateDirectory(join(options.directory, `agent-${agent}`));
  const keys = await openKeys(state);
  const pins = openPins(state);
  const bell = createBell();
  const samples = createSampleQueue(limits.outboxSampleBytesMax);
  const log = {
    debug() {},
    info() {},
    warn: (facts: { code?: unknown }, message: string) => say({ agent, warning: message, code: facts.code }),
    error: (facts: object, message: string) => say({ agent, error: message, facts: String(facts) }),
  };
  using outbox = openOutbox(state.file("agent.db"), {
    onDurable: () => bell.ring(),
    onAcknowledged: () => operations.acknowledged(),
  });
  const tellingGaps: typeof outbox = new Proxy(outbox, {
    get(target, name) {
      if (name !== "append") return Reflect.get(target, name);
      return (body: Parameters<typeof outbox.append>[0], at: number) => {
        if (body.type === "gap") say({ agent, gap: { from: body.from, to: body.to } });
        target.append(body, at);
      };
    },
  });
  const operations = createOperations({
    outbox,
    executors: {
      start: async () => Promise.reject(new Error("no executor here")),
      attach: async () => undefined,
    },
    hostId: keys.hostId,
    authority: () => pins.pem ?? "",
    runHere: async ({ id }) => {
      say({ agent, ran: id });
      return { at: Date.now(), uptimeSeconds: 1, eventLoopDelayP99Ms: 0, residentBytes: 1 };
    },
    ...{ clock: systemClock, log, onChange: () => bell.ring() },
  });
  let needsKey = true;
  const link = runLink(
    {
      controller: new URL(options.controller),
      ...{
        joinToken: options.joinToken,
        name: `swarm-${agent}`,
        hostname: `swarm-${agent}`,
        bootId: "a-boot",
      },
      ...{ keys, pins, state, random: systemRandom, identity: { welcomed() {} } },
      parts: {
        ...{ outbox: tellingGaps, samples, bell, clock: systemClock, log, intervalMs: options.sampleMs },
        dictionary: (id) => ({ t: "dictionary", id, series }),
        takeProgress: () => operations.takeProgress(),
        operations: () => operations.list(),
        offered: (offer) => operations.offered(offer),
        cancel: (command) => operations.cancel(command),
        pause: (command, paused) => operations.pause(command, paused),
        countersigned: async () => {},
      },
      onState: ({ connected }) => {
        say({ agent, connected });
        needsKey ||= !connected;
        operations.link(connected ? "up" : "down");
      },
    },
    signal,
  );
  const sample = async () => {
    let [count, before] = [0n, 0n];
    // Not all in the same moment.
    await sleep(Math.random() * options.sampleMs, undefined, { signal }).catch(() => {});
    while (!signal.aborted) {
      const key = needsKey || count % BigInt(keyEvery) === 0n;
      needsKey = false;
      count += 1n;
      samples.add({ at: Date.now(), key, dictionary: 1, data: encodeReadings([count], [key ? 0n : before]) });
      before = count;
      bell.ring();
      await sleep(options.sampleMs, undefined, { signal }).catch(() => {});
    }
    say({ agent, sampled: Number(count) });
  };
  await Promise.all([link, sample(), operations.run(signal)]);
}
