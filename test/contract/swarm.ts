// The process of many agents from outside: what it says, and what a controller has stored of its samples.
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { decodeFrame } from "../../protocol/frames.ts";
import { checkAgentMessage } from "../../protocol/messages.ts";
import { decodeReadings } from "../../protocol/readings.ts";
import { fastDirectory } from "../support/fast-directory.ts";
import { node, type Program, startProgram } from "./programs.ts";
import type { SwarmOptions } from "./swarm-agents.ts";

export interface Said {
  readonly agent: number;
  readonly at: number;
  readonly connected?: boolean;
  readonly gap?: { readonly from: number; readonly to: number };
  /** The id of a command that it ran. */
  readonly ran?: string;
  readonly sampled?: number;
  readonly error?: string;
  readonly warning?: string;
  readonly code?: string;
}

export interface Swarm extends AsyncDisposable {
  readonly program: Program;
  said(): Said[];
  /** How many are connected now, by their own words. */
  connected(): number;
}

export async function startSwarm(options: Omit<SwarmOptions, "directory">, logFile: string): Promise<Swarm> {
  // Their two hundred little stores are not what is looked at.
  const directory = await mkdtemp(join(fastDirectory, "bedplate-swarm-"));
  const program = startProgram({
    argv: [
      node,
      fileURLToPath(new URL("./swarm-agents.ts", import.meta.url)),
      JSON.stringify({ ...options, directory } satisfies SwarmOptions),
    ],
    logFile,
  });
  const said = () =>
    program
      .log()
      .split("\n")
      .flatMap((line) => (line.startsWith("{") && line.endsWith("}") ? [JSON.parse(line) as Said] : []));
  return {
    program,
    said,
    connected() {
      const now = new Map<number, boolean>();
      for (const { agent, connected } of said()) if (connected !== undefined) now.set(agent, connected);
      return [...now.values()].filter(Boolean).length;
    },
    async [Symbol.asyncDispose]() {
      await program[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}

export interface StoredSample {
  readonly seq: number;
  /** What the agent counted; undefined for a difference whose base is missing. */
  readonly value: number | undefined;
}

/** Every host's samples as a stopped controller has them, by the host's name, in the order they came. */
export function storedSamples(stateDirectory: string): Map<string, StoredSample[]> {
  using database = new DatabaseSync(join(stateDirectory, "controller.db"), { readOnly: true });
  const rows = database
    .prepare(
      "select hosts.name as name, data from telemetry join hosts on hosts.id = host order by host, minute",
    )
    .all();
  const found = new Map<string, StoredSample[]>();
  const last = new Map<string, { seq: number; values: BigUint64Array }>();
  for (const { name, data } of rows as { name: string; data: Uint8Array }[]) {
    const samples = found.get(name) ?? [];
    found.set(name, samples);
    for (const frame of framesOf(data)) {
      const batch = checkAgentMessage(decodeFrame(frame));
      if (batch.t !== "batch") throw new Error("something else is stored as a batch");
      const before = last.get(name);
      const based = batch.key || before?.seq === batch.seq - 1;
      const values = based && !batch.key ? before!.values : new BigUint64Array(1);
      if (based) decodeReadings(batch.data, values, { key: batch.key });
      if (based) last.set(name, { seq: batch.seq, values });
      samples.push({ seq: batch.seq, value: based ? Number(values[0]) : undefined });
    }
  }
  return found;
}

/** Each batch: number of the dictionary and length as u32, little-endian, then the message. */
function* framesOf(data: Uint8Array): Generator<Uint8Array> {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  for (let at = 0; at < data.length; ) {
    const end = at + 8 + view.getUint32(at + 4, true);
    yield data.slice(at + 8, end);
    at = end;
  }
}
