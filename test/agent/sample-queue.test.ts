import fc from "fast-check";
import { expect, test } from "vitest";
import { createSampleQueue, type NumberedBatch } from "../../agent/link/sample-queue.ts";

const batch = (at: number, key: boolean, bytes = 10) => ({
  at,
  key,
  dictionary: 1,
  data: new Uint8Array(bytes),
});
const all = (take: () => NumberedBatch | undefined) => {
  const taken: NumberedBatch[] = [];
  for (let next = take(); next !== undefined; next = take()) taken.push(next);
  return taken;
};

test("batches are numbered, stay until acknowledged, and are taken once", () => {
  const queue = createSampleQueue(1 << 20);
  queue.resume(0);
  for (let i = 0; i < 5; i++) queue.add(batch(i, i === 0));
  expect(all(() => queue.take()).map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5]);
  expect(queue.take()).toBeUndefined();
  queue.acknowledge(3);
  queue.add(batch(5, false));
  expect(all(() => queue.take()).map(({ seq }) => seq)).toEqual([6]);
});

test("one large batch in place of several small ones keeps the bound", () => {
  const queue = createSampleQueue(2000);
  queue.resume(0);
  for (let i = 0; i < 10; i++) queue.add(batch(i, true, 50));
  queue.add(batch(10, true, 1500));
  expect(queue.bytes).toBeLessThanOrEqual(2000);
  queue.add(batch(11, true, 5000));
  expect([queue.bytes, queue.take()]).toEqual([0, undefined]);
  expect(queue.takeGaps()).toEqual([{ from: 1, to: 12, count: 12 }]);
});

test("what is dropped on its way is in a gap only when it did not arrive", () => {
  const queue = createSampleQueue(600);
  queue.resume(0);
  for (let i = 1; i <= 4; i++) queue.add(batch(i, true, 20));
  queue.take();
  queue.take();
  queue.add(batch(5, true, 300));
  expect(queue.takeGaps()).toEqual([{ from: 3, to: 3, count: 1 }]);
  queue.acknowledge(1);
  expect(queue.takeGaps()).toEqual([]);
  queue.resume(1);
  expect(queue.takeGaps()).toEqual([{ from: 2, to: 2, count: 1 }]);
  expect(all(() => queue.take()).map(({ seq }) => seq)).toEqual([4, 5]);
});

test("a new session sends again what the controller lacks, from a key frame on, and tells of the rest", () => {
  const queue = createSampleQueue(1 << 20);
  queue.resume(0);
  [true, false, false, true, false].forEach((key, i) => {
    queue.add(batch(i, key));
  });
  all(() => queue.take());
  queue.resume(1);
  expect(queue.takeGaps()).toEqual([{ from: 2, to: 3, count: 2 }]);
  expect(all(() => queue.take()).map(({ seq, key }) => [seq, key])).toEqual([
    [4, true],
    [5, false],
  ]);
});

test("after a restart the numbers go on from what the controller has", () => {
  const queue = createSampleQueue(1 << 20);
  queue.add(batch(0, true));
  queue.add(batch(1, false));
  queue.resume(1000);
  expect(all(() => queue.take()).map(({ seq }) => seq)).toEqual([1001, 1002]);
});

test("a full queue drops its oldest stretch whole and counts it once", () => {
  const queue = createSampleQueue(10 * (128 + 10));
  for (let i = 0; i < 25; i++) queue.add(batch(i, i % 5 === 0));
  const gaps = queue.takeGaps();
  expect(gaps).toEqual([{ from: 1, to: 15, count: 15 }]);
  queue.resume(0);
  expect(all(() => queue.take()).map(({ seq }) => seq)).toEqual([16, 17, 18, 19, 20, 21, 22, 23, 24, 25]);
});

test("whatever happens, each batch is either delivered decodable and in order, or told as a gap, and bytes stay bounded", () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant("add" as const), key: fc.boolean() }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("take" as const), arrives: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("reconnect" as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("ack" as const) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const bytesMax = 8 * 138;
      const queue = createSampleQueue(bytesMax);
      let added = 0;
      let stored = 0;
      let connected = false;
      let sessionSaw: number | undefined;
      const delivered = new Set<number>();
      const told = new Set<number>();
      const collect = () => {
        for (const gap of queue.takeGaps()) {
          expect(gap.count).toBe(gap.to - gap.from + 1);
          for (let seq = gap.from; seq <= gap.to; seq++) told.add(seq);
        }
      };
      const receive = (arrives: boolean) => {
        const next = queue.take();
        if (next === undefined || !arrives) {
          // A lost frame means a lost connection.
          if (next !== undefined) connected = false;
          return next !== undefined;
        }
        if (sessionSaw === undefined) expect(next.key).toBe(true);
        else if (!next.key) expect(next.seq).toBe(sessionSaw + 1);
        sessionSaw = next.seq;
        delivered.add(next.seq);
        stored = Math.max(stored, next.seq);
        return true;
      };
      const reconnect = () => {
        queue.resume(stored);
        connected = true;
        sessionSaw = undefined;
      };
      for (const action of steps) {
        if (action.do === "add") {
          queue.add(batch(added++, action.key || added === 1));
          expect(queue.bytes).toBeLessThanOrEqual(bytesMax);
        } else if (action.do === "reconnect") reconnect();
        else if (connected && action.do === "take") receive(action.arrives);
        else if (connected) queue.acknowledge(stored);
        collect();
      }
      reconnect();
      while (receive(true)) collect();
      collect();
      for (let seq = 1; seq <= added; seq++)
        expect(delivered.has(seq) || told.has(seq), `batch ${seq}`).toBe(true);
    }),
    { numRuns: 3000 },
  );
});
