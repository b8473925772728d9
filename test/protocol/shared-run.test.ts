import { expect, test } from "vitest";
import { sharedRun } from "../../protocol/shared-run.ts";

const gates = () => {
  const runs: PromiseWithResolvers<void>[] = [];
  const call = sharedRun(() => {
    runs.push(Promise.withResolvers<void>());
    return runs.at(-1)!.promise;
  });
  return { runs, call };
};
const turn = () => new Promise((resolve) => setImmediate(resolve));

test("a call is served by a run that began after it, and calls in between share one", async () => {
  const { runs, call } = gates();
  const done: string[] = [];
  void call().then(() => done.push("first"));
  await turn();
  expect(runs).toHaveLength(1);
  void call().then(() => done.push("second"));
  void call().then(() => done.push("third"));
  await turn();
  expect(runs).toHaveLength(1);
  runs[0]!.resolve();
  await turn();
  expect(done).toEqual(["first"]);
  expect(runs).toHaveLength(2);
  runs[1]!.resolve();
  await turn();
  expect(done).toEqual(["first", "second", "third"]);
});

test("after a failed run nothing is believed any more", async () => {
  const { runs, call } = gates();
  const first = call();
  await turn();
  const second = call();
  runs[0]!.reject(new Error("EIO"));
  await expect(first).rejects.toThrow("EIO");
  await expect(second).rejects.toThrow("EIO");
  await expect(call()).rejects.toThrow("EIO");
  expect(runs).toHaveLength(1);
});
