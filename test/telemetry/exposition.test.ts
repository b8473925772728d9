// The text of host families: format, escapes, numbers as Go prints them.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { createExposition, numberText } from "../../agent/telemetry/exposition.ts";
import { readingValue } from "../../protocol/readings.ts";
import { fixture, samplingOf } from "./support.ts";
import { type Family, parseTextFormat } from "./text-format.ts";

const has = (program: string) => spawnSync(program, ["--version"]).status === 0;

async function fixturePage(): Promise<string> {
  using bench = await samplingOf(fixture);
  const { series } = bench.pass().dictionary!;
  return createExposition(series).write(series.map((one, k) => readingValue(bench.receiver.raw[k]!, one)));
}

test("families stand together with help and type once, in the order of their first series", () => {
  const series = [
    { name: "a_total", labels: { x: "1" }, type: "counter", scale: 1, help: "A." },
    { name: "b", labels: {}, type: "gauge", scale: 1 },
    { name: "a_total", labels: { x: "2", y: "3" }, type: "counter", scale: 1 },
    { name: "c", labels: {}, type: "counter", scale: 1, help: "C." },
  ] as const;
  expect(createExposition(series).write([1, 2, 3, 4])).toBe(`# HELP a_total A.
# TYPE a_total counter
a_total{x="1"} 1
a_total{x="2",y="3"} 3
# TYPE b gauge
b 2
# HELP c C.
# TYPE c untyped
c 4
`);
  expect(createExposition([]).write([])).toBe("");
});

test("backslashes, quotes and line ends are escaped", () => {
  const hostile = 'a"b\\c\nd';
  const text = createExposition([
    { name: "x", labels: { l: hostile }, type: "gauge", scale: 1, help: hostile },
  ]).write([1]);
  expect(text).toBe('# HELP x a"b\\\\c\\nd\n# TYPE x gauge\nx{l="a\\"b\\\\c\\nd"} 1\n');
  expect(parseTextFormat(text).get("x")!.samples.size).toBe(1);
});

test("numbers are printed as Go's strconv does with 'g' and the shortest precision", () => {
  const cases: [number, string][] = [
    [0, "0"],
    [-0, "0"],
    [1, "1"],
    [-1.5, "-1.5"],
    [372_726, "372726"],
    [999_999, "999999"],
    [1e6, "1e+06"],
    [1_308_481, "1.308481e+06"],
    [1_795_319_007, "1.795319007e+09"],
    [2.5276502016e10, "2.5276502016e+10"],
    [2193.61, "2193.61"],
    [0.353, "0.353"],
    [0.0001, "0.0001"],
    [0.00005, "5e-05"],
    [1.5e-7, "1.5e-07"],
    [2 ** 64, "1.8446744073709552e+19"],
    [1e100, "1e+100"],
    [1234567.5, "1.2345675e+06"],
    [Number.NaN, "NaN"],
    [Infinity, "+Inf"],
    [-Infinity, "-Inf"],
  ];
  for (const [value, text] of cases) expect(numberText(value)).toBe(text);
});

test("the captured tree's page is strict text format", async () => {
  const families = parseTextFormat(await fixturePage());
  expect(families.get("node_memory_MemTotal_bytes")).toMatchObject({ type: "gauge" });
  expect(families.get("node_vmstat_pgfault")).toMatchObject({ type: "untyped" });
  expect(families.get("node_cpu_seconds_total")!.samples.size).toBe(16);
  expect([...families.values()].every(({ help }) => help !== undefined)).toBe(true);
});

test("the strict reader refuses what is not the format", () => {
  const head = "# TYPE a gauge\n";
  const bad = [
    "a 1\n",
    `${head}a 1`,
    `${head}a 1\na 1\n`,
    `${head}a{x=1} 1\n`,
    `${head}a 1,5\n`,
    `${head}a 1\n# TYPE b gauge\nb 1\n${head}a{x="1"} 2\n`,
    `${head}a{x="\\q"} 1\n`,
    `${head}a 1 \n`,
    "# TYPE a thing\na 1\n",
  ];
  for (const text of bad) expect(() => parseTextFormat(text), text).toThrow();
});

describe("beside Prometheus' own programs", () => {
  test.skipIf(!has("promtool"))(
    "promtool has no remark but on the spelling of node_exporter's memory names",
    async () => {
      const { stdout, stderr, status } = spawnSync("promtool", ["check", "metrics"], {
        input: await fixturePage(),
        encoding: "utf8",
      });
      const remarks = `${stdout}${stderr}`
        .trim()
        .split("\n")
        .filter((line) => line !== "");
      // 3: it could be read and has remarks on style; 1 would be unreadable.
      expect([0, 3]).toContain(status);
      expect(remarks.filter((line) => !/^node_memory_\w+ .*camelCase/.test(line))).toEqual([]);
    },
  );

  test.skipIf(!has("prometheus-node-exporter"))(
    "node_exporter on the same captured tree says the same, to fifteen digits",
    async () => {
      const theirs = parseTextFormat(await nodeExporterPage());
      const ours = parseTextFormat(await fixturePage());
      const compared: string[] = [];
      for (const [name, family] of theirs) {
        // From elsewhere than /proc: identity of disks, this machine's uname.
        if (!name.startsWith("node_") || /^node_(disk_info|exporter|scrape|uname|disk_.*_info)/.test(name))
          continue;
        const own = ours.get(name);
        expect(own, name).toBeDefined();
        expect({ help: own!.help, type: own!.type }, name).toEqual({ help: family.help, type: family.type });
        // Newer versions leave zram out.
        const without = ({ samples }: Family) =>
          Object.fromEntries([...samples].filter(([key]) => !key.includes('"zram')));
        // It divides microseconds by a thousand twice, and so errs in the last bit.
        const rounded = (samples: Record<string, number>) =>
          Object.entries(samples)
            .toSorted(([a], [b]) => (a < b ? -1 : 1))
            .map(([key, value]) => [key, value.toPrecision(15)]);
        expect(rounded(Object.fromEntries(own!.samples)), name).toEqual(rounded(without(family)));
        compared.push(name);
      }
      expect(compared.length).toBeGreaterThan(90);
      const more = [...ours.keys()].filter((name) => !theirs.has(name));
      expect(more).toEqual([]);
    },
  );
});

async function nodeExporterPage(): Promise<string> {
  const port = 20_000 + (process.pid % 20_000);
  const names = ["cpu", "stat", "meminfo", "loadavg", "diskstats", "netdev", "pressure", "vmstat", "uname"];
  const help = execFileSync("prometheus-node-exporter", ["--help"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  const child = spawn(
    "prometheus-node-exporter",
    [
      `--web.listen-address=127.0.0.1:${port}`,
      `--path.procfs=${fixture}`,
      "--collector.disable-defaults",
      "--web.disable-exporter-metrics",
      ...names.map((name) => `--collector.${name}`),
      // Debian's default leaves the loopback interface out.
      "--collector.netdev.device-exclude=^$",
      ...(help.includes("netdev.netlink") ? ["--no-collector.netdev.netlink"] : []),
    ],
    { stdio: "ignore" },
  );
  try {
    for (let attempt = 0; ; attempt++) {
      try {
        return await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
      } catch (error) {
        if (attempt === 50) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  } finally {
    child.kill("SIGKILL");
  }
}
