// The live view: figures of two samples, lines for any terminal, and the terminal given back.
import { EventEmitter } from "node:events";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { LiveEvent } from "../../cli/api-client.ts";
import type { ScreenStreams } from "../../cli/screen.ts";
import type { Terminal } from "../../cli/terminal.ts";
import { watchHost } from "../../cli/watch.ts";
import {
  busyShare,
  figuresOf,
  newWatch,
  type WatchState,
  withDictionary,
  withSample,
} from "../../cli/watch-figures.ts";
import { renderWatch } from "../../cli/watch-view.ts";
import type { LiveDictionary, LiveSample } from "../../protocol/api.ts";

type Value = readonly [name: string, labels: Record<string, string>, before: number, now: number];

const cpuOf = (cpu: string, busy: number): Value[] => [
  ["node_cpu_seconds_total", { cpu, mode: "user" }, 100, 100 + busy * 0.75],
  ["node_cpu_seconds_total", { cpu, mode: "system" }, 50, 50 + busy * 0.25],
  ["node_cpu_seconds_total", { cpu, mode: "idle" }, 1000, 1000 + 2 - busy],
];
const diskOf = (device: string, read: number): Value[] => [
  ["node_disk_read_bytes_total", { device }, 0, read],
  ["node_disk_written_bytes_total", { device }, 0, 2 * 1024 * 1024],
  ["node_disk_reads_completed_total", { device }, 10, 30],
  ["node_disk_writes_completed_total", { device }, 10, 30],
  ["node_disk_io_time_seconds_total", { device }, 5, 6],
];
const interfaceOf = (device: string, received: number): Value[] => [
  ["node_network_receive_bytes_total", { device }, 0, received],
  ["node_network_transmit_bytes_total", { device }, 0, 1024],
  ["node_network_receive_packets_total", { device }, 0, 200],
  ["node_network_receive_drop_total", { device }, 0, 6],
];

const machine: readonly Value[] = [
  ...cpuOf("0", 1),
  ...cpuOf("1", 0),
  ["node_load1", {}, 0.1, 0.52],
  ["node_load5", {}, 0.1, 0.4],
  ["node_load15", {}, 0.1, 0.3],
  ["node_memory_MemTotal_bytes", {}, 8 * 2 ** 30, 8 * 2 ** 30],
  ["node_memory_MemAvailable_bytes", {}, 6 * 2 ** 30, 6 * 2 ** 30],
  ["node_memory_Cached_bytes", {}, 2 ** 30, 2 ** 30],
  ["node_memory_SwapTotal_bytes", {}, 2 ** 30, 2 ** 30],
  ["node_memory_SwapFree_bytes", {}, 2 ** 30, 2 ** 29],
  ["node_pressure_cpu_waiting_seconds_total", {}, 10, 10.1],
  ["node_pressure_io_waiting_seconds_total", {}, 10, 10],
  ["node_boot_time_seconds", {}, 1_795_000_000, 1_795_000_000],
  ["node_procs_running", {}, 1, 3],
  ["node_context_switches_total", {}, 0, 2400],
  ["node_forks_total", {}, 0, 1],
  ...diskOf("sda", 0),
  ...diskOf("nvme0n1", 4 * 1024 * 1024),
  ...interfaceOf("lo", 0),
  ...interfaceOf("eth0", 3000),
];

const startMs = 1_795_100_000_000;
const dictionaryOf = (values: readonly Value[]): LiveDictionary => ({
  series: values.map(([name, labels]) => ({ name, labels, type: "gauge", scale: 1 })),
});
/** Two samples, two seconds apart. */
const samplesOf = (values: readonly Value[]): [LiveSample, LiveSample] => [
  { at: startMs, values: values.map(([, , before]) => before) },
  { at: startMs + 2000, values: values.map(([, , , now]) => now) },
];
function watching(values: readonly Value[]): WatchState {
  const [before, now] = samplesOf(values);
  return withSample(withSample(withDictionary(newWatch("web-1", true), dictionaryOf(values)), before), now);
}

describe("figures", () => {
  test("shares and rates between two samples", () => {
    const figures = figuresOf(watching(machine))!;
    expect(figures.cpus.map(({ cpu, shares }) => [cpu, busyShare(shares)])).toEqual([
      ["0", 0.5],
      ["1", 0],
    ]);
    expect(figures.cpu).toMatchObject({ user: 0.1875, system: 0.0625 });
    expect(figures).toMatchObject({
      loads: [0.52, 0.4, 0.3],
      memory: { used: 2 * 2 ** 30, total: 8 * 2 ** 30, cached: 2 ** 30 },
      swap: { used: 2 ** 29 },
      uptimeSeconds: 100_002,
      running: 3,
      blocked: null,
      contextSwitches: 1200,
      interrupts: null,
    });
    expect(figures.pressure).toMatchObject([{ resource: "cpu" }, { resource: "io", share: 0 }]);
    expect(figures.pressure[0]!.share).toBeCloseTo(0.05);
    expect(figures.disks[1]).toEqual({
      device: "nvme0n1",
      readBytes: 2 * 1024 * 1024,
      writtenBytes: 1024 * 1024,
      operations: 20,
      busy: 0.5,
    });
    expect(figures.networks[1]).toEqual({
      device: "eth0",
      receivedBytes: 1500,
      transmittedBytes: 512,
      receivedPackets: 100,
      transmittedPackets: 0,
      lost: 3,
    });
  });

  test("one sample gives levels and no rates; a counter that falls, or a repeated sample, no negative rate", () => {
    const [before, now] = samplesOf(machine);
    const one = withSample(withDictionary(newWatch("web-1", false), dictionaryOf(machine)), before);
    expect(figuresOf(one)).toMatchObject({
      loads: [0.1, 0.1, 0.1],
      cpu: null,
      cpus: [],
      disks: [],
      networks: [],
      pressure: [],
      contextSwitches: null,
    });
    const back = figuresOf(
      withSample(withSample(one, { ...now, at: startMs + 1 }), { ...before, at: startMs + 2 }),
    )!;
    expect([back.contextSwitches, back.forks, ...back.disks.map((disk) => disk.readBytes)]).toEqual([
      0, 0, 0, 0,
    ]);
    expect(figuresOf(withSample(one, before))!.contextSwitches).toBeNull();
  });

  test("nothing before the first sample, and nothing of the old dictionary after a new one", () => {
    expect(figuresOf(newWatch("web-1", true))).toBeNull();
    expect(figuresOf(withDictionary(watching(machine), dictionaryOf(machine)))).toBeNull();
    expect(figuresOf(watching([]))).toMatchObject({ loads: [], memory: null, swap: null, cpus: [] });
  });
});

describe("lines", () => {
  test("a page for a usual terminal", () => {
    expect(renderWatch(watching(machine), 100, 24)).toEqual(
      [
        "bedplate  web-1   2026-11-19 14:53:22Z   up 1 d 3 h",
        "cpu       [##########..............................]  25%   user 19%  system 6%  irq 0%  steal 0%  iowait 0%",
        "memory    [##########..............................]  25%   2 GiB of 8 GiB, cached 1 GiB",
        "swap      [####################....................]  50%   512 MiB of 1 GiB",
        "load      0.52  0.40  0.30",
        "pressure  cpu 5.0%  io 0.0%",
        "tasks     3 running  0.5 forks/s  1.2k switches/s",
        "",
        "0 [#######......]  50%  1 [.............]   0%",
        "",
        "DISK        READ  WRITTEN  OPERATIONS  BUSY",
        "sda        0 B/s  1 MiB/s        20/s   50%",
        "nvme0n1  2 MiB/s  1 MiB/s        20/s   50%",
        "",
        "INTERFACE    RECEIVED  TRANSMITTED  PACKETS  LOST",
        "eth0       1.46 KiB/s      512 B/s    100/0   3/s",
        "lo              0 B/s      512 B/s    100/0   3/s",
        ...Array(6).fill(""),
        "q quits",
      ].map((line) => (line as string).slice(0, 100).trimEnd()),
    );
  });

  test("says what it waits for, and that samples stay away", () => {
    expect(renderWatch(newWatch("web-1", true), 80, 5)).toEqual([
      "bedplate  web-1",
      "",
      "Waiting for the first sample.",
      "",
      "q quits",
    ]);
    expect(renderWatch(newWatch("web-1", false), 80, 5)[2]).toContain("offline");
    expect(renderWatch({ ...watching(machine), quietSeconds: 4.2 }, 100, 5)[0]).toContain(
      "NO SAMPLE FOR 4 s",
    );
    expect(renderWatch({ ...watching(machine), quietSeconds: 2 }, 100, 5)[0]).not.toContain("NO SAMPLE");
  });

  test("a large machine keeps disks and interfaces in sight, and says how much more there is", () => {
    const large = [
      ...machine,
      ...Array.from({ length: 254 }, (_, k) => cpuOf(`${k + 2}`, 1)).flat(),
      ...Array.from({ length: 60 }, (_, k) => diskOf(`sd${k}x`, k)).flat(),
      ...Array.from({ length: 40 }, (_, k) => interfaceOf(`veth${k}x`, k)).flat(),
    ];
    const lines = renderWatch(watching(large), 80, 40);
    expect(lines).toHaveLength(40);
    expect(lines.filter((line) => line.startsWith("… and ")).map((line) => line.replace(/\d+/, "N"))).toEqual(
      ["… and N more rows of processors", "… and N more disks", "… and N more interfaces"],
    );
    expect(lines.some((line) => line.startsWith("eth0"))).toBe(true);
  });

  test("whatever the size and the names, no line is too long, none too many, and no character moves the cursor", () => {
    const hostile = fc.oneof(
      fc.string({ maxLength: 40, unit: "binary" }),
      fc.constantFrom("\u001b[2J", "a\r\nb", "名前", "\u202eabc"),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 200 }),
        fc.integer({ min: 0, max: 60 }),
        hostile,
        fc.float(),
        (width, height, name, value) => {
          const values = [
            ...machine,
            ...diskOf(name, value),
            ...interfaceOf(name, value),
            ...cpuOf(name, value),
          ];
          const lines = renderWatch({ ...watching(values), host: name }, width, height);
          expect(lines.length).toBeLessThanOrEqual(height);
          for (const line of lines) expect(line).toMatch(/^[ -~…·]*$/u);
          for (const line of lines) expect(line.length).toBeLessThanOrEqual(width);
        },
      ),
    );
  });
});

describe("watchHost", () => {
  const [before, now] = samplesOf(machine);
  const stream: readonly LiveEvent[] = [
    { type: "dictionary", dictionary: dictionaryOf(machine) },
    { type: "sample", sample: before },
    { type: "sample", sample: now },
  ];
  /** Gives its events, then waits for the signal as the real one does. */
  const clientOf = (after: "end" | "wait" | Error) => ({
    host: async () => ({ id: "h", name: "web-1", connection: "online" }),
    async *live(_: string, signal?: AbortSignal): AsyncGenerator<LiveEvent> {
      yield* stream;
      if (after === "end") return;
      if (after instanceof Error) throw after;
      await new Promise((_, reject) => signal!.addEventListener("abort", () => reject(signal!.reason)));
    },
  });
  const terminalOf = (fancy: boolean, json = false) => {
    const printed: string[] = [];
    const documents: unknown[] = [];
    const terminal: Terminal = {
      json,
      fancy,
      interactive: false,
      columns: 80,
      print: (text) => printed.push(text),
      note: () => {},
      document: (value) => documents.push(value),
      status: () => {},
      fail: () => {},
    };
    return { terminal, printed, documents };
  };
  const streamsOf = () => {
    const output = Object.assign(new EventEmitter(), {
      columns: 80,
      rows: 24,
      text: "",
      write(text: string) {
        this.text += text;
      },
    });
    const input = Object.assign(new EventEmitter(), {
      isTTY: true,
      raw: [] as boolean[],
      setRawMode(raw: boolean) {
        this.raw.push(raw);
      },
      resume() {},
      pause() {},
    });
    return { output, input } satisfies ScreenStreams;
  };
  const enter = "\u001b[?1049h\u001b[?25l";
  const leave = "\u001b[?25h\u001b[?1049l";
  const never = new AbortController().signal;

  test("without a terminal: a line for each sample that has one before it", async () => {
    const { terminal, printed, documents } = terminalOf(false);
    await watchHost({ client: clientOf("end"), terminal, signal: never, reference: "web-1" });
    expect(printed).toEqual([expect.stringMatching(/^2026-11-19 14:53:22Z {3}cpu {2}25%/)]);
    expect(documents).toMatchObject([{ host: "web-1", at: now.at, contextSwitches: 1200 }]);
  });

  test.each(["q", "\u0003", "\u001b"])("on a terminal: drawn, and given back after %j", async (key) => {
    const streams = streamsOf();
    const watching = watchHost({
      client: clientOf("wait"),
      terminal: terminalOf(true).terminal,
      signal: never,
      reference: "web-1",
      streams,
    });
    await expect.poll(() => streams.output.text).toContain("nvme0n1");
    streams.input.emit("data", Buffer.from("\u001b[A"));
    streams.input.emit("data", Buffer.from(key));
    await watching;
    expect(streams.output.text.startsWith(enter)).toBe(true);
    expect(streams.output.text.endsWith(leave)).toBe(true);
    expect(streams.input.raw).toEqual([true, false]);
    expect(streams.output.listenerCount("resize") + streams.input.listenerCount("data")).toBe(0);
  });

  test("the signal ends it without an error; a broken stream is one, after the terminal is given back", async () => {
    const stop = new AbortController();
    const streams = streamsOf();
    const watching = watchHost({
      client: clientOf("wait"),
      terminal: terminalOf(true).terminal,
      signal: stop.signal,
      reference: "web-1",
      streams,
    });
    await expect.poll(() => streams.output.text).toContain("nvme0n1");
    stop.abort();
    await watching;
    const others = streamsOf();
    const broken = watchHost({
      client: clientOf(new Error("broken")),
      terminal: terminalOf(true).terminal,
      signal: never,
      reference: "web-1",
      streams: others,
    });
    await expect(broken).rejects.toThrow("broken");
    expect(others.output.text.endsWith(leave)).toBe(true);
  });
});
