// What the command line prints, as pure functions: quantities, tables, progress, errors, selectors.
import { expect, test } from "vitest";
import { confirmationOf } from "../../cli/confirm.ts";
import { wrap } from "../../cli/demo/story.ts";
import { selectorOf } from "../../cli/deploy.ts";
import { exitCodeOfEnd, exitCodeOfError, exitCodeOfState, exitCodes } from "../../cli/exit-codes.ts";
import {
  errorText,
  formatAge,
  formatBytes,
  formatSeconds,
  formatTime,
  harmless,
  jsonText,
  parseBytes,
  parseSeconds,
  plain,
  progressLine,
  shortened,
  table,
} from "../../cli/output.ts";
import { parseDiskSelector } from "../../protocol/disks.ts";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1023, "1 KiB"],
  [1024, "1 KiB"],
  [1536, "1.5 KiB"],
  [1_048_063, "1 MiB"],
  [201_326_592, "192 MiB"],
  [218_103_808, "208 MiB"],
  [10_737_418_240, "10 GiB"],
  [1_100_000_000_000, "1 TiB"],
  [Number.MAX_SAFE_INTEGER, "8 PiB"],
])("%i bytes are %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

test.each([
  [0, "0.0 s"],
  [0.44, "0.4 s"],
  [9.96, "10 s"],
  [59.4, "59 s"],
  [59.6, "1 min"],
  [200, "3 min 20 s"],
  [7500, "2 h 5 min"],
  [86_400, "1 d"],
  [273_600, "3 d 4 h"],
])("%f seconds are %s", (seconds, text) => expect(formatSeconds(seconds)).toBe(text));

test("an age is whole seconds, and never before now", () => {
  expect(formatAge(1000, 13_400)).toBe("12 s ago");
  expect(formatAge(1000, 3000)).toBe("2 s ago");
  expect(formatAge(5000, 1000)).toBe("0 s ago");
  expect(formatAge(null, 1)).toBeNull();
  expect(formatTime(1_700_000_000_123)).toBe("2023-11-14 22:13:20Z");
});

test.each([
  ["90", 90],
  ["90s", 90],
  ["15m", 900],
  ["1h", 3600],
  ["7d", 604_800],
  ["1.5h", undefined],
  ["-1", undefined],
  ["", undefined],
  ["1w", undefined],
])("the duration %j is %s seconds", (text, seconds) => expect(parseSeconds(text)).toBe(seconds));

test.each([
  ["4096", 4096],
  ["192M", 201_326_592],
  ["192MiB", 201_326_592],
  ["2g", 2_147_483_648],
  ["1.5G", undefined],
  ["9999999999T", undefined],
  ["M", undefined],
])("the size %j is %s bytes", (text, bytes) => expect(parseBytes(text)).toBe(bytes));

test("nothing that steers a terminal gets through", () => {
  expect(plain("a\u001b[2Jb\rc\u0007\u009bd\u202ee")).toBe("a·[2Jb·c··d·e");
});

test("a table aligns its columns and marks what is not known", () => {
  const rows = [
    { name: "web-1", size: 5 },
    { name: "a\nb", size: null },
  ];
  expect(
    table(rows, [
      { title: "NAME", of: (row) => row.name },
      { title: "SIZE", of: (row) => (row.size === null ? null : `${row.size}`), align: "right" },
    ]),
  ).toBe("NAME   SIZE\nweb-1     5\na·b       -");
});

const half = {
  phase: "write",
  done: 96 << 20,
  total: 192 << 20,
  unit: "bytes",
  rate: 48 << 20,
  secondsLeft: 2,
} as const;

test("a progress line has share, amounts, rate and time left, and fits the width", () => {
  expect(progressLine(half, 80)).toBe(
    "write    [##########...........]   50%  96 MiB of 192 MiB  48 MiB/s  2.0 s left",
  );
  for (const columns of [10, 40, 60, 80, 200])
    expect(progressLine(half, columns).length).toBeLessThan(columns);
  expect(progressLine({ ...half, done: half.total, rate: 0 }, 70)).toContain("100%  192 MiB of 192 MiB");
  expect(progressLine({ ...half, done: 0, total: 0, secondsLeft: null }, 70)).toContain("100%");
  expect(progressLine({ ...half, phase: "run", total: 0, secondsLeft: null }, 70)).toMatch(
    /^run {6}96 MiB {2}[\d.]+ MiB\/s$/,
  );
});

test("an error shows its sentence, hint, candidates and code", () => {
  const candidates = [{ path: "/dev/sda", serial: "S1", nested: {} }, "file=second"];
  expect(
    errorText({ code: "disk.ambiguous", message: "Two match.", hint: "Say more.", details: { candidates } }),
  ).toBe(
    "error: Two match.\nhint: Say more.\ncandidates:\n  path=/dev/sda  serial=S1\n  file=second\ncode: disk.ambiguous",
  );
});

test("every way to end has its exit code", () => {
  expect(exitCodeOfState("succeeded")).toBe(0);
  expect(exitCodeOfState("failed")).toBe(1);
  expect(exitCodeOfState("refused")).toBe(3);
  expect(exitCodeOfState("timed-out")).toBe(4);
  expect(exitCodeOfState("indeterminate")).toBe(6);
  expect(exitCodeOfState("cancelled")).toBe(7);
  expect(() => exitCodeOfState("running")).toThrow("assertion");
  const failed = (code: string, details?: object) =>
    exitCodeOfEnd({ state: "failed", result: { error: { code, message: "No.", details } } } as never);
  // What a guard stops at the last moment is refused, unless an earlier run had begun.
  expect(failed("disk.mounted")).toBe(3);
  expect(failed("plan.changed")).toBe(3);
  expect(failed("plan.changed", { left: { marker: true } })).toBe(1);
  expect(failed("disk.io")).toBe(1);
  expect(exitCodeOfError("usage")).toBe(2);
  expect(exitCodeOfError("controller.unreachable")).toBe(8);
  expect(exitCodeOfError("controller.untrusted")).toBe(8);
  expect(exitCodeOfError("image.unknown")).toBe(1);
  expect(exitCodeOfError("a.code-of-tomorrow")).toBe(1);
  expect(new Set(Object.values(exitCodes)).size).toBe(10);
});

const disk = {
  path: "/dev/sda",
  type: "ssd",
  sizeBytes: 1,
  logicalSectorBytes: 512,
  physicalSectorBytes: 512,
  serial: "S3Z9",
  wwn: "0x5000",
  model: null,
  vendor: null,
  firmware: null,
  hctl: "0:0:0:0",
  byId: ["ata-X"],
  transport: null,
  readOnly: false,
  removable: false,
  diskSequence: 0,
  backing: null,
  fileDisk: null,
  partitions: [],
  mounts: [],
  swap: false,
  holders: [],
  allowed: false,
} as const satisfies Parameters<typeof selectorOf>[0] | object;
const like = (changes: Partial<Parameters<typeof selectorOf>[0]>) =>
  ({ ...disk, ...changes }) as Parameters<typeof selectorOf>[0];

test.each([
  [like({}), "serial=S3Z9"],
  [like({ serial: null }), "wwn=0x5000"],
  [like({ serial: null, wwn: null }), "byId=ata-X"],
  [like({ serial: null, wwn: null, byId: [] }), "hctl=0:0:0:0"],
  [like({ serial: null, wwn: null, byId: [], hctl: null }), null],
  [like({ type: "loop", serial: null, backing: "/srv/a.img" }), "loop=/srv/a.img"],
  [like({ type: "file", fileDisk: "scratch", backing: "/srv/a.img" }), "file=scratch"],
  [like({ serial: "A,B" }), null],
])("a disk is selected by what stays the same: case %#", (given, expected) => {
  expect(selectorOf(given)).toBe(expected);
  if (expected !== null) expect(parseDiskSelector(expected)).toBeDefined();
});

test("what must be typed is the serial, else the name of the file behind the disk", () => {
  expect(confirmationOf(disk)).toBe("S3Z9");
  expect(confirmationOf({ ...disk, serial: null, backing: "/srv/a.img" })).toBe("a.img");
  expect(confirmationOf({ ...disk, serial: null })).toBe("/dev/sda");
});

test("text is wrapped at spaces only", () => {
  expect(wrap("one two three four", 9)).toEqual(["one two", "three", "four"]);
  expect(wrap("a-very-long-word b", 4)).toEqual(["a-very-long-word", "b"]);
});

test("of what is printed only lines and tabs, and our own paint, do something to a terminal", () => {
  const hostile = "a\u001b[31mb\u001b]0;title\u0007c\rd\u009b2Je\u202ef\u007f";
  expect(harmless(`${hostile}\n\tg`)).toBe("a·[31mb·]0;title·c·d·2Je·f·\n\tg");
  const painted = "\u001b[1mbold\u001b[0m \u001b[31mred\u001b[0m";
  expect(harmless(painted, true)).toBe(painted);
  expect(harmless(painted)).toBe("·[1mbold·[0m ·[31mred·[0m");
  // Hidden, black on black, moved: none of ours.
  expect(harmless("\u001b[8mx\u001b[2Jy\u001b[1;1Hz\u001b[31", true)).toBe("·[8mx·[2Jy·[1;1Hz·[31");
});

test("JSON says the same with all of it escaped", () => {
  const value = { text: "a\u001b[31mb\u009bc\u202ed\u007f\n", list: [1, "\u2066"] };
  for (const lines of [true, false]) {
    const text = jsonText(value, lines);
    expect(JSON.parse(text)).toEqual(value);
    expect(text.replaceAll("\n", "")).not.toMatch(/\p{Cc}|\p{Bidi_Control}/u);
    expect(text.includes("\n")).toBe(!lines);
  }
});

test("an error does not repeat ten thousand characters", () => {
  expect(shortened("short")).toBe("short");
  const text = errorText({
    code: "usage",
    message: `${"A".repeat(10_000)} is no end`,
    hint: "B".repeat(9000),
  });
  expect(text.length).toBeLessThan(8500);
  expect(text).toContain("A … A");
  expect(text).toContain("is no end\nhint: ");
});
