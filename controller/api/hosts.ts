// /v1/hosts: who there is, and what they read.
import { createHash } from "node:crypto";
import Type from "typebox";
import {
  ApproveRequest,
  AuditHeadList,
  HostList,
  HostView as HostSchema,
  type HostView,
  ReleaseRequest,
  RenameRequest,
  TelemetryView,
} from "../../protocol/api.ts";
import { hex } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import { explainHost } from "../hosts/explain.ts";
import type { StoredHost, StoredIdentity } from "../store/host-store.ts";
import { type Store, storeLimits } from "../store/store.ts";
import type { ApiParts, App } from "./app.ts";
import { streamEvents } from "./event-stream.ts";
import { answerOf, HostParameters, problemAnswers } from "./schemas.ts";

export function hostRoutes(app: App, parts: ApiParts): void {
  const { store, live } = parts;
  app.get(
    "/v1/hosts",
    { config: { access: "read" }, schema: { response: { 200: HostList, ...problemAnswers } } },
    async () => ({
      hosts: (await store.hosts.list()).map((host) => hostView(parts, host)),
    }),
  );

  app.get(
    "/v1/hosts/:host",
    {
      config: { access: "read" },
      schema: { params: HostParameters, response: { 200: HostSchema, ...problemAnswers } },
    },
    async (request) => hostView(parts, await findHost(store, request.params.host)),
  );

  app.get(
    "/v1/hosts/:host/telemetry",
    {
      config: { access: "read" },
      schema: { params: HostParameters, response: { 200: TelemetryView, ...problemAnswers } },
    },
    async (request) => live.view((await findHost(store, request.params.host)).id),
  );

  app.get(
    "/v1/hosts/:host/telemetry/live",
    {
      config: { access: "read" },
      schema: {
        params: HostParameters,
        response: {
          200: answerOf("Events: dictionary first and after each change, then samples.", "text/event-stream"),
          ...problemAnswers,
        },
      },
    },
    async (request, reply) => {
      const host = await findHost(store, request.params.host);
      await streamEvents(reply, parts, async (stream) => {
        using _following = live.follow(host.id, {
          dictionary: (dictionary) => stream.send({ event: "dictionary", data: dictionary }),
          // A reader that cannot keep up misses samples, as a live view may; the newest counts.
          sample: (at, values) => {
            if (stream.writable) stream.send({ event: "sample", data: { at, values: [...values] } });
          },
        });
        await stream.ended;
      });
    },
  );
}

const HeadsQuery = Type.Object(
  { limit: Type.Optional(Type.Integer({ minimum: 1, maximum: storeLimits.auditHeadsMax })) },
  { additionalProperties: false },
);

/** Where the host's audit stood, as both signed it. */
export function auditHeadRoutes(app: App, { store, auditKey }: ApiParts): void {
  app.get(
    "/v1/hosts/:host/audit-heads",
    {
      config: { access: "read" },
      schema: {
        params: HostParameters,
        querystring: HeadsQuery,
        response: { 200: AuditHeadList, ...problemAnswers },
      },
    },
    async (request) => {
      const { id } = await findHost(store, request.params.host);
      const { limit = storeLimits.auditHeadsMax } = request.query;
      return { auditKey: auditKey.line, heads: [...(await store.hosts.auditHeads(id, limit))] };
    },
  );
}

/** Approve, reject, revoke, rename, release. */
export function hostChangeRoutes(app: App, parts: ApiParts): void {
  const { store, hosts } = parts;
  const answers = { 200: HostSchema, ...problemAnswers };
  app.post(
    "/v1/hosts/:host/approve",
    {
      config: { access: "admin" },
      schema: { params: HostParameters, body: ApproveRequest, response: answers },
    },
    async (request) => {
      const { id } = await findHost(store, request.params.host);
      request.auditObject = id;
      const { fingerprint } = request.body;
      return hostView(parts, await hosts.setStanding(id, { type: "approve", fingerprint }));
    },
  );
  for (const type of ["reject", "revoke"] as const) {
    app.post(
      `/v1/hosts/:host/${type}`,
      { config: { access: "admin" }, schema: { params: HostParameters, response: answers } },
      async (request) => {
        const { id } = await findHost(store, (request.params as { host: string }).host);
        request.auditObject = id;
        return hostView(parts, await hosts.setStanding(id, { type }));
      },
    );
  }
  app.post(
    "/v1/hosts/:host/rename",
    {
      config: { access: "admin" },
      schema: { params: HostParameters, body: RenameRequest, response: answers },
    },
    async (request) => {
      const { id } = await findHost(store, request.params.host);
      request.auditObject = id;
      return hostView(parts, await hosts.rename(id, request.body.name));
    },
  );
  app.post(
    "/v1/hosts/:host/release",
    {
      config: { access: "admin" },
      schema: { params: HostParameters, body: ReleaseRequest, response: answers },
    },
    async (request) => {
      const { id } = await findHost(store, request.params.host);
      request.auditObject = id;
      return hostView(parts, await hosts.release(id, request.body.instance));
    },
  );
}

/** @throws `host.unknown`, `host.ambiguous` */
export async function findHost(store: Pick<Store, "hosts">, reference: string): Promise<StoredHost> {
  const [host, another] = await store.hosts.find(reference);
  if (host === undefined) {
    throw new BedplateError("host.unknown", `There is no host "${reference}".`, {
      hint: "Give its name, its id, or at least 6 digits of the id: `bedplate hosts` lists them.",
    });
  }
  if (another !== undefined) {
    throw new BedplateError("host.ambiguous", `"${reference}" begins the ids of several hosts.`, {
      hint: "Give more digits of the id.",
      details: { hosts: [host.id, another.id] },
    });
  }
  return host;
}

function hostView({ sessions, live }: ApiParts, host: StoredHost): HostView {
  const online = host.online && sessions.get(host.id) !== undefined;
  return {
    id: host.id,
    name: host.name,
    fingerprint: fingerprintOf(host.id),
    standing: host.standing,
    standingSince: host.standingAt,
    formerIds: [...host.formerIds],
    replacedBy: host.replacedBy,
    ...explainHost(host, online),
    hostname: host.hostname,
    connection: online ? "online" : "offline",
    since: host.changedAt,
    lastSeenAt: host.lastSeenAt,
    joinedAt: host.joinedAt,
    agentVersion: host.agentVersion,
    bootId: host.bootId,
    clockOffsetMs: host.clockOffsetMs,
    telemetry: {
      series: live.seriesCount(host.id) ?? host.series,
      samples: host.batches,
      gaps: host.gaps,
      lastAt: host.lastBatchAt,
    },
    linkKey: hex(host.linkKey),
    identity: host.identity === null ? null : identityView(host.identity),
    auditHead: host.auditHead,
    instances: [...host.instances],
  };
}

function identityView({ identity, since }: StoredIdentity): NonNullable<HostView["identity"]> {
  const [, encoded = ""] = identity.attestationKey.split(" ");
  const digest = createHash("sha256").update(Buffer.from(encoded, "base64")).digest("base64");
  return { ...identity, fingerprint: `SHA256:${digest.replace(/=+$/, "")}`, since };
}
