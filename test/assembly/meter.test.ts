import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createMeter, type Meter } from "../../assembly/index.ts";
import { meterLayout } from "../../assembly/layout.ts";
import { instantiate, loadMeter } from "../../assembly/load.ts";
import { inputBytes, meterSeriesMax } from "../../assembly/memory-map.ts";
import * as reference from "../../assembly/references/meter.ts";
import { decodeReadings } from "../../protocol/readings.ts";

const most = 2n ** 64n - 1n;
const meter = await createMeter();

function scan(text: string | Uint8Array) {
  const bytes = typeof text === "string" ? Buffer.from(text, "latin1") : text;
  meter.input.set(bytes);
  const { count, shape, saturated } = meter.scan(bytes.length);
  return { numbers: [...meter.numbers.subarray(0, count)], shape, saturated };
}

/** The kernel's scan, after it was compared with the reference's. */
function checkedScan(text: string) {
  const found = scan(text);
  expect(found).toEqual(reference.scan(Buffer.from(text, "latin1")));
  return found;
}

const samples = {
  stat: "cpu  74608 2520 24433 1117073 6176 4054 0 0 0 0\ncpu0 37784 1263 12178 558565 3066 2007 0 0 0 0\nintr 8194912 0 9\nctxt 14 \nbtime 1700000000\n",
  meminfo:
    "MemTotal:       16384256 kB\nMemFree:          123456 kB\nActive(anon):     0 kB\nHugePages_Total:       0\n",
  pressure:
    "some avg10=0.52 avg60=1.07 avg300=12.00 total=123456789\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
  netDev: "  eth0: 18446744073709551615  100 0 0 0 0 0 0\n    lo:1234 5 0 0 0 0 0 0\n",
  loadavg: "0.52 0.48 0.30 2/1043 12345\n",
  diskstats: "   8       0 sda 123 4 567 89 0 0 0 0 0 0 0\n 259       1 nvme0n1p1 1 2 3 4 5\n",
  zoneinfo: "Node 0, zone      DMA\n  pages free     3840\n        protection: (0, 2991, 15946, 15946)\n",
};

describe("scan", () => {
  test.each(Object.entries(samples))("reads %s like the reference", (_, text) => {
    expect(checkedScan(text).numbers.length).toBeGreaterThan(3);
  });

  test("gives the numbers in order, fixed point without their dot", () => {
    expect(checkedScan(samples.pressure).numbers).toEqual([52n, 107n, 1200n, 123456789n, 0n, 0n, 0n, 0n]);
    expect(checkedScan(samples.zoneinfo).numbers).toEqual([0n, 3840n, 0n, 2991n, 15946n, 15946n]);
    expect(checkedScan(samples.loadavg).numbers).toEqual([52n, 48n, 30n, 2n, 1043n, 12345n]);
    expect(checkedScan("a -1\tb:-0.5(7)").numbers).toEqual([most, most - 4n, 7n]);
  });

  test.each([
    "",
    "-",
    ".",
    "1.",
    ".5",
    "1.2.3",
    "1..2",
    "--1",
    "1-",
    "+1",
    "0x12",
    "1e3",
    "12a",
    "a12",
    "-.5",
    "-1.",
    "\r1",
    "\0",
    "1\0",
  ])("takes %j for no number", (text) => expect(checkedScan(text).numbers).toEqual([]));

  test("keeps 64 bits exactly, and says when there are more", () => {
    for (const value of [
      0n,
      1n,
      2n ** 53n - 1n,
      2n ** 53n,
      2n ** 53n + 1n,
      2n ** 63n,
      10n ** 19n - 1n,
      10n ** 19n,
      most - 1n,
      most,
    ]) {
      expect(checkedScan(`x ${value}\n`)).toMatchObject({ numbers: [value], saturated: false });
      expect(checkedScan(`0000000000000000000000${value}`)).toMatchObject({
        numbers: [value],
        saturated: false,
      });
    }
    for (const text of [
      `${most + 1n}`,
      `${most}0`,
      "9".repeat(20),
      "9".repeat(400),
      `1${"0".repeat(20)}.5`,
    ]) {
      expect(checkedScan(text)).toMatchObject({ numbers: [most], saturated: true });
    }
    expect(checkedScan(`-${2n ** 63n} -${2n ** 63n - 1n}`)).toMatchObject({
      numbers: [2n ** 63n, 2n ** 63n + 1n],
      saturated: false,
    });
    expect(checkedScan(`-${2n ** 63n + 1n} -${most} 5`)).toMatchObject({
      numbers: [2n ** 63n, 2n ** 63n, 5n],
      saturated: true,
    });
  });

  test("the shape stands for words, newlines, places and decimals, not for values or spaces", () => {
    const shape = (text: string) => checkedScan(text).shape;
    const same = shape("cpu 1 2.50\nx=3\n");
    for (const text of ["cpu  999999999\t-0.01\nx= 7\n", " cpu 18446744073709551616 2.50\nx:3\n"])
      expect(shape(text)).toBe(same);
    const others = [
      "cpu 1 2.5\nx=3\n",
      "cpu 1 250\nx=3\n",
      "cpu 1 2.50 x=3\n",
      "cpu 1 2.50\nx=3",
      "cpv 1 2.50\nx=3\n",
      "cpu 1\n2.50 x=3\n",
      "1 cpu 2.50\nx=3\n",
      "c pu 1 2.50\nx=3\n",
      "cpu 1 2.50\n\nx=3\n",
      "cpu 1 2.50\nx=3 4\n",
    ];
    expect(new Set([same, ...others.map(shape)]).size).toBe(others.length + 1);
  });

  test("agrees with the reference on anything", () => {
    const byte = fc.constantFrom(..."0123456789 \n\t.-:=(),ax\0/\r\xff".split(""));
    const anyText = fc.oneof(
      fc.string({ unit: byte, maxLength: 200 }),
      fc.string({ unit: "binary-ascii", maxLength: 60 }),
    );
    fc.assert(
      fc.property(anyText, (text) => {
        checkedScan(text);
      }),
      { numRuns: 3000, seed: 1 },
    );
  });

  test("fills the whole input and looks no further", () => {
    meter.input.fill(0x31);
    meter.input.forEach((_, k) => {
      if (k & 1) meter.input[k] = 0x20;
    });
    expect(meter.scan(inputBytes)).toMatchObject({ count: inputBytes / 2, saturated: false });
    meter.input.set(Buffer.from("12345"));
    expect(meter.scan(2).count).toBe(1);
    expect(meter.numbers[0]).toBe(12n);
    for (const length of [-1, inputBytes + 1, 2 ** 32, Number.NaN, 0.5])
      expect(() => meter.scan(length)).toThrow(badRange);
  });
});

const badRange = expect.objectContaining({ code: "kernel.bad-range" });

test("gather puts numbers of the last scan into the table", () => {
  scan("10 11 12 13");
  meter.values.fill(7n);
  meter.gather(2, Uint16Array.of(3, 0, 3));
  expect([...meter.values.subarray(0, 6)]).toEqual([7n, 7n, 13n, 10n, 13n, 7n]);
  meter.gather(meterSeriesMax - 1, Uint32Array.of(1));
  expect(meter.values[meterSeriesMax - 1]).toBe(11n);
  meter.gather(meterSeriesMax, new Uint16Array());
  for (const [target, indexes] of [
    [0, [4]],
    [0, [2 ** 32 - 1]],
    [meterSeriesMax, [0]],
    [-1, [0]],
    [0.5, [0]],
    [meterSeriesMax - 1, [0, 0]],
  ] as const) {
    expect(() => meter.gather(target, Uint32Array.from(indexes))).toThrow(badRange);
  }
  scan("");
  expect(() => meter.gather(0, Uint16Array.of(0))).toThrow(badRange);
});

const edge = fc.constantFrom(
  0n,
  1n,
  63n,
  64n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 53n + 1n,
  2n ** 63n - 1n,
  2n ** 63n,
  most - 1n,
  most,
);
const value = fc.oneof(edge, fc.bigInt({ min: 0n, max: most }), fc.bigInt({ min: 0n, max: 1000n }));
/** Some ticks of a table; each value may stay as it was. */
const ticks = fc
  .nat({ max: 40 })
  .chain((count) =>
    fc.array(fc.array(fc.option(value), { minLength: count, maxLength: count }), {
      minLength: 1,
      maxLength: 5,
    }),
  )
  .map((rows) => {
    let current = rows[0]!.map(() => 0n);
    return rows.map((row) => {
      current = row.map((next, k) => next ?? current[k]!);
      return current;
    });
  });

async function eachTick(
  check: (meter: Meter, tick: readonly bigint[], before: readonly bigint[], first: boolean) => void,
) {
  const fresh = await createMeter();
  fc.assert(
    fc.property(ticks, (rows) => {
      for (const [index, row] of rows.entries()) {
        fresh.values.set(row);
        check(fresh, row, rows[index - 1] ?? row.map(() => 0n), index === 0);
      }
    }),
    { numRuns: 500, seed: 2 },
  );
}

test("encode gives the reference's readings, and the protocol decodes them", async () => {
  let decoded = new BigUint64Array(0);
  await eachTick((fresh, row, before, first) => {
    const readings = fresh.encode(row.length, { key: first });
    expect(readings).toEqual(reference.encode(before, row));
    if (first) decoded = new BigUint64Array(row.length).fill(9n);
    decodeReadings(readings, decoded, { key: first });
    expect([...decoded]).toEqual(row);
  });
});

test("encode fits the largest table at its worst, and an unchanged one is its bitmap", () => {
  meter.values.fill(0n);
  meter.encode(meterSeriesMax, { key: true });
  meter.values.fill(2n ** 63n);
  const frame = meter.encode(meterSeriesMax, { key: false });
  expect(frame.length).toBe(meterSeriesMax / 8 + meterSeriesMax * 10);
  expect(meter.encode(meterSeriesMax, { key: false })).toEqual(new Uint8Array(meterSeriesMax / 8));
  const decoded = new BigUint64Array(meterSeriesMax);
  decodeReadings(frame, decoded, { key: true });
  expect(decoded).toEqual(meter.values.slice());
  for (const count of [-1, meterSeriesMax + 1, 1.5, Number.NaN]) {
    expect(() => meter.encode(count, { key: true })).toThrow(badRange);
    expect(() => meter.deltas(count, { first: true })).toThrow(badRange);
  }
});

test("deltas agree with the reference, resets marked", async () => {
  await eachTick((fresh, row, before, first) => {
    const expected = reference.deltas(first ? row : before, row);
    const { deltas, resets, resetCount } = fresh.deltas(row.length, { first });
    expect([...deltas]).toEqual(expected.deltas);
    expect(resetCount).toBe(expected.resets.length);
    expect([...row.keys()].filter((k) => resets[k >> 3]! & (1 << (k & 7)))).toEqual(expected.resets);
  });
});

test("traps on hostile arguments at each kernel's entry", () => {
  const { exports } = instantiate<Record<string, (...args: number[]) => number>>(loadMeter(), meterLayout);
  for (const length of [inputBytes + 1, -1])
    expect(() => exports.scan!(length)).toThrow(WebAssembly.RuntimeError);
  for (const [target, count, numbers] of [
    [0, 8193, 9],
    [8192, 1, 9],
    [-1, 2, 9],
    [1, -1, 9],
    [0, 1, 131_073],
    [0, 1, 0],
    [0, 1, -1],
  ]) {
    expect(() => exports.gather!(target!, count!, numbers!), `${target}, ${count}, ${numbers}`).toThrow(
      WebAssembly.RuntimeError,
    );
  }
  for (const count of [8193, -1]) {
    expect(() => exports.encode!(count, 1)).toThrow(WebAssembly.RuntimeError);
    expect(() => exports.deltas!(count, 1)).toThrow(WebAssembly.RuntimeError);
  }
});
