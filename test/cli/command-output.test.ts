// A program's output as pieces of the controller: each byte once, in order, gaps told, nothing that steers a terminal.
import { expect, test } from "vitest";
import type { ApiClient } from "../../cli/api-client.ts";
import { readOutput } from "../../cli/command-output.ts";
import { harmless } from "../../cli/output.ts";
import type { OutputView } from "../../protocol/api.ts";

const { signal } = new AbortController();
type Piece = OutputView["pieces"][number];
const piece = (offset: number, text: string, stream: Piece["stream"] = "stdout"): Piece => ({
  stream,
  offset,
  data: Buffer.from(text).toString("base64"),
});

/** Answers as the controller does: pieces that end after `after`. */
function clientWith(rounds: readonly { readonly pieces: readonly Piece[]; readonly ended?: boolean }[]) {
  const asked: (readonly [number, number])[] = [];
  const output = async (_: string, after: number, waitSeconds = 0): Promise<OutputView> => {
    const { pieces, ended = false } = rounds[Math.min(asked.length, rounds.length - 1)]!;
    asked.push([after, waitSeconds]);
    const last = pieces.at(-1);
    const to = last === undefined ? after : last.offset + Buffer.from(last.data, "base64").length;
    return { from: pieces[0]?.offset ?? after, to, ended, pieces: [...pieces] };
  };
  return { client: { output } as unknown as ApiClient, asked };
}

async function read(rounds: Parameters<typeof clientWith>[0], follow: boolean, after = 0) {
  const { client, asked } = clientWith(rounds);
  const seen: string[] = [];
  const sink = (name: string) => (bytes: Uint8Array, offset: number) =>
    void seen.push(`${name}@${offset}:${new TextDecoder().decode(bytes)}`);
  const end = await readOutput({
    client,
    id: "x",
    after,
    follow,
    until: signal,
    sinks: {
      stdout: sink("out"),
      stderr: sink("err"),
      skipped: (bytes, from) => void seen.push(`skipped ${bytes} before ${from}`),
    },
  });
  return { seen, asked, end };
}

test("followed until it has ended, each question behind the last piece", async () => {
  const { seen, asked, end } = await read(
    [
      { pieces: [piece(0, "one"), piece(3, "two", "stderr")] },
      { pieces: [] },
      { pieces: [piece(6, "three")] },
      { pieces: [], ended: true },
    ],
    true,
  );
  expect(seen).toEqual(["out@0:one", "err@3:two", "out@6:three"]);
  expect(asked.map(([after]) => after)).toEqual([0, 6, 6, 11]);
  expect(asked[0]![1]).toBeGreaterThan(0);
  expect(end).toBe(11);
});

test("without following it takes what is there, however many answers that needs, and does not wait", async () => {
  const { seen, asked } = await read(
    [{ pieces: [piece(0, "a")] }, { pieces: [piece(1, "b")] }, { pieces: [] }],
    false,
  );
  expect(seen).toEqual(["out@0:a", "out@1:b"]);
  expect(asked.every(([, waits]) => waits === 0)).toBe(true);
});

test("what is no longer kept is told", async () => {
  const { seen } = await read([{ pieces: [piece(100, "tail"), piece(110, "end")], ended: true }], true);
  expect(seen).toEqual(["skipped 100 before 100", "out@100:tail", "skipped 6 before 110", "out@110:end"]);
});

test("pieces that overlap or run back are the controller's fault", async () => {
  for (const pieces of [
    [piece(0, "abc"), piece(2, "d")],
    [piece(5, "abc"), piece(0, "d")],
  ])
    await expect(read([{ pieces, ended: true }], true)).rejects.toThrow(
      expect.objectContaining({ code: "message.invalid" }),
    );
  const bad = { stream: "stdout", offset: 0, data: "###" } as const;
  await expect(read([{ pieces: [bad], ended: true }], true)).rejects.toThrow(/pieces of output/);
});

test("a terminal is not steered", () => {
  expect(harmless("a\tb\r\nc\u001b]0;x\u0007\u009b2J\u202e\rd\u061c")).toBe("a\tb\nc·]0;x··2J··d·");
});
