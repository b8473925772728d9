// Every bound of the wire and of what both ends keep for it, in one place.
import { assert } from "./errors.ts";

const kib = 1024;
const mib = 1024 * kib;

export const limits = {
  /** The largest WebSocket message, either way. */
  frameBytesMax: mib,
  /** The largest message before the peer has proved who it is. */
  frameBytesBeforeAuthMax: 64 * kib,
  /** Maps and arrays within each other. */
  frameDepthMax: 16,
  /** Seconds from an accepted connection to a proven peer. */
  authSecondsMax: 5,
  /** A command's exact bytes. */
  commandBytesMax: 256 * kib,
  /** The encoded result of one operation. */
  resultBytesMax: 768 * kib,
  /** Series in one dictionary, and so in one batch. */
  seriesMax: 8192,
  /** One batch of readings, encoded. */
  batchBytesMax: 128 * kib,
  /** Records (durable) that wait on the host's disk for the controller. */
  outboxRecordBytesMax: 16 * mib,
  /** Samples (droppable) that wait in memory for the controller. */
  outboxSampleBytesMax: 4 * mib,
  /** Record and batch frames that an agent may have on their way unacknowledged. */
  creditBytes: mib,
  /** What may wait in one socket's send buffer before its sender pauses. */
  socketBufferBytesMax: mib,
  /** A manifest: 36 bytes a group, so images up to about 1.8 TiB. */
  manifestBytesMax: 64 * mib,
  /** Longest text of a name: host, image, join token. */
  nameLengthMax: 128,
  /** Results are kept on the host until acknowledged, and this long after. */
  resultDaysKept: 30,
} as const;

assert(limits.frameBytesMax >= limits.resultBytesMax + 64 * kib, "a result with its envelope fits a frame");
assert(limits.frameBytesMax >= limits.commandBytesMax + 64 * kib, "an offer with its envelope fits a frame");
assert(limits.frameBytesMax >= 2 * limits.batchBytesMax, "a batch fits a frame");
assert(limits.creditBytes >= limits.frameBytesMax, "any frame fits the credit");
assert(limits.outboxRecordBytesMax >= 4 * limits.resultBytesMax, "the outbox holds several results");
assert(limits.outboxSampleBytesMax >= 16 * limits.batchBytesMax, "the outbox holds several batches");
