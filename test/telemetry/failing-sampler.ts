// A sampler's worker that sends one sample and dies, the first times it is started; then it works until stopped.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import type { SampleMessage, SamplerWorkerData } from "../../agent/telemetry/sampler-messages.ts";

const { procRoot } = workerData as SamplerWorkerData;
const countFile = join(procRoot, "starts");
const starts = Number(readFileSync(countFile, "utf8")) + 1;
writeFileSync(countFile, String(starts));
const sample: SampleMessage = {
  type: "sample",
  dictionary: { id: 7, series: [{ name: "starts", labels: {}, type: "gauge", scale: 1 }] },
  dictionaryId: 7,
  at: starts,
  key: true,
  // Bitmap 1, then the zigzag form of the number of starts.
  data: Uint8Array.of(1, starts * 2),
  passMs: 1,
  skipped: 2,
};
parentPort!.postMessage(sample);
if (starts === 1) throw new Error("broken on purpose");
if (starts === 2) process.exit(9);
parentPort!.on("message", () => parentPort!.close());
