// The agent's one telemetry thread: samples at each tick and posts the encoded readings to the main thread.
import { parentPort, workerData } from "node:worker_threads";
// Not by the index: that would load the hashing and piscina into this thread.
import { createMeter } from "../../assembly/meter.ts";
import { assert } from "../../protocol/errors.ts";
import { systemClock } from "../host/clock.ts";
import { kernelFilesUnder } from "../host/kernel-files.ts";
import { collectors } from "./collectors/index.ts";
import type { FromSampler, SampleMessage, SamplerWorkerData, ToSampler } from "./sampler-messages.ts";
import { Sampling } from "./sampling.ts";
import { tick } from "./ticks.ts";

assert(parentPort !== null, "the sampler runs as a worker");
const port = parentPort;
const { procRoot, intervalMs } = workerData as SamplerWorkerData;
const clock = systemClock;
const post = (message: FromSampler, transfer: ArrayBuffer[] = []) => port.postMessage(message, transfer);
const stop = new AbortController();

using sampling = new Sampling({
  files: kernelFilesUnder(procRoot),
  meter: await createMeter(),
  clock,
  collectors,
  report: (report) => post({ type: "report", report }),
});

port.on("message", (message: ToSampler) => {
  if (message === "key") sampling.requestKey();
  else stop.abort();
});
await tick({ intervalMs, clock, onTick: sample }, stop.signal);
port.close();

function sample(skipped: number): void {
  const at = clock.now();
  const start = clock.monotonic();
  const { dictionary, ...frame } = sampling.pass();
  const message: SampleMessage = {
    type: "sample",
    ...(dictionary === undefined ? {} : { dictionary }),
    ...frame,
    at,
    passMs: clock.monotonic() - start,
    skipped,
  };
  post(message, [frame.data.buffer]);
}
