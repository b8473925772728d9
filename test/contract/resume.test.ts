// What a session goes on from: the numbers of all that the one before handed over, however short ago.
import { expect, test } from "vitest";
import { testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";
import { encodeReadings } from "../support/readings.ts";

test("an agent that comes back at once does not take numbers of samples again that the controller still writes", async () => {
  await using controller = await testController();
  const key = newLinkKey();
  const first = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  const series = [{ name: "one", labels: {}, type: "gauge" as const, scale: 1 }];
  first.client.send({ t: "dictionary", id: 1, series });
  for (const seq of [1, 2, 3])
    first.client.send({
      ...{ t: "batch", seq, dictionary: 1, at: 0, intervalMs: 1000, key: true },
      data: encodeReadings([BigInt(seq)]),
    });
  // Answered when all before it were taken.
  first.client.send({
    ...{ t: "heartbeat", at: 0, operations: [] },
    outbox: { records: 0, recordBytes: 0, sampleBytes: 0 },
  });
  await first.client.next("heartbeat");
  const second = await joinLink(controller, { key });
  expect(await first.client.closed).toMatchObject({ code: 4002 });
  expect(second.welcome.samples).toBe(3);
  second.client[Symbol.dispose]();
});
