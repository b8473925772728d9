// Each collector: a pasted sample, what it must say, and garbage.
import fc from "fast-check";
import { Value } from "typebox/value";
import { beforeAll, describe, expect, test } from "vitest";
import { cpu } from "../../agent/telemetry/collectors/cpu.ts";
import { disks } from "../../agent/telemetry/collectors/disks.ts";
import { collectors } from "../../agent/telemetry/collectors/index.ts";
import { load } from "../../agent/telemetry/collectors/load.ts";
import { memory } from "../../agent/telemetry/collectors/memory.ts";
import { network } from "../../agent/telemetry/collectors/network.ts";
import { pressures } from "../../agent/telemetry/collectors/pressure.ts";
import { uname } from "../../agent/telemetry/collectors/uname.ts";
import { vmstat } from "../../agent/telemetry/collectors/vmstat.ts";
import { createMeter, type Meter } from "../../assembly/index.ts";
import { Series } from "../../protocol/messages.ts";
import { readingsOf } from "./support.ts";

let meter: Meter;
beforeAll(async () => {
  meter = await createMeter();
});

const samples = {
  stat: `cpu  5882 0 3857 320782 445 0 47 11 0 0
cpu0 2494 1 1606 161284 26 2 13 4 7 3
cpu17 3387 0 2250 159497 418 0 33 6 0 0
intr 372726 0 5 0 1 1 15
ctxt 842949
btime 1795319007
processes 6766
procs_running 2
procs_blocked 1
softirq 186997 0 23251 4 8042
`,
  meminfo: `MemTotal:       24684084 kB
Active(anon):       1552 kB
Committed_AS:      92684 kB
HugePages_Total:       3
Hugepagesize:       2048 kB
DirectMap4k:       28672 kB
`,
  loadavg: "0.18 10.23 0.12 3/99 6763\n",
  diskstats: `   7       0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17
   8       0 sda 80231 27583 4594570 18524 6786 28880 1991880 5665 2 6720 24413 3509 58 63696 202 551 21
   8       1 sda1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17
 259       0 nvme0n1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
 259       1 nvme0n1p1 1 2 3 4 5 6 7 8 9 10 11
   1       0 ram0 1 2 3 4 5 6 7 8 9 10 11
 253       0 zram0 1 2 3 4 5 6 7 8 9 10 11
 252       0 dm-0 1 2 3 4 5 6 7 8 9 10 11
`,
  dev: `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
enp1s0f0:273508016    7503    1    2    3     4          5         6   508390    4455    7    8    9    10      11         12
eth0.100: 18446744073709551615 2 0 0 0 0 0 0 1 1 0 0 0 0 0 0
`,
  pressure: `some avg10=0.30 avg60=1.65 avg300=2.47 total=25601456
full avg10=0.00 avg60=0.00 avg300=0.00 total=123
`,
  vmstat: `nr_free_pages 5996279
pgpgin 2297285
pgpgout 995940
pswpin 1
pswpout 2
pgfault 3264542
pgmajfault 612
pgalloc_normal 99
thp_fault_alloc 4
oom_kill 0
`,
} as const;

describe("a pasted sample", () => {
  test("/proc/stat: processors by mode in seconds, guests, and only the total of the interrupts", () => {
    const readings = readingsOf(cpu, samples.stat, meter);
    expect(readings).toMatchObject({
      'node_cpu_seconds_total{cpu="0",mode="user"}': 24.94,
      'node_cpu_seconds_total{cpu="0",mode="nice"}': 0.01,
      'node_cpu_seconds_total{cpu="0",mode="idle"}': 1612.84,
      'node_cpu_seconds_total{cpu="0",mode="irq"}': 0.02,
      'node_cpu_seconds_total{cpu="17",mode="steal"}': 0.06,
      'node_cpu_guest_seconds_total{cpu="0",mode="user"}': 0.07,
      'node_cpu_guest_seconds_total{cpu="0",mode="nice"}': 0.03,
      node_intr_total: 372_726,
      node_context_switches_total: 842_949,
      node_boot_time_seconds: 1_795_319_007,
      node_forks_total: 6766,
      node_procs_running: 2,
      node_procs_blocked: 1,
    });
    expect(Object.keys(readings)).toHaveLength(2 * 10 + 6);
  });

  test("/proc/meminfo: bytes where it says kB, counts where it does not", () => {
    expect(readingsOf(memory, samples.meminfo, meter)).toEqual({
      node_memory_MemTotal_bytes: 24_684_084 * 1024,
      node_memory_Active_anon_bytes: 1552 * 1024,
      node_memory_Committed_AS_bytes: 92_684 * 1024,
      node_memory_HugePages_Total: 3,
      node_memory_Hugepagesize_bytes: 2048 * 1024,
      node_memory_DirectMap4k_bytes: 28_672 * 1024,
    });
  });

  test("/proc/loadavg", () => {
    expect(readingsOf(load, samples.loadavg, meter)).toEqual({
      node_load1: 0.18,
      node_load5: 10.23,
      node_load15: 0.12,
    });
  });

  test("/proc/diskstats: whole disks only, as many columns as the kernel has", () => {
    const readings = readingsOf(disks, samples.diskstats, meter);
    const devices = new Set(Object.keys(readings).map((key) => /device="([^"]*)"/.exec(key)?.[1]));
    expect([...devices]).toEqual(["sda", "nvme0n1", "dm-0"]);
    expect(readings).toMatchObject({
      'node_disk_reads_completed_total{device="sda"}': 80_231,
      'node_disk_read_bytes_total{device="sda"}': 4_594_570 * 512,
      'node_disk_read_time_seconds_total{device="sda"}': 18.524,
      'node_disk_written_bytes_total{device="sda"}': 1_991_880 * 512,
      'node_disk_io_now{device="sda"}': 2,
      'node_disk_io_time_seconds_total{device="sda"}': 6.72,
      'node_disk_io_time_weighted_seconds_total{device="sda"}': 24.413,
      'node_disk_discarded_sectors_total{device="sda"}': 63_696,
      'node_disk_flush_requests_time_seconds_total{device="sda"}': 0.021,
    });
    const columnsOf = (device: string) =>
      Object.keys(readings).filter((key) => key.includes(`"${device}"`)).length;
    expect([columnsOf("sda"), columnsOf("nvme0n1"), columnsOf("dm-0")]).toEqual([17, 15, 11]);
  });

  test("/proc/net/dev: every interface, also where no space follows the name, and 64-bit counters", () => {
    const readings = readingsOf(network, samples.dev, meter);
    expect(Object.keys(readings)).toHaveLength(3 * 16);
    expect(readings).toMatchObject({
      'node_network_receive_bytes_total{device="lo"}': 3193,
      'node_network_receive_bytes_total{device="enp1s0f0"}': 273_508_016,
      'node_network_receive_multicast_total{device="enp1s0f0"}': 6,
      'node_network_transmit_bytes_total{device="enp1s0f0"}': 508_390,
      'node_network_transmit_colls_total{device="enp1s0f0"}': 10,
      'node_network_transmit_carrier_total{device="enp1s0f0"}': 11,
      'node_network_transmit_compressed_total{device="enp1s0f0"}': 12,
      'node_network_receive_bytes_total{device="eth0.100"}': 2 ** 64,
    });
  });

  test("/proc/pressure: microseconds of total, and no `full` for the cpu", () => {
    const of = (name: string) => readingsOf(pressures.find((p) => p.name === name)!, samples.pressure, meter);
    expect(of("pressure-cpu")).toEqual({ node_pressure_cpu_waiting_seconds_total: 25.601456 });
    expect(of("pressure-io")).toEqual({
      node_pressure_io_waiting_seconds_total: 25.601456,
      node_pressure_io_stalled_seconds_total: 0.000123,
    });
    expect(of("pressure-memory")).toEqual({
      node_pressure_memory_waiting_seconds_total: 25.601456,
      node_pressure_memory_stalled_seconds_total: 0.000123,
    });
    expect(of("pressure-irq")).toEqual({ node_pressure_irq_stalled_seconds_total: 0.000123 });
  });

  test("/proc/vmstat: node_exporter's default choice", () => {
    expect(readingsOf(vmstat, samples.vmstat, meter)).toEqual({
      node_vmstat_pgpgin: 2_297_285,
      node_vmstat_pgpgout: 995_940,
      node_vmstat_pswpin: 1,
      node_vmstat_pswpout: 2,
      node_vmstat_pgfault: 3_264_542,
      node_vmstat_pgmajfault: 612,
      node_vmstat_oom_kill: 0,
    });
  });

  test("uname: six labels; the machine from node where the kernel has no file for it; nothing without a release", () => {
    const texts = new Map([
      ["sys/kernel/ostype", "Linux\n"],
      ["sys/kernel/osrelease", "6.1.0-40-amd64\n"],
      ["sys/kernel/version", "#1 SMP\n"],
      ["sys/kernel/hostname", "web-1\n"],
      ["sys/kernel/domainname", "(none)\n"],
      ["sys/kernel/arch", "aarch64\n"],
    ]);
    const [constant] = uname.constants(texts);
    expect(constant).toMatchObject({
      value: 1n,
      series: {
        name: "node_uname_info",
        type: "gauge",
        labels: {
          domainname: "(none)",
          machine: "aarch64",
          nodename: "web-1",
          release: "6.1.0-40-amd64",
          sysname: "Linux",
          version: "#1 SMP",
        },
      },
    });
    texts.delete("sys/kernel/arch");
    expect(uname.constants(texts)[0]!.series.labels.machine).toMatch(/^\w+$/);
    texts.delete("sys/kernel/osrelease");
    expect(uname.constants(texts)).toEqual([]);
    expect(uname.constants(new Map())).toEqual([]);
  });
});

describe("what could be taken for something else", () => {
  test("an interface or disk whose name is a number has no series: it could change without the shape changing", () => {
    expect(readingsOf(network, "  42: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", meter)).toEqual({});
    expect(readingsOf(network, "  42: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n", meter)).toEqual({});
    expect(readingsOf(network, "  a,1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", meter)).toEqual({});
    expect(readingsOf(disks, "  8 0 7 1 2 3 4 5 6 7 8 9 10 11\n", meter)).toEqual({});
  });

  test("names of JavaScript's own are names like others", () => {
    expect(readingsOf(cpu, "constructor 1\n__proto__ 2\n", meter)).toEqual({});
  });

  test("a value with decimals keeps its size", () => {
    expect(readingsOf(cpu, "ctxt 12.5\ncpu0 1.5 0 0 0 0 0 0 0\n", meter)).toMatchObject({
      node_context_switches_total: 12.5,
      'node_cpu_seconds_total{cpu="0",mode="user"}': 0.015,
    });
  });
});

describe("garbage", () => {
  const files = collectors.filter((collector) => "file" in collector);
  const texts = Object.values(samples);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const bytesOf = (text: string) => new TextEncoder().encode(text);

  const damaged = fc
    .record({
      text: fc.constantFrom(...texts),
      cuts: fc.array(
        fc.record({ at: fc.nat(1200), length: fc.nat(30), put: fc.uint8Array({ maxLength: 8 }) }),
        { maxLength: 6 },
      ),
    })
    .map(({ text, cuts }) => {
      let bytes = [...bytesOf(text)];
      for (const { at, length, put } of cuts)
        bytes = [...bytes.slice(0, at), ...put, ...bytes.slice(at + length)];
      return Uint8Array.from(bytes);
    });

  test.each(files)(
    "$name describes exactly the numbers that the meter finds, with valid series only",
    (collector) => {
      const hostile = fc.oneof(
        damaged,
        fc.uint8Array({ maxLength: 300 }),
        fc.constantFrom(...["", "\n", "\ufeff1 2", "cpu", "cpu0", ":", "- . -1 1. .5 1.2.3"].map(bytesOf)),
      );
      fc.assert(
        fc.property(hostile, (bytes) => {
          meter.input.set(bytes);
          const { count } = meter.scan(bytes.length);
          const described = collector.describe(decoder.decode(bytes));
          expect(described).toHaveLength(count);
          for (const series of described) if (series !== null) expect(Value.Check(Series, series)).toBe(true);
        }),
        { numRuns: 400 },
      );
    },
  );

  test("texts of another file give no series", () => {
    for (const text of [samples.meminfo, samples.dev, "hello\n", "1 2 3\n"])
      expect(readingsOf(cpu, text, meter)).toEqual({});
    for (const text of [samples.stat, samples.pressure, samples.diskstats])
      expect(readingsOf(memory, text, meter)).toEqual({});
    expect(readingsOf(disks, samples.stat, meter)).toEqual({});
    expect(readingsOf(network, samples.diskstats, meter)).toEqual({});
  });
});
