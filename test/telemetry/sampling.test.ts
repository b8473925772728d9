// A pass over a tree of files: dictionary, frames, changes of shape, lost files, bounds.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, symlinkSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { KernelFiles } from "../../agent/host/kernel-files.ts";
import { kernelFilesUnder, readWhole } from "../../agent/host/kernel-files.ts";
import { encodeFrame } from "../../protocol/frames.ts";
import { limits } from "../../protocol/limits.ts";
import { checkAgentMessage } from "../../protocol/messages.ts";
import { fixture, samplingOf, temporaryTree } from "./support.ts";

const interfaceLine = (name: string, value: number) => `${name.padStart(6)}: ${value} ${"1 ".repeat(14)}2\n`;
const header = "Inter-|   Receive  |  Transmit\n face |bytes packets |bytes packets\n";

describe("frames", () => {
  test("the first is a key frame with its dictionary; then differences alone; then a key frame when due or asked for", async () => {
    using tree = temporaryTree({ loadavg: "0.10 0.20 0.30 1/2 3\n" });
    using bench = await samplingOf(tree.root, { keyEvery: 4 });
    const passes = [bench.pass()];
    expect(passes[0]).toMatchObject({ key: true, dictionary: { id: passes[0]!.dictionaryId } });
    expect(bench.receiver.values()).toEqual({ node_load1: 0.1, node_load5: 0.2, node_load15: 0.3 });
    tree.write("loadavg", "9.99 0.20 0.30 1/2 3\n");
    for (let k = 0; k < 5; k++) passes.push(bench.pass());
    expect(passes.map((pass) => pass.key)).toEqual([true, false, false, false, true, false]);
    expect(passes.slice(1).every((pass) => pass.dictionary === undefined)).toBe(true);
    // One difference: a byte of bitmap, two of varint. Nothing changed: the bitmap.
    expect(passes.slice(1, 4).map((pass) => pass.data.length)).toEqual([3, 1, 1]);
    expect(bench.receiver.values()).toEqual({ node_load1: 9.99, node_load5: 0.2, node_load15: 0.3 });
    bench.sampling.requestKey();
    expect(bench.pass().key).toBe(true);
    expect(bench.pass().key).toBe(false);
  });

  test("load averages stay though the numbers of tasks beside them change at every read", async () => {
    using tree = temporaryTree({ loadavg: "0.10 0.20 0.30 1/157 9000\n" });
    const under = kernelFilesUnder(tree.root);
    let reads = 0;
    const files: KernelFiles = {
      open(path) {
        const file = under.open(path);
        const read = (into: Parameters<typeof file.read>[0]) => {
          if (path === "loadavg") tree.write(path, `0.10 0.20 0.30 ${++reads}/${157 + reads} 9000\n`);
          return file.read(into);
        };
        return { read, close: () => file.close() };
      },
    };
    using bench = await samplingOf(tree.root, { files });
    for (let k = 0; k < 10; k++) {
      bench.pass();
      expect(bench.receiver.values()).toEqual({ node_load1: 0.1, node_load5: 0.2, node_load15: 0.3 });
    }
    expect(reads).toBeGreaterThanOrEqual(10);
    expect(bench.reports.filter((report) => report.details.file === "loadavg")).toEqual([]);
  });

  test("the same series have the same dictionary id in another run, other series another", async () => {
    using tree = temporaryTree({ loadavg: "0.10 0.20 0.30 1/2 3\n" });
    using other = temporaryTree({ vmstat: "pgfault 7\n" });
    using first = await samplingOf(tree.root);
    using second = await samplingOf(tree.root);
    using third = await samplingOf(other.root);
    const id = first.pass().dictionaryId;
    expect(second.pass().dictionaryId).toBe(id);
    expect(third.pass().dictionaryId).not.toBe(id);
    expect(Number.isSafeInteger(id)).toBe(true);
  });

  test("numbers up to 2^64-1 arrive as they are", async () => {
    using tree = temporaryTree({ vmstat: "pgfault 18446744073709551615\npgmajfault 9007199254740993\n" });
    using bench = await samplingOf(tree.root);
    bench.pass();
    expect([...bench.receiver.raw]).toEqual([18446744073709551615n, 9007199254740993n]);
    tree.write("vmstat", "pgfault 0\npgmajfault 9007199254740992\n");
    bench.pass();
    expect([...bench.receiver.raw]).toEqual([0n, 9007199254740992n]);
  });
});

describe("a change of shape", () => {
  test("an interface more: a new dictionary and a key frame, and every value under its own name", async () => {
    using tree = temporaryTree({
      loadavg: "0.10 0.20 0.30 1/2 3\n",
      "net/dev": header + interfaceLine("lo", 5) + interfaceLine("eth0", 7),
      vmstat: "pgfault 11\n",
    });
    using bench = await samplingOf(tree.root);
    const before = bench.pass();
    expect(before.dictionary!.series).toHaveLength(3 + 32 + 1);
    bench.pass();
    tree.write(
      "net/dev",
      header + interfaceLine("lo", 6) + interfaceLine("dummy0", 100) + interfaceLine("eth0", 8),
    );
    tree.write("vmstat", "pgfault 12\n");
    const after = bench.pass();
    expect(after.key).toBe(true);
    expect(after.dictionary!.id).not.toBe(before.dictionaryId);
    expect(bench.receiver.values()).toMatchObject({
      node_load1: 0.1,
      'node_network_receive_bytes_total{device="lo"}': 6,
      'node_network_receive_bytes_total{device="dummy0"}': 100,
      'node_network_receive_bytes_total{device="eth0"}': 8,
      'node_network_transmit_compressed_total{device="dummy0"}': 2,
      node_vmstat_pgfault: 12,
    });
    expect(bench.pass()).toMatchObject({ key: false, dictionary: undefined });
  });

  test("a change among what is left out anyway (a loop device) makes no new dictionary", async () => {
    const disk = (name: string) => `8 0 ${name} 1 2 3 4 5 6 7 8 9 10 11\n`;
    using tree = temporaryTree({ diskstats: disk("sda") });
    using bench = await samplingOf(tree.root);
    bench.pass();
    tree.write("diskstats", disk("loop0") + disk("sda"));
    expect(bench.pass()).toMatchObject({ key: false, dictionary: undefined });
    expect(bench.receiver.values()['node_disk_read_bytes_total{device="sda"}']).toBe(3 * 512);
  });

  test("a file that has another shape at every read is left out, and the others go on", async () => {
    let reads = 0;
    const restless: KernelFiles = {
      open: (path) => ({
        read(into) {
          const text = path === "vmstat" ? `pgfault 1\n${"x".repeat(++reads)} 1\n` : "0.10 0.20 0.30 1/2 3\n";
          return new TextEncoder().encodeInto(text, into).written;
        },
        close() {},
      }),
    };
    using bench = await samplingOf("", { files: restless });
    bench.pass();
    expect(bench.receiver.values()).toMatchObject({ node_load1: 0.1 });
    expect(bench.receiver.values()).not.toHaveProperty("node_vmstat_pgfault");
    expect(bench.reports.map((report) => report.message).join()).toContain("changes its shape faster");
  });

  test("the host's name changes: seen when constants are read again", async () => {
    using tree = temporaryTree();
    for (const file of ["ostype", "osrelease", "version", "hostname", "domainname", "arch"])
      tree.write(`sys/kernel/${file}`, "old\n");
    using bench = await samplingOf(tree.root, { retryMs: 1000 });
    bench.pass();
    tree.write("sys/kernel/hostname", "new\n");
    expect(bench.pass().dictionary).toBeUndefined();
    bench.clock.nowMs = 1000;
    expect(bench.pass().dictionary!.series[0]!.labels).toMatchObject({ nodename: "new", release: "old" });
    expect([...bench.receiver.raw]).toEqual([1n]);
  });
});

describe("files that cannot be read", () => {
  test("are reported once, their series absent; they are tried again each minute, and back when they are there", async () => {
    using tree = temporaryTree({ loadavg: "0.10 0.20 0.30 1/2 3\n" });
    using bench = await samplingOf(tree.root);
    bench.pass();
    const lost = bench.reports
      .filter((report) => report.level === "warn")
      .map((report) => report.details.file);
    expect(lost).toEqual([
      "stat",
      "meminfo",
      "diskstats",
      "net/dev",
      "pressure/cpu",
      "pressure/io",
      "pressure/memory",
      "vmstat",
    ]);
    expect(bench.reports[0]!.message).toContain("ENOENT");
    tree.write("vmstat", "pgfault 11\n");
    bench.clock.nowMs = 59_999;
    expect(bench.pass().dictionary).toBeUndefined();
    bench.clock.nowMs = 60_000;
    expect(bench.pass().dictionary).toBeDefined();
    expect(bench.receiver.values()).toMatchObject({ node_load1: 0.1, node_vmstat_pgfault: 11 });
    bench.clock.nowMs = 120_000;
    bench.pass();
    expect(bench.reports).toHaveLength(lost.length + 1);
    expect(bench.reports.at(-1)).toMatchObject({ level: "info", details: { file: "vmstat" } });
  });

  test("one that vanishes while it is open (a process' file after its end: ESRCH) takes its own series along only", async () => {
    const child = spawn("sleep", ["60"]);
    await once(child, "spawn");
    using tree = temporaryTree({ loadavg: "0.10 0.20 0.30 1/2 3\n" });
    symlinkSync(`/proc/${child.pid}/stat`, tree.path("vmstat"));
    using bench = await samplingOf(tree.root);
    bench.pass();
    const reported = bench.reports.length;
    child.kill("SIGKILL");
    await once(child, "exit");
    bench.pass();
    bench.pass();
    expect(bench.reports.slice(reported)).toMatchObject([{ level: "warn", details: { file: "vmstat" } }]);
    expect(bench.reports.at(-1)!.message).toContain("ESRCH");
    expect(bench.receiver.values()).toEqual({ node_load1: 0.1, node_load5: 0.2, node_load15: 0.3 });
  });

  test("a file beyond the window, and one that becomes empty", async () => {
    using tree = temporaryTree({
      loadavg: "0.10 0.20 0.30 1/2 3\n",
      vmstat: `pgfault 1\n${"x".repeat(300_000)}`,
    });
    using bench = await samplingOf(tree.root);
    bench.pass();
    expect(
      bench.reports.some(
        (report) => report.details.file === "vmstat" && report.message.includes("bytes or more"),
      ),
    ).toBe(true);
    tree.write("loadavg", "");
    bench.pass();
    expect(bench.receiver.values()).toEqual({});
    tree.write("loadavg", "0.50 0.20 0.30 1/2 3\n");
    bench.pass();
    expect(bench.receiver.values()).toMatchObject({ node_load1: 0.5 });
  });
});

describe("whole files", () => {
  test("are read to the end though each read gives a part", () => {
    const text = new TextEncoder().encode("abcdefghij".repeat(1000));
    const into = new Uint8Array(20_000);
    let calls = 0;
    const read = (offset: number, length: number) => {
      calls++;
      const part = text.subarray(offset, Math.min(offset + 4073, offset + length));
      into.set(part, offset);
      return part.length;
    };
    expect(readWhole("x", into, read)).toBe(10_000);
    expect(calls).toBe(4);
    expect(into.subarray(0, 10_000)).toEqual(text);
    expect(() => readWhole("x", into.subarray(0, 10_000), read)).toThrow(/10000 bytes or more/);
  });

  test("a real file of many records (this process' maps) gives more than one read's four kilobytes", () => {
    const file = kernelFilesUnder("/proc").open("self/maps");
    const into = new Uint8Array(4 << 20);
    const length = file.read(into);
    file.close();
    expect(length).toBeGreaterThan(8192);
    const text = new TextDecoder().decode(into.subarray(0, length));
    expect(text.endsWith("\n")).toBe(true);
    // Whole lines without a seam: address order holds through all of it.
    const starts = text
      .trimEnd()
      .split("\n")
      .map((line) => BigInt(`0x${/^[0-9a-f]+(?=-)/.exec(line)![0]}`));
    for (let k = 1; k < starts.length; k++)
      if (starts[k]! < 1n << 63n) expect(starts[k]! > starts[k - 1]!).toBe(true);
  });

  test("a captured tree with files beyond four kilobytes", async () => {
    const interfaces = Array.from({ length: 100 }, (_, k) => interfaceLine(`veth${k}x`, k));
    using tree = temporaryTree({ "net/dev": header + interfaces.join("") });
    using bench = await samplingOf(tree.root);
    bench.pass();
    expect(readFileSync(tree.path("net/dev")).length).toBeGreaterThan(4096);
    expect(bench.receiver.values()['node_network_receive_bytes_total{device="veth99x"}']).toBe(99);
  });
});

describe("bounds", () => {
  test("beyond the most series the rest is left out and reported once; the dictionary fits a frame", async () => {
    const interfaces = Array.from({ length: 600 }, (_, k) => interfaceLine(`interface${k}x`, k + 1));
    using tree = temporaryTree({
      "net/dev": header + interfaces.join(""),
      loadavg: "0.10 0.20 0.30 1/2 3\n",
    });
    using bench = await samplingOf(tree.root);
    const { dictionary, data } = bench.pass();
    bench.pass();
    expect(dictionary!.series).toHaveLength(limits.seriesMax);
    expect(data.length).toBeLessThanOrEqual(limits.batchBytesMax);
    const message = checkAgentMessage({
      t: "dictionary",
      id: dictionary!.id,
      series: [...dictionary!.series],
    });
    expect(encodeFrame(message).length).toBeLessThanOrEqual(limits.frameBytesMax);
    expect(bench.reports.filter((report) => report.message.includes("do not fit"))).toMatchObject([
      { details: { full: 3 + 600 * 16 - limits.seriesMax } },
    ]);
    expect(bench.receiver.values()['node_network_receive_bytes_total{device="interface500x"}']).toBe(501);
    rmSync(tree.path("net/dev"));
  });

  test("long labels run into the frame's limit before the number of series does", async () => {
    const interfaces = Array.from({ length: 500 }, (_, k) => interfaceLine(`${"n".repeat(200)}${k}x`, k + 1));
    using tree = temporaryTree({ "net/dev": header + interfaces.join("") });
    using bench = await samplingOf(tree.root);
    const { dictionary } = bench.pass();
    const message = checkAgentMessage({
      t: "dictionary",
      id: dictionary!.id,
      series: [...dictionary!.series],
    });
    expect(encodeFrame(message).length).toBeLessThanOrEqual(limits.frameBytesMax);
    expect(dictionary!.series.length).toBeGreaterThan(2000);
  });

  test("a series that stands twice in garbage is taken once", async () => {
    using tree = temporaryTree({ vmstat: "pgfault 1\npgfault 2\n" });
    using bench = await samplingOf(tree.root);
    expect(bench.pass().dictionary!.series).toHaveLength(1);
    expect(bench.receiver.values()).toEqual({ node_vmstat_pgfault: 1 });
    expect(bench.reports.at(-1)!.details).toMatchObject({ duplicate: 1 });
  });

  test("the captured tree gives each series once, with help on the first of its family", async () => {
    using bench = await samplingOf(fixture);
    const { series } = bench.pass().dictionary!;
    const withHelp = series.filter(({ help }) => help !== undefined).map(({ name }) => name);
    expect(withHelp).toEqual([...new Set(series.map(({ name }) => name))]);
  });
});
