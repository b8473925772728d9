// A captured machine, end to end: dictionary and values as they were checked once, and by a plain parse each time.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readingValue } from "../../protocol/readings.ts";
import { fixture, keyOf, samplingOf } from "./support.ts";

const text = (file: string) => readFileSync(join(fixture, file), "utf8");
const lines = (file: string) =>
  text(file)
    .trimEnd()
    .split("\n")
    .map((line) => line.trim().split(/\s+/));

test("the captured tree gives the golden dictionary and values", async () => {
  using bench = await samplingOf(fixture);
  const { dictionary } = bench.pass();
  const golden = dictionary!.series.map((series, k) => ({
    ...series,
    raw: String(bench.receiver.raw[k]),
    value: readingValue(bench.receiver.raw[k]!, series),
  }));
  await expect(
    `${JSON.stringify({ id: dictionary!.id, series: golden }, undefined, 1)}\n`,
  ).toMatchFileSnapshot("../golden/proc-vm.json");
});

test("a plain parse of the same files gives the same values, all of them", async () => {
  const expected: Record<string, number> = {};
  const put = (name: string, labels: Record<string, string>, value: number) => {
    expected[keyOf({ name, labels })] = value;
  };
  for (const [name, ...columns] of lines("stat")) {
    const processor = /^cpu(\d+)$/.exec(name!)?.[1];
    if (processor !== undefined) {
      const modes = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
      for (const [k, mode] of modes.entries())
        put("node_cpu_seconds_total", { cpu: processor, mode }, Number(columns[k]) / 100);
      for (const [k, mode] of ["user", "nice"].entries())
        put("node_cpu_guest_seconds_total", { cpu: processor, mode }, Number(columns[8 + k]) / 100);
    }
  }
  const single = {
    intr: "node_intr_total",
    ctxt: "node_context_switches_total",
    btime: "node_boot_time_seconds",
    processes: "node_forks_total",
    procs_running: "node_procs_running",
    procs_blocked: "node_procs_blocked",
  };
  for (const [word, name] of Object.entries(single))
    put(name, {}, Number(new RegExp(`^${word} (\\d+)`, "m").exec(text("stat"))![1]));
  for (const [key, value, unit] of lines("meminfo")) {
    const name = key!.replace(":", "").replace("(", "_").replace(")", "");
    put(
      `node_memory_${name}${unit === "kB" ? "_bytes" : ""}`,
      {},
      Number(value) * (unit === "kB" ? 1024 : 1),
    );
  }
  const [loads] = lines("loadavg");
  for (const [k, minutes] of [1, 5, 15].entries()) put(`node_load${minutes}`, {}, Number(loads![k]));
  for (const [, , device, ...n] of lines("diskstats").filter(
    ([, , device]) => !/^(loop|zram)/.test(device!),
  )) {
    const names =
      "reads_completed_total reads_merged_total read_bytes_total read_time_seconds_total writes_completed_total writes_merged_total written_bytes_total write_time_seconds_total io_now io_time_seconds_total io_time_weighted_seconds_total discards_completed_total discards_merged_total discarded_sectors_total discard_time_seconds_total flush_requests_total flush_requests_time_seconds_total".split(
        " ",
      );
    names.forEach((name, k) => {
      const factor = name.includes("bytes") ? 512 : 1;
      put(
        `node_disk_${name}`,
        { device: device! },
        name.includes("seconds") ? Number(n[k]) / 1000 : Number(n[k]) * factor,
      );
    });
  }
  for (const line of text("net/dev").trimEnd().split("\n").slice(2)) {
    const [device, rest] = line.trim().split(":") as [string, string];
    const n = rest.trim().split(/\s+/).map(Number);
    for (const [k, key] of "bytes packets errs drop fifo frame compressed multicast".split(" ").entries())
      put(`node_network_receive_${key}_total`, { device }, n[k]!);
    for (const [k, key] of "bytes packets errs drop fifo colls carrier compressed".split(" ").entries())
      put(`node_network_transmit_${key}_total`, { device }, n[8 + k]!);
  }
  const pressure = (file: string, kind: string) =>
    Number(new RegExp(`^${kind} .*total=(\\d+)`, "m").exec(text(`pressure/${file}`))![1]) / 1e6;
  put("node_pressure_cpu_waiting_seconds_total", {}, pressure("cpu", "some"));
  for (const resource of ["io", "memory"]) {
    put(`node_pressure_${resource}_waiting_seconds_total`, {}, pressure(resource, "some"));
    put(`node_pressure_${resource}_stalled_seconds_total`, {}, pressure(resource, "full"));
  }
  for (const [key, value] of lines("vmstat"))
    if (/^(oom_kill|pgpg|pswp|pg.*fault)/.test(key!)) put(`node_vmstat_${key}`, {}, Number(value));
  const kernel = (file: string) => text(`sys/kernel/${file}`).trim();
  put(
    "node_uname_info",
    {
      domainname: kernel("domainname"),
      machine: kernel("arch"),
      nodename: kernel("hostname"),
      release: kernel("osrelease"),
      sysname: kernel("ostype"),
      version: kernel("version"),
    },
    1,
  );

  using bench = await samplingOf(fixture);
  bench.pass();
  expect(bench.receiver.values()).toEqual(expected);
  expect(Object.keys(expected).length).toBeGreaterThan(150);
});
