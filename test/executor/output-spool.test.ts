// The ring that keeps a program's output: offsets, readers, what is dropped, what a crash leaves.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type OutputReader, type OutputSpool, openOutputSpool } from "../../agent/executor/output-spool.ts";
import { spoolsKeptMax, spoolsToRemove } from "../../agent/executor/spool-files.ts";
import { spoolLayout } from "../../agent/executor/spool-header.ts";
import { openRandomFile, type RandomFile } from "../../agent/host/random-file.ts";
import type { OutputStream } from "../../protocol/commands.ts";

/** A file in memory, which may lose its last writes as a crash does. */
function memoryFile(): {
  open: () => RandomFile | undefined;
  make: () => RandomFile;
  bytes: () => Uint8Array;
  damage(from: number, to: number): void;
  cut(length: number): void;
  failAfter(writes: number): void;
} {
  let content: Uint8Array | undefined;
  let left = Number.POSITIVE_INFINITY;
  const file: RandomFile = {
    read(into, position) {
      const part = content!.subarray(position, position + into.length);
      into.set(part);
      return part.length;
    },
    write(from, position) {
      if (left-- <= 0) throw new Error("killed");
      const grown = new Uint8Array(Math.max(content!.length, position + from.length));
      grown.set(content!);
      grown.set(from, position);
      content = grown;
    },
    [Symbol.dispose]() {},
  };
  return {
    open: () => (content === undefined ? undefined : file),
    make() {
      content ??= new Uint8Array();
      return file;
    },
    bytes: () => content ?? new Uint8Array(),
    damage(from: number, to: number) {
      content!.fill(0, from, to);
    },
    cut(length: number) {
      content = content!.slice(0, length);
    },
    failAfter(writes) {
      left = writes;
    },
  };
}
const openIn = (memory: ReturnType<typeof memoryFile>, capacity: number) =>
  openOutputSpool((mode) => (mode === "create" ? memory.make() : memory.open()), capacity);

interface Read {
  readonly stream: OutputStream;
  readonly offset: number;
  readonly text: string;
}
function readAll(reader: OutputReader): Read[] {
  const pieces: Read[] = [];
  for (let piece = reader.next(); piece !== undefined; piece = reader.next())
    pieces.push({
      stream: piece.stream,
      offset: piece.offset,
      text: Buffer.from(piece.data).toString("latin1"),
    });
  return pieces;
}
const utf8 = (text: string) => new TextEncoder().encode(text);

test("both streams in their order, each byte at its offset; neighbours of one stream travel together", () => {
  const spool = openIn(memoryFile(), 1000);
  spool.append("stdout", utf8("one "));
  spool.append("stdout", utf8("two "));
  spool.append("stderr", utf8("oh "));
  spool.append("stdout", utf8("three"));
  expect(readAll(spool.reader(0))).toEqual([
    { stream: "stdout", offset: 0, text: "one two " },
    { stream: "stderr", offset: 8, text: "oh " },
    { stream: "stdout", offset: 11, text: "three" },
  ]);
  expect(readAll(spool.reader(6))).toEqual([
    { stream: "stdout", offset: 6, text: "o " },
    { stream: "stderr", offset: 8, text: "oh " },
    { stream: "stdout", offset: 11, text: "three" },
  ]);
  expect(readAll(spool.reader(16))).toEqual([]);
  expect(readAll(spool.reader(99))).toEqual([]);
  expect([spool.stdoutBytes, spool.stderrBytes, spool.bytes, spool.from]).toEqual([13, 3, 16, 0]);
  expect(Buffer.from(spool.tail(7)).toString()).toBe("h three");
});

test("a reader that has read all goes on with what comes, and jumps over what was dropped", () => {
  const spool = openIn(memoryFile(), 20);
  const reader = spool.reader(0);
  spool.append("stdout", utf8("abcd"));
  expect(readAll(reader)).toEqual([{ stream: "stdout", offset: 0, text: "abcd" }]);
  for (const text of ["1234", "5678", "9abc"]) spool.append("stdout", utf8(text));
  expect(spool.from).toBe(8);
  expect(readAll(reader)).toEqual([{ stream: "stdout", offset: 8, text: "56789abc" }]);
});

test.each<[string, (memory: ReturnType<typeof memoryFile>) => void]>([
  ["overwritten", (memory) => memory.damage(spoolLayout.headerBytes, memory.bytes().length)],
  ["cut off", (memory) => memory.cut(spoolLayout.headerBytes + 10)],
])("what is %s while it is in use is lost and counted; what comes then is kept", (_, harm) => {
  const memory = memoryFile();
  using spool = openIn(memory, 4096);
  spool.append("stdout", Buffer.from("a".repeat(3000)));
  const reader = spool.reader(0);
  harm(memory);
  expect(readAll(reader)).toEqual([]);
  expect([spool.bytes, spool.from]).toEqual([3000, 3000]);
  expect(spool.tail(100)).toHaveLength(0);
  spool.append("stderr", Buffer.from("after"));
  const after = [{ stream: "stderr", offset: 3000, text: "after" }];
  expect(readAll(reader)).toEqual(after);
  expect(readAll(spool.reader(0))).toEqual(after);
  // Room is made where nothing can be read, too.
  harm(memory);
  spool.append("stdout", Buffer.from("b".repeat(4090)));
  expect(readAll(reader)).toEqual([{ stream: "stdout", offset: 3005, text: "b".repeat(4090) }]);
  using again = openIn(memory, 4096);
  expect([again.bytes, again.from]).toEqual([7095, 3005]);
});

test("nothing is on the disk before the first byte", () => {
  const memory = memoryFile();
  const spool = openIn(memory, 1000);
  expect(readAll(spool.reader(0))).toEqual([]);
  expect(memory.open()).toBeUndefined();
});

describe("properties", () => {
  const step = fc.record({
    stream: fc.constantFrom<OutputStream>("stdout", "stderr"),
    length: fc.integer({ min: 1, max: 90 }),
  });
  /** The n-th byte of the whole is told by its offset. */
  const bytesAt = (offset: number, length: number) =>
    Uint8Array.from({ length }, (_, index) => (offset + index) % 251);
  const checkPieces = (pieces: Read[], streams: readonly OutputStream[], from: number) => {
    let next = from;
    for (const { stream, offset, text } of pieces) {
      expect(offset).toBe(next);
      for (let index = 0; index < text.length; index++) {
        expect(text.charCodeAt(index)).toBe((offset + index) % 251);
        expect(streams[offset + index]).toBe(stream);
      }
      next += text.length;
    }
    expect(next).toBe(Math.max(from, streams.length));
  };

  test("whatever comes, the newest bytes are kept, each once, in order and of its stream; also for who opens it anew", () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 60 }),
        fc.integer({ min: 100, max: 400 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (steps, capacity, at) => {
          const memory = memoryFile();
          const spool = openIn(memory, capacity);
          const streams: OutputStream[] = [];
          for (const { stream, length } of steps) {
            spool.append(stream, bytesAt(streams.length, length));
            for (let i = 0; i < length; i++) streams.push(stream);
          }
          const kept = streams.length - spool.from;
          // Nothing is dropped that need not be: the next record would not have fitted.
          if (spool.from > 0) expect(kept + 94 + 4 * steps.length).toBeGreaterThan(capacity - 94);
          expect(memory.bytes().length).toBeLessThanOrEqual(4096 + capacity);
          const start = Math.floor(at * (streams.length + 1));
          for (const one of [spool, openIn(memory, capacity)]) {
            checkPieces(readAll(one.reader(start)), streams, Math.max(start, one.from));
            expect([one.bytes, one.from]).toEqual([streams.length, spool.from]);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test("killed between any two writes, it opens with whole records", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), fc.nat({ max: 90 }), (steps, writes) => {
        const memory = memoryFile();
        memory.failAfter(writes);
        const spool = openIn(memory, 200);
        const streams: OutputStream[] = [];
        try {
          for (const { stream, length } of steps) {
            spool.append(stream, bytesAt(streams.length, length));
            for (let i = 0; i < length; i++) streams.push(stream);
          }
        } catch {
          // Killed.
        }
        memory.failAfter(Number.POSITIVE_INFINITY);
        const after = openIn(memory, 200);
        expect(after.bytes).toBe(streams.length);
        checkPieces(readAll(after.reader(0)), streams, after.from);
        after.append("stdout", bytesAt(streams.length, 5));
        streams.push(...Array.from({ length: 5 }, () => "stdout" as const));
        checkPieces(readAll(after.reader(0)), streams, after.from);
      }),
      { numRuns: 300 },
    );
  });
});

test.each([
  ["the header of one moment and the records of another", 4096 + 3],
  ["a header that is none", 2],
])("a power cut leaves %s: nothing is told that is not so", (_, damage) => {
  const memory = memoryFile();
  openIn(memory, 1000).append("stdout", utf8("some output"));
  memory.make().write(new Uint8Array([0xee]), damage);
  const spool = openIn(memory, 1000);
  expect(readAll(spool.reader(0))).toEqual([]);
  const before = spool.bytes;
  spool.append("stderr", utf8("more"));
  expect(readAll(spool.reader(0))).toEqual([{ stream: "stderr", offset: before, text: "more" }]);
});

describe("on a disk", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "bp-spool-"));
  });
  afterAll(() => rm(directory, { recursive: true }));

  test("a hundred times the ring, in pieces larger than it: the tail is right and the file no larger", () => {
    const path = join(directory, "spool");
    const open = (mode: "create" | "existing") => openRandomFile(path, mode);
    using spool: OutputSpool = openOutputSpool(open, 1 << 20);
    const block = Uint8Array.from({ length: 3 << 20 }, (_, index) => (index * 7) % 256);
    for (let i = 0; i < 35; i++) spool.append("stdout", block);
    expect(spool.bytes).toBe(105 << 20);
    expect(spool.bytes - spool.from).toBeGreaterThan((1 << 20) - 64 * 1024);
    expect(Buffer.compare(spool.tail(100_000), block.subarray(-100_000))).toBe(0);
    using again = openOutputSpool(open, 1 << 20);
    expect(Buffer.compare(again.tail(100_000), block.subarray(-100_000))).toBe(0);
    using file = openRandomFile(path, "existing")!;
    expect(file.read(new Uint8Array(1), 4096 + (1 << 20))).toBe(0);
  });

  test("a link in its place is not followed", async () => {
    const { symlink } = await import("node:fs/promises");
    await symlink("/etc/hostname", join(directory, "link"));
    expect(() => openRandomFile(join(directory, "link"), "create")).toThrow("ELOOP");
  });
});

test("removed are those of no known operation, and the oldest of more than are kept", () => {
  const names = Array.from(
    { length: spoolsKeptMax + 3 },
    (_, index) => `id-${String(index).padStart(4, "0")}`,
  );
  const standing = (id: string) => (id === "id-0001" ? "open" : id === "id-0066" ? "unknown" : "ended");
  expect(spoolsToRemove(names, standing)).toEqual(["id-0066", "id-0000"]);
});
