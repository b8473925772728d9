// Many agents on real sockets: back within the window after their controller's end, after a dead wire, and nothing of
// theirs is lost, repeated or missing without a mark.
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { returnWindowMsFor } from "../../controller/link/scale.ts";
import { isTerminal } from "../../protocol/commands.ts";
import { type ControllerProcess, startControllerProcess } from "../contract/controller-process.ts";
import { eventually, openDirectory } from "../contract/programs.ts";
import { openProxy } from "../contract/swallowing-proxy.ts";
import { type Said, type Swarm, startSwarm, storedSamples } from "../contract/swarm.ts";

const agents = 200;

/** Until all are connected for the first time. @returns for how long this machine is at it as busy as it is now */
async function firstConnected(swarm: Swarm, count: number): Promise<number> {
  const began = performance.now();
  await eventually(
    180_000,
    () => swarm.connected() === count,
    () => `${swarm.connected()} of ${count} connected: ${swarm.program.log().slice(-1000)}`,
  );
  return performance.now() - began;
}

/** Beside the window: as long as their first handshakes took, twice, and one more attempt by whoever came too early. */
const slackMs = (firstMs: number) => Math.max(10_000, 2 * firstMs + 5000);

/** Pings hosts one after the other until disposed; what the API would not take while nobody was there is not counted. */
function pingAll(controller: ControllerProcess, hosts: readonly string[]) {
  const submitted: string[] = [];
  const stop = new AbortController();
  const task = (async () => {
    for (let k = 0; !stop.signal.aborted; k++) {
      const host = hosts[k % hosts.length]!;
      const view = await controller
        .submit({ host, kind: "agent.ping", mode: "apply", arguments: {} })
        .catch(() => undefined);
      if (view !== undefined) submitted.push(view.id);
      await sleep(20);
    }
  })();
  return {
    submitted,
    async stop() {
      stop.abort();
      await task;
    },
  };
}

/** When each agent was connected again for the first time after `since`; those missing are told. */
function returnsAfter(said: readonly Said[], since: number): number[] {
  const first = new Map<number, number>();
  for (const { agent, connected, at } of said)
    if (connected === true && at > since && !first.has(agent)) first.set(agent, at - since);
  return [...first.values()];
}

async function allBack(swarm: Swarm, count: number, since: number, withinMs: number): Promise<number> {
  // Too late, all the same it is told by how much.
  await eventually(
    withinMs + 120_000,
    () => returnsAfter(swarm.said(), since).length === count,
    () => `${returnsAfter(swarm.said(), since).length} of ${count} are back`,
  );
  return Math.max(...returnsAfter(swarm.said(), since));
}

test.concurrent("two hundred agents are back within the window after their controller's end, with nothing lost unmarked", async () => {
  await using directory = await openDirectory("fleet");
  await using controller = await startControllerProcess(directory.path, { logLevel: "warn" });
  await using swarm = await startSwarm(
    { controller: controller.url, joinToken: await controller.joinToken(agents), agents, sampleMs: 1000 },
    `${directory.path}/swarm.log`,
  );
  const slack = slackMs(await firstConnected(swarm, agents));
  const hosts = (await controller.api.hosts()).map(({ id }) => id);
  const pinging = pingAll(controller, hosts);
  await sleep(2000);

  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const since = Date.now();
    await controller.kill(signal);
    await controller.start();
    const windowMs = returnWindowMsFor(agents);
    const lastMs = await allBack(swarm, agents, since, windowMs + slack);
    console.log(
      `after ${signal} all ${agents} are back in ${lastMs} ms; the window is ${windowMs} ms and ${Math.round(slack)}`,
    );
    expect(lastMs).toBeLessThan(windowMs + slack);
    await sleep(1500);
  }

  await pinging.stop();
  expect(pinging.submitted.length).toBeGreaterThan(20);
  const open = async () => {
    const views = await Promise.all(pinging.submitted.map((id) => controller.api.command(id)));
    return views.filter(({ state }) => !isTerminal(state)).length;
  };
  await eventually(180_000, async () => (await open()) === 0);
  const outcomes = await Promise.all(
    pinging.submitted.map(async (id) => (await controller.api.command(id)).state),
  );
  expect(new Set(outcomes)).toEqual(new Set(["succeeded"]));
  // Each once; a killed controller may have taken one more without having said so.
  const ran = swarm.said().flatMap(({ ran }) => ran ?? []);
  expect(new Set(ran).size).toBe(ran.length);
  expect(pinging.submitted.filter((id) => !ran.includes(id))).toEqual([]);

  // Each gap that an agent told has come.
  await eventually(
    60_000,
    async () => {
      const hosts = await controller.api.hosts();
      const told = Map.groupBy(
        swarm.said().filter(({ gap }) => gap !== undefined),
        ({ agent }) => `swarm-${agent}`,
      );
      return hosts.every(({ name, telemetry }) => telemetry.gaps === (told.get(name)?.length ?? 0));
    },
    () => "the controller knows of other gaps than were told",
  );
  await swarm.program[Symbol.asyncDispose]();
  await controller.kill("SIGTERM");
  expect(swarm.said().flatMap(({ error }) => error ?? [])).toEqual([]);
  expect(unmarked(storedSamples(controller.stateDirectory), swarm.said())).toEqual([]);
});

/** What is wrong with the stored samples: numbers that come twice or backwards, or are missing without a gap record. */
function unmarked(stored: ReturnType<typeof storedSamples>, said: readonly Said[]): string[] {
  const wrong: string[] = [];
  for (let agent = 0; agent < agents; agent++) {
    const name = `swarm-${agent}`;
    const samples = stored.get(name) ?? [];
    const gaps = said.flatMap((each) => (each.agent === agent && each.gap !== undefined ? [each.gap] : []));
    if (samples.length < 5) wrong.push(`${name} has only ${samples.length} samples`);
    for (const [k, { seq, value }] of samples.entries()) {
      const before = k === 0 ? { seq: 0, value: 0 } : samples[k - 1]!;
      if (seq <= before.seq) wrong.push(`${name}: ${seq} after ${before.seq}`);
      for (let missing = before.seq + 1; missing < seq; missing++)
        if (!gaps.some(({ from, to }) => from <= missing && missing <= to))
          wrong.push(`${name}: ${missing} is missing`);
      if (value === undefined) wrong.push(`${name}: ${seq} cannot be read`);
      else if (seq === before.seq + 1 && value !== before.value! + 1)
        wrong.push(`${name}: ${value} after ${before.value} at ${seq}`);
    }
  }
  return wrong.slice(0, 20);
}

describe.concurrent("a rack whose wire goes dead", () => {
  const rack = 40;
  const heartbeatMs = 1000;

  test.each([
    ["both ways", "swallows all", "passes"],
    ["on the way back", "swallows what comes back", "passes"],
    ["both ways, and for a while new connections too", "swallows all", "swallows what comes back"],
  ] as const)("%s comes back whole, and nobody is taken for a copy", async (_how, wire, newOnes) => {
    await using directory = await openDirectory("rack");
    await using controller = await startControllerProcess(directory.path, {
      logLevel: "info",
      heartbeatSeconds: 1,
    });
    await using proxy = await openProxy(controller.port);
    await using swarm = await startSwarm(
      { controller: proxy.url, joinToken: await controller.joinToken(rack), agents: rack, sampleMs: 1000 },
      `${directory.path}/swarm.log`,
    );
    const slack = slackMs(await firstConnected(swarm, rack));
    await sleep(2000);
    const since = Date.now();
    proxy.set(wire, { newOnes });
    if (newOnes !== "passes") {
      // Long enough that all have begun a connection that goes nowhere.
      await sleep(4000);
      proxy.set(wire, { newOnes: "passes" });
    }
    // Silence is noticed after 2.5 heartbeats, a handshake that goes nowhere after 15 s.
    const patienceMs = 2.5 * heartbeatMs + (newOnes === "passes" ? 0 : 4000 + 15_000);
    const lastMs = await allBack(swarm, rack, since, patienceMs + slack);
    console.log(`the rack is back in ${lastMs} ms; ${patienceMs} ms and ${Math.round(slack)} are allowed`);
    expect(lastMs).toBeLessThan(patienceMs + slack);
    let hosts = await controller.api.hosts();
    await eventually(
      60_000,
      async () => {
        hosts = await controller.api.hosts();
        return hosts.every(({ standing, connection }) => standing === "approved" && connection === "online");
      },
      () => JSON.stringify(hosts.map(({ standing, connection }) => `${standing} ${connection}`)),
    );
    expect(controller.program.log()).not.toMatch(/quarantine|a copy/i);
    // Each of them works.
    const pings = await Promise.all(
      hosts.map(({ id }) =>
        controller.submit({ host: id, kind: "agent.ping", mode: "apply", arguments: {} }),
      ),
    );
    await eventually(60_000, async () => {
      const views = await Promise.all(pings.map(({ id }) => controller.api.command(id)));
      return views.every(({ state }) => state === "succeeded");
    });
  });
});
