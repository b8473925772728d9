// The agent's metrics about itself, by prom-client in a registry of its own. Nothing is measured between two scrapes
// but the event loop, once a second: prom-client's own defaults would cost 5.6 ms of CPU each second, idle.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Registry } from "prom-client";
import type { SamplerStats } from "./sampler.ts";

/** What the agent's other parts say at a scrape. */
export interface AgentState {
  readonly connected: boolean;
  /** Records (durable) that wait for the controller. */
  readonly outboxRecords: number;
  readonly outboxRecordBytes: number;
  /** Samples (droppable) that wait for the controller. */
  readonly outboxSampleBytes: number;
  /** Batches dropped because they waited for too long. */
  readonly droppedSamples: number;
}

export interface OwnMetricsOptions {
  readonly version: string;
  readonly agent: () => AgentState;
  readonly sampler: () => SamplerStats;
}

export interface OwnMetrics extends Disposable {
  text(): Promise<string>;
}

const resolutionMs = 1000;

export function createOwnMetrics({ version, agent, sampler }: OwnMetricsOptions): OwnMetrics {
  const registry = new Registry();
  const registers = [registry];
  const loop = monitorEventLoopDelay({ resolution: resolutionMs });
  loop.enable();

  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  const counter = (name: string, help: string, read: () => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });

  new Gauge({
    name: "bedplate_agent_build_info",
    help: "Always 1; the labels name the version.",
    labelNames: ["version", "node"],
    registers,
  }).set({ version, node: process.version }, 1);
  gauge("bedplate_agent_connected", "Whether the agent is connected to its controller.", () =>
    Number(agent().connected),
  );
  gauge(
    "bedplate_agent_outbox_records",
    "Records that wait for the controller.",
    () => agent().outboxRecords,
  );
  gauge(
    "bedplate_agent_outbox_record_bytes",
    "Bytes of the records that wait for the controller.",
    () => agent().outboxRecordBytes,
  );
  gauge(
    "bedplate_agent_outbox_sample_bytes",
    "Bytes of the samples that wait for the controller.",
    () => agent().outboxSampleBytes,
  );
  counter("bedplate_agent_samples_total", "Times the host was sampled.", () => sampler().samples);
  counter(
    "bedplate_agent_samples_skipped_total",
    "Samples left out because the one before took too long.",
    () => sampler().skipped,
  );
  counter(
    "bedplate_agent_samples_dropped_total",
    "Samples dropped because nobody read them.",
    () => agent().droppedSamples,
  );
  counter(
    "bedplate_agent_sampler_restarts_total",
    "Times the sampler died and was started again.",
    () => sampler().restarts,
  );
  gauge(
    "bedplate_agent_sample_duration_seconds",
    "How long the last sample took.",
    () => sampler().passMs / 1000,
  );
  gauge("bedplate_agent_series", "Series in a sample.", () => sampler().series);
  // The histogram holds whole intervals between two looks.
  const lateSeconds = (intervalNs: number) =>
    loop.count === 0 ? 0 : Math.max(0, intervalNs / 1e6 - resolutionMs) / 1000;
  gauge(
    "bedplate_agent_event_loop_delay_mean_seconds",
    "How late the event loop was since the scrape before, on average; looked at once a second.",
    () => lateSeconds(loop.mean),
  );
  gauge(
    "bedplate_agent_event_loop_delay_max_seconds",
    "How late the event loop was since the scrape before, at most; looked at once a second.",
    () => {
      const seconds = lateSeconds(loop.max);
      loop.reset();
      return seconds;
    },
  );
  counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  gauge("process_resident_memory_bytes", "Resident memory size in bytes.", () => process.memoryUsage.rss());
  const startSeconds = Math.round(performance.timeOrigin / 10) / 100;
  gauge(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
    () => startSeconds,
  );

  return {
    text: () => registry.metrics(),
    [Symbol.dispose]: () => {
      loop.disable();
    },
  };
}
