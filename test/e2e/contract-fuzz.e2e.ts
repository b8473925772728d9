// Mutated frames at both ends under a budget of seconds: no crash, no fault, no growth, the documented close codes.
import { statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openTestHost } from "../contract/agent-process.ts";
import { type ControllerProcess, startControllerProcess } from "../contract/controller-process.ts";
import { fuzzAgent } from "../contract/fuzz-agent.ts";
import { fuzzController } from "../contract/fuzz-controller.ts";
import { type Directory, memoryOf, openDirectory } from "../contract/programs.ts";
import { openRefusingExecutor } from "../contract/refusing-executor.ts";
import { budgetSeconds, seed, timeoutMs } from "../support/budget.ts";
import { openHostileController, welcomeOf } from "../support/hostile-controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

/** V8 takes what it is given before it collects: with so little, what really grows ends the process. */
const smallHeap = ["--max-old-space-size=96", "--max-semi-space-size=4"];
const residentKibMax = 224 * 1024;
const stateBytesMax = 64 << 20;
/** Whatever the budget: fewer would show nothing. */
const enough = ({ frames, taken, refused }: { frames: number; taken: number; refused: number }) =>
  frames > 100 && taken > 10 && refused > 10;
const hastyWaits = fileURLToPath(new URL("../contract/hasty-waits.mjs", import.meta.url));

let directory: Directory;
let controller: ControllerProcess;
beforeAll(async () => {
  directory = await openDirectory("fuzz");
  controller = await startControllerProcess(directory.path, {
    ...{ logLevel: "warn", nodeOptions: smallHeap },
    // A session is silent while its commands are asked for.
    heartbeatSeconds: 30,
  });
});
afterAll(async () => {
  await controller?.[Symbol.asyncDispose]();
  await directory?.[Symbol.asyncDispose]();
});

/** The most memory that a process had since. */
function watchMemory(pid: number) {
  let mostKib = 0;
  const timer = setInterval(() => {
    mostKib = Math.max(mostKib, memoryOf(pid).residentKib);
  }, 100);
  return { [Symbol.dispose]: () => clearInterval(timer), mostKib: () => mostKib };
}

test("the controller bears mutated frames", { timeout: timeoutMs }, async () => {
  const seconds = budgetSeconds / 2;
  using memory = watchMemory(controller.program.pid);
  const counts = await fuzzController({
    address: controller,
    ...{ seconds, enough, seed },
    joinToken: await controller.joinToken(100),
    command: async (host) => {
      // Refused when a thousand of them are open, as they should be: most of them never end.
      await controller
        .submit({ host, kind: "agent.ping", mode: "apply", arguments: {} })
        .catch(() => undefined);
      return (await controller.api.commands({ host, limit: 5 })).map(({ id }) => id);
    },
  });
  console.log(
    `BEDPLATE_SEED=${seed}\ncontroller: ${JSON.stringify(counts)}, at most ${memory.mostKib()} KiB`,
  );
  expect(controller.program.alive).toBe(true);
  expect(memory.mostKib()).toBeLessThan(residentKibMax);
  const faults = controller.program
    .log()
    .split("\n")
    .filter((line) => line !== "" && !/"level":[34]0/.test(line));
  expect(faults).toEqual([]);

  // What was stored of it can be read, and an honest agent is served.
  for (const host of await controller.api.hosts()) {
    await controller.api.telemetry(host.id);
    for (const { id } of await controller.api.commands({ host: host.id, limit: 500 }))
      await controller.api.command(id);
  }
  const honest = await joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
  expect(honest.welcome.records).toBe(0);
  honest.client[Symbol.dispose]();
});

test("the agent bears a hostile controller", { timeout: timeoutMs }, async ({ skip }) => {
  const seconds = budgetSeconds / 2;
  await using hostile = await openHostileController();
  const host = await openTestHost({
    ...{ directory: directory.path, name: "fuzzed", controller: hostile.url, joinToken: hostile.joinToken },
    ...{ telemetryMs: 100, logLevel: "warn" },
  });
  if (typeof host === "string") return skip(host);
  await using _host = host;
  await using executor = await openRefusingExecutor(host.directories.runDirectory, seed);
  const agent = host.start({ nodeOptions: [...smallHeap, "--import", hastyWaits] });
  using memory = watchMemory(agent.pid);
  const counts = await fuzzAgent({ controller: hostile, seconds, enough, seed });
  console.log(
    `agent: ${JSON.stringify(counts)}, ${executor.requests} executors, at most ${memory.mostKib()} KiB`,
  );
  expect(agent.alive, agent.log().slice(-2000)).toBe(true);
  expect(memory.mostKib()).toBeLessThan(residentKibMax);
  for (const name of ["agent.db", "agent.db-wal"])
    expect(statSync(join(host.directories.agentState, name)).size, name).toBeLessThan(stateBytesMax);

  // An honest controller finds it as it was.
  const greeted = Promise.withResolvers<string>();
  hostile.serve(async (peer) => {
    const id = await peer.prove();
    peer.send(welcomeOf(id!));
    await peer.next("heartbeat");
    greeted.resolve(id!);
  });
  expect(await greeted.promise).toMatch(/^[0-9a-f]{64}$/);
});
