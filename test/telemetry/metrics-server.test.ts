// The /metrics page over HTTP.
import { spawnSync } from "node:child_process";
import { request } from "node:http";
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { type MetricsOptions, serveMetrics } from "../../agent/telemetry/metrics-server.ts";
import type { Snapshot } from "../../agent/telemetry/newest-values.ts";
import { parseTextFormat } from "./text-format.ts";

const snapshot: Snapshot = {
  at: 1,
  dictionary: {
    id: 1,
    series: [{ name: "node_load1", labels: {}, type: "gauge", scale: 0.01, help: "1m load average." }],
  },
  values: Float64Array.of(0.18),
};

const options: MetricsOptions = {
  listen: "127.0.0.1:0",
  version: "0.1.0",
  agent: () => ({
    connected: true,
    outboxRecords: 2,
    outboxRecordBytes: 300,
    outboxSampleBytes: 4000,
    droppedSamples: 5,
  }),
  sampler: () => ({ samples: 60, skipped: 1, restarts: 0, passMs: 0.5, series: 177 }),
  snapshot: () => snapshot,
  log: { info() {}, warn() {} },
};

async function withServer(
  use: (base: string) => Promise<void>,
  more: Partial<MetricsOptions> = {},
): Promise<void> {
  const stop = new AbortController();
  const port = Promise.withResolvers<number>();
  const serving = serveMetrics(
    { ...options, ...more, onListening: (address) => port.resolve(address.port) },
    stop.signal,
  );
  try {
    await use(`http://127.0.0.1:${await Promise.race([port.promise, serving.then(() => 0)])}`);
  } finally {
    stop.abort();
    await serving;
  }
}

test("the agent's own metrics, then the host's, strictly in the text format", () =>
  withServer(async (base) => {
    const response = await fetch(`${base}/metrics`);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const families = parseTextFormat(await response.text());
    const value = (name: string) => [...families.get(name)!.samples.values()][0];
    expect(value("bedplate_agent_connected")).toBe(1);
    expect(value("bedplate_agent_outbox_record_bytes")).toBe(300);
    expect(value("bedplate_agent_samples_dropped_total")).toBe(5);
    expect(value("bedplate_agent_sample_duration_seconds")).toBe(0.0005);
    expect(value("node_load1")).toBe(0.18);
    expect(value("process_cpu_seconds_total")).toBeGreaterThan(0);
    expect(value("process_resident_memory_bytes")).toBeGreaterThan(1e6);
    expect(families.get("bedplate_agent_samples_total")).toMatchObject({ type: "counter" });
    expect(value("bedplate_agent_event_loop_delay_max_seconds")).toBeGreaterThanOrEqual(0);
    // A counter that is read, not counted, must not add up over scrapes.
    const again = parseTextFormat(await (await fetch(`${base}/metrics?x=1`)).text());
    expect([...again.get("bedplate_agent_samples_total")!.samples.values()]).toEqual([60]);
  }));

test.skipIf(spawnSync("promtool", ["--version"]).status !== 0)(
  "promtool has no remark on the agent's own metrics",
  () =>
    withServer(async (base) => {
      const input = await (await fetch(`${base}/metrics`)).text();
      const { stdout, stderr, status } = spawnSync("promtool", ["check", "metrics"], {
        input,
        encoding: "utf8",
      });
      expect({ stdout, stderr, status }).toEqual({ stdout: "", stderr: "", status: 0 });
    }),
);

test("before the first sample the page has the agent's own metrics alone", () =>
  withServer(
    async (base) => {
      const families = parseTextFormat(await (await fetch(`${base}/metrics`)).text());
      expect(families.has("bedplate_agent_connected")).toBe(true);
      expect(families.has("node_load1")).toBe(false);
    },
    { snapshot: () => undefined },
  ));

test("another dictionary gives another page", async () => {
  let current = snapshot;
  await withServer(
    async (base) => {
      expect(await (await fetch(`${base}/metrics`)).text()).toContain("\nnode_load1 0.18\n");
      const series = [{ name: "node_load5", labels: {}, type: "gauge", scale: 1 }] as const;
      current = { at: 2, dictionary: { id: 2, series }, values: Float64Array.of(7) };
      const text = await (await fetch(`${base}/metrics`)).text();
      expect(text).toContain("\nnode_load5 7\n");
      expect(text).not.toContain("node_load1");
    },
    { snapshot: () => current },
  );
});

test("other paths, other methods, HEAD, and a page that fails", () =>
  withServer(
    async (base) => {
      expect((await fetch(`${base}/`)).status).toBe(404);
      expect((await fetch(`${base}/metrics`, { method: "POST", body: "x" })).status).toBe(405);
      expect((await fetch(`${base}/metrics`)).status).toBe(500);
      expect((await fetch(`${base}/metrics`, { method: "HEAD" })).status).toBe(500);
    },
    {
      snapshot: () => {
        throw new Error("broken on purpose");
      },
    },
  ));

test("an idle connection does not keep it from stopping", () =>
  withServer(async (base) => {
    await new Promise<void>((resolve, reject) => {
      const open = request(`${base}/metrics`, { headers: { connection: "keep-alive" } }, (response) =>
        response.resume().on("end", resolve),
      );
      open.on("error", reject).end();
    });
  }));

test("addresses that are none, or that others could reach, are refused", async () => {
  const signal = AbortSignal.abort();
  for (const listen of [
    "0.0.0.0:9464",
    "[::]:9464",
    "192.0.2.1:9464",
    "localhost:9464",
    "127.0.0.1.example.org:9464",
    "nonsense",
    "127.0.0.1:99999",
    "127.0.0.1:",
  ]) {
    await expect(serveMetrics({ ...options, listen }, signal), listen).rejects.toMatchObject({
      code: "config.invalid",
    });
  }
  for (const listen of ["127.0.0.1:9464", "127.8.8.8:9464", "[::1]:9464"])
    await serveMetrics({ ...options, listen }, signal);
  await serveMetrics({ ...options, listen: "0.0.0.0:9464", allowRemote: true }, signal);
});

test("a port that is taken is an error that says so", async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
  const { port } = other.address() as { port: number };
  const serving = serveMetrics({ ...options, listen: `127.0.0.1:${port}` }, new AbortController().signal);
  await expect(serving).rejects.toMatchObject({
    code: "metrics.unavailable",
    message: expect.stringContaining("EADDRINUSE"),
  });
  await new Promise((resolve) => other.close(resolve));
});
