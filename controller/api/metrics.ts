// /metrics: the controller's own, in Prometheus' text format. Hosts' readings are not repeated here.
import { Counter, Gauge, Registry } from "prom-client";
import { operationStates } from "../../protocol/commands.ts";
import { version } from "../../protocol/version.ts";
import type { ApiParts, App } from "./app.ts";
import { answerOf, problemAnswers } from "./schemas.ts";

export function metricsRoutes(app: App, parts: ApiParts): void {
  const registry = controllerRegistry(parts);
  app.get(
    "/metrics",
    {
      config: { access: "read" },
      schema: { response: { 200: answerOf("Prometheus text.", "text/plain"), ...problemAnswers } },
    },
    async (_request, reply) =>
      reply.header("content-type", registry.contentType).send(await registry.metrics()),
  );
}

function controllerRegistry({ store, sessions, meters }: ApiParts): Registry {
  const registry = new Registry();
  const registers = [registry];
  const prefix = "bedplate_controller_";
  new Gauge({
    name: `${prefix}info`,
    help: "The controller's version.",
    labelNames: ["version"],
    registers,
  }).set({ version }, 1);
  new Gauge({
    name: `${prefix}hosts`,
    help: "Hosts by connection.",
    labelNames: ["connection"],
    registers,
    async collect() {
      const known = await store.hosts.count();
      this.set({ connection: "online" }, sessions.count);
      this.set({ connection: "offline" }, known - sessions.count);
    },
  });
  new Gauge({
    name: `${prefix}commands`,
    help: "Commands by state.",
    labelNames: ["state"],
    registers,
    async collect() {
      const counts = await store.commands.counts();
      for (const state of operationStates) this.set({ state }, counts.get(state) ?? 0);
    },
  });
  const counters = {
    link_received_bytes_total: ["Bytes received from agents, within TLS.", () => meters.receivedBytes],
    link_sent_bytes_total: ["Bytes of messages sent to agents.", () => meters.sentBytes],
    link_messages_total: ["Messages received from agents.", () => meters.messages],
    link_refused_total: ["Connections refused because too many were unproven.", () => meters.refused],
    records_total: ["Records received, repetitions included.", () => meters.records],
    telemetry_batches_total: ["Batches of readings received.", () => meters.batches],
    telemetry_batches_dropped_total: [
      "Batches dropped for want of the one before them.",
      () => meters.batchesDropped,
    ],
  } satisfies Record<string, [string, () => number]>;
  for (const [name, [help, value]] of Object.entries(counters) as [string, [string, () => number]][]) {
    new Counter({
      name: prefix + name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(value());
      },
    });
  }
  new Counter({
    name: `${prefix}link_closed_total`,
    help: "Connections that this side closed, by why.",
    labelNames: ["reason"],
    registers,
    collect() {
      this.reset();
      for (const [reason, count] of meters.closes) this.inc({ reason }, count);
    },
  });
  return registry;
}
