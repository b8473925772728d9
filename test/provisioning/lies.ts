// What a bad mirror answers, drawn by lot: transfers that break off, and answers that are not what was asked for.
import { gzipSync } from "node:zlib";
import type { Lots } from "../contract/mutations.ts";
import type { Answering, Asked } from "./mirror.ts";

/** Counts by kind: only what was really answered so. */
export interface Tally {
  count(kind: string): void;
  readonly counts: ReadonlyMap<string, number>;
  readonly total: number;
}

export function createTally(): Tally {
  const counts = new Map<string, number>();
  return {
    counts,
    count: (kind) => void counts.set(kind, (counts.get(kind) ?? 0) + 1),
    get total() {
      return [...counts.values()].reduce((sum, count) => sum + count, 0);
    },
  };
}

type Lie = (asked: Asked, answering: Answering, lots: Lots) => void;

/** Another try at the same mirror may help. */
const breaks = {
  "closed before the answer": (_, { response }) => void response.socket?.destroy(),
  "closed in the midst": (_, { begin, right }, lots) => begin(lots.below(right.length), "close"),
  "busy (503)": (_, { response }) => void response.writeHead(503).end("busy"),
  "busy (429)": (_, { response }) => void response.writeHead(429, { "retry-after": "1" }).end(),
  "closed at a group's end": (_, { begin, right }) =>
    begin(right.length > 1 << 20 ? 1 << 20 : right.length - 1, "close"),
  slow(_, { response, right, head }) {
    head(right.length);
    const half = right.length >> 1;
    response.write(right.subarray(0, half));
    setTimeout(() => response.end(right.subarray(half)), 150).unref();
  },
} as const satisfies Record<string, Lie>;

/** It is never asked again. */
const lies = {
  "a flipped bit"(_, { serve, right }, lots) {
    const copy = Uint8Array.from(right);
    copy[lots.below(copy.length)]! ^= 1 << lots.below(8);
    serve(copy);
  },
  garbage: (_, { serve, right }, lots) => serve(Buffer.alloc(right.length, lots.bytes(997))),
  zeroes: (_, { serve, right }) => serve(Buffer.alloc(right.length)),
  "bytes from elsewhere": (_, { serve, right }) =>
    serve(Buffer.concat([right.subarray(right.length >> 1), right.subarray(0, right.length >> 1)])),
  "a shorter answer": (_, { serve, right }) => serve(right.subarray(0, right.length - 1)),
  "a longer answer": (_, { serve, right }) => serve(Buffer.concat([right, Buffer.alloc(512)])),
  "another range": ({ start, end, size }, { serve }) =>
    serve(undefined, { headers: { "content-range": `bytes ${start + 1}-${end}/${size}` } }),
  "no range in the answer": (_, { serve }) => serve(undefined, { headers: { "content-range": "bytes */*" } }),
  "the whole file (200)": (_, { serve }) => serve(undefined, { status: 200 }),
  "a redirect": (_, { response }) =>
    void response.writeHead(302, { location: "http://169.254.169.254/latest" }).end(),
  "not found": (_, { response }) => void response.writeHead(404).end("<html>not found</html>"),
  forbidden: (_, { response }) => void response.writeHead(403).end(),
  "gzip asked by nobody"(_, { serve, right }) {
    serve(gzipSync(right, { level: 1 }), { headers: { "content-encoding": "gzip" } });
  },
  "said to be gzip": (_, { serve }) => serve(undefined, { headers: { "content-encoding": "gzip" } }),
} as const satisfies Record<string, Lie>;

const manifestLies = {
  "a manifest cut short": (_, { serve, right }, lots) => serve(right.subarray(0, lots.below(right.length))),
  /** In the middle of it, where a large image's digests are: how it is cut into frames, a digest does not tell. */
  "a manifest with a flipped bit"(_, { serve, right }, lots) {
    const copy = Uint8Array.from(right);
    copy[(right.length >> 2) + lots.below(right.length >> 1)]! ^= 1 << lots.below(8);
    serve(copy);
  },
  "a manifest of garbage": (_, { serve }, lots) => serve(lots.bytes(4096)),
  "no manifest": lies["not found"],
  "a manifest by redirect": lies["a redirect"],
} as const satisfies Record<string, Lie>;

export interface LiarOptions {
  readonly lots: Lots;
  readonly tally: Tally;
  /** How probable each fault of a request is. */
  readonly breaking: number;
  readonly lying: number;
}

export function liar({ lots, tally, breaking, lying }: LiarOptions) {
  return (asked: Asked, answering: Answering): void => {
    const kinds: Readonly<Record<string, Lie>> | undefined = lots.chance(breaking)
      ? breaks
      : lots.chance(lying)
        ? asked.what === "manifest"
          ? manifestLies
          : lies
        : undefined;
    if (kinds === undefined) {
      answering.serve();
      return;
    }
    const kind = lots.pick(Object.keys(kinds));
    tally.count(kind);
    kinds[kind]!(asked, answering, lots);
  };
}
