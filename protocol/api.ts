// The controller's HTTP API, version 1: the schemas that the server validates and documents with and the CLI reads by.
import Type, { type Static, type TSchema } from "typebox";
import { AuditHead } from "./audit.ts";
import { OutputStream, operationStates, Progress, Result } from "./commands.ts";
import { HostIdentity } from "./identity.ts";
import { Series } from "./messages.ts";
import { PlanArtefact } from "./plans.ts";
import { CommandId, Count, Digest, HostId, Line, Name, Standing, UnixMs } from "./schema.ts";

const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

/** RFC 9457, with our stable code. Every answer of 400 and above has this body, as application/problem+json. */
export const Problem = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  code: Type.String(),
  detail: Type.String(),
  hint: Type.Optional(Type.String()),
  details: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
});
export type Problem = Static<typeof Problem>;

/** Why something is not where it will be, in every state that is not its last. All null where there is nothing to wait for. */
const Explanation = {
  /** A sentence; where a code says it too, it begins with that code and a space. */
  reason: Nullable(Line),
  /** When the state ends by itself, by the controller's clock; null when nothing ends it. */
  deadline: Nullable(UnixMs),
  /** What happens by itself. */
  next: Nullable(Line),
  /** A command line that helps. */
  suggest: Nullable(Line),
};

export const HostView = Type.Object({
  id: HostId,
  name: Name,
  /** The first 16 digits of the id, for people to compare with what the host itself shows. */
  fingerprint: Type.String(),
  standing: Standing,
  standingSince: UnixMs,
  /** The keys that this one took over from, when the host was set up anew. */
  formerIds: Type.Array(HostId),
  /** The key that took over this one's name and history. */
  replacedBy: Nullable(HostId),
  ...Explanation,
  hostname: Type.String(),
  connection: Type.Union([Type.Literal("online"), Type.Literal("offline")]),
  /** When the connection last changed. */
  since: UnixMs,
  lastSeenAt: UnixMs,
  joinedAt: UnixMs,
  agentVersion: Type.String(),
  bootId: Type.String(),
  /** Controller's clock minus the host's, at the last heartbeat. */
  clockOffsetMs: Nullable(Type.Number()),
  telemetry: Type.Object({ series: Count, samples: Count, gaps: Count, lastAt: Nullable(UnixMs) }),
  /** Raw link key, lower-case hexadecimal: the id is its SHA-256. */
  linkKey: Type.String({ pattern: "^[0-9a-f]{64}$" }),
  /** Both keys' word for each other, and what policy the host has; null until the host has told. */
  identity: Nullable(
    Type.Object({
      ...HostIdentity.properties,
      /** Of the attestation key, `SHA256:…`. */
      fingerprint: Type.String(),
      since: UnixMs,
    }),
  ),
  /** Where the host's audit stood when it last told. */
  auditHead: Nullable(Type.Object({ seq: Count, hash: Digest, at: UnixMs })),
  /** The machines that answered with this host's key, while it is in quarantine or waits for approval. */
  instances: Type.Array(
    Type.Object({ instance: Type.String(), bootId: Type.String(), address: Type.String() }),
  ),
});
export type HostView = Static<typeof HostView>;

export const HostList = Type.Object({ hosts: Type.Array(HostView) });

/** The newest value of every series, in the unit its name ends with. */
export const TelemetryView = Type.Object({
  at: UnixMs,
  series: Type.Array(
    Type.Object({
      name: Type.String(),
      labels: Type.Record(Type.String(), Type.String()),
      type: Series.properties.type,
      value: Type.Number(),
    }),
  ),
});
export type TelemetryView = Static<typeof TelemetryView>;

/** Readings of the past, oldest first. `from` and `to` by the controller's clock, each point's moment by the host's. */
export const TelemetryHistoryView = Type.Object({
  from: UnixMs,
  to: UnixMs,
  series: Type.Array(
    Type.Object({
      name: Type.String(),
      labels: Type.Record(Type.String(), Type.String()),
      type: Series.properties.type,
      points: Type.Array(Type.Tuple([UnixMs, Type.Number()])),
    }),
  ),
});
export type TelemetryHistoryView = Static<typeof TelemetryHistoryView>;

/** Events of `GET /v1/hosts/{host}/telemetry/live` (SSE): one `dictionary` first and after each change, then `sample`s. */
export const LiveDictionary = Type.Object({ series: Type.Array(Series) });
export type LiveDictionary = Static<typeof LiveDictionary>;
export const LiveSample = Type.Object({ at: UnixMs, values: Type.Array(Type.Number()) });
export type LiveSample = Static<typeof LiveSample>;

export const State = Type.Union(
  operationStates.map((state) => Type.Literal(state)) as unknown as [
    Type.TLiteral<(typeof operationStates)[number]>,
  ],
);

export const CommandView = Type.Object({
  id: CommandId,
  host: HostId,
  hostName: Name,
  kind: Type.String(),
  mode: Type.String(),
  state: State,
  /** When it came into this state. */
  since: UnixMs,
  ...Explanation,
  createdAt: UnixMs,
  updatedAt: UnixMs,
  cancelRequestedAt: Nullable(UnixMs),
  /** When an operator paused it; null when nobody has, or it was resumed. `progress.paused`: it does wait. */
  pausedAt: Nullable(UnixMs),
  /** What the host said to the cancel. */
  cancelAnswer: Nullable(
    Type.Object({
      answer: Type.Union([Type.Literal("cancelling"), Type.Literal("too-late")]),
      reason: Line,
      at: UnixMs,
    }),
  ),
  /** The document's very bytes, base64: what is shown before it is signed, and what is signed. Empty when `trimmed`. */
  document: Type.String(),
  /** It has ended, and the controller has let go of its document, output and large result to make room for newer ones. */
  trimmed: Type.Boolean(),
  /** By claimed key, `SHA256:…`; the host alone decides what they are worth. */
  signatures: Type.Array(Type.Object({ fingerprint: Type.String(), addedAt: UnixMs })),
  /** It waits until it has so many. */
  signaturesWanted: Count,
  /** The plan that it quotes, as the host signed it; null when it quotes none, or the controller does not have it. */
  plan: Nullable(PlanArtefact),
  /** Bytes of output that the host has told of. */
  outputBytes: Count,
  /** Times the executor started working on it. */
  runs: Count,
  arguments: Type.Record(Type.String(), Type.Unknown()),
  progress: Nullable(Progress),
  /** Set in every terminal state; a refusal is a result of outcome failed with the refusal's error. */
  result: Nullable(Result),
  history: Type.Array(Type.Object({ state: State, at: UnixMs })),
});
export type CommandView = Static<typeof CommandView>;

export const CommandList = Type.Object({ commands: Type.Array(CommandView) });

/** Body of `POST /v1/commands`: the exact text of the document, so that signatures over its bytes hold. */
export const CommandRequest = Type.Object(
  {
    document: Type.String({ minLength: 2, maxLength: 256 * 1024 }),
    signatures: Type.Array(Type.String({ maxLength: 8192 }), { maxItems: 16 }),
    /** Hold it until it has so many signatures of different keys; 0 if absent. */
    signaturesWanted: Type.Optional(Type.Integer({ minimum: 0, maximum: 16 })),
  },
  { additionalProperties: false },
);
export type CommandRequest = Static<typeof CommandRequest>;

/** Body of `POST /v1/commands/{id}/signatures`: armored SSHSIG over the document's bytes, namespace `bedplate-command`. */
export const SignatureRequest = Type.Object(
  { signature: Type.String({ minLength: 1, maxLength: 8192 }) },
  { additionalProperties: false },
);
export type SignatureRequest = Static<typeof SignatureRequest>;

/** What a program printed, from `from` on: the newest part is kept, so `from` may be above what was asked for. */
export const OutputView = Type.Object({
  from: Count,
  /** The offset to ask for next. */
  to: Count,
  /** Nothing more will come. */
  ended: Type.Boolean(),
  pieces: Type.Array(Type.Object({ stream: OutputStream, offset: Count, data: Type.String() })),
});
export type OutputView = Static<typeof OutputView>;

export const ImageView = Type.Object({
  root: Digest,
  name: Name,
  sizeBytes: Count,
  sectorBytes: Nullable(Count),
  groups: Count,
  zeroGroups: Count,
  storedBytes: Count,
  importedFrom: Type.String(),
  addedAt: UnixMs,
});
export type ImageView = Static<typeof ImageView>;

export const ImageList = Type.Object({ images: Type.Array(ImageView) });

const Approve = Type.Union([Type.Literal("auto"), Type.Literal("manual")]);

export const JoinTokenRequest = Type.Object(
  {
    ttlSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 30 * 86_400, default: 3600 })),
    uses: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, default: 1 })),
    /** `manual`: hosts that join with it wait until a person approves them. */
    approve: Type.Optional(Approve),
    /** The host (name, id, prefix) whose name and history the new key takes over; its old key is revoked then. */
    for: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
    /** Only from addresses within it, such as 10.1.0.0/16 or fd00::/8. */
    cidr: Type.Optional(Type.String({ minLength: 3, maxLength: 64 })),
  },
  { additionalProperties: false },
);
export type JoinTokenRequest = Static<typeof JoinTokenRequest>;

/** A join token as it is known afterwards: without its secret. */
export const JoinTokenState = Type.Object({
  id: Type.String(),
  createdAt: UnixMs,
  expiresAt: UnixMs,
  /** Hosts that may join with it, and how many have. */
  uses: Count,
  used: Count,
  approve: Approve,
  for: Nullable(HostId),
  cidr: Nullable(Type.String()),
  revokedAt: Nullable(UnixMs),
});
export type JoinTokenState = Static<typeof JoinTokenState>;
export const JoinTokenList = Type.Object({ joinTokens: Type.Array(JoinTokenState) });

/** The one answer that has the token itself. */
export const JoinTokenView = Type.Object({ ...JoinTokenState.properties, token: Type.String() });
export type JoinTokenView = Static<typeof JoinTokenView>;

/** What an API token may do; each one includes those before it. */
export const scopes = ["read", "operate", "admin"] as const;
export const Scope = Type.Union([Type.Literal("read"), Type.Literal("operate"), Type.Literal("admin")]);
export type Scope = Static<typeof Scope>;

export const TokenRequest = Type.Object(
  {
    scope: Scope,
    name: Type.Optional(Name),
    ttlSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 366 * 86_400, default: 90 * 86_400 })),
  },
  { additionalProperties: false },
);
export type TokenRequest = Static<typeof TokenRequest>;

/** An API token as it is known afterwards: without its secret. */
export const TokenState = Type.Object({
  id: Type.String(),
  name: Type.String(),
  scope: Scope,
  createdAt: UnixMs,
  expiresAt: Nullable(UnixMs),
  /** Within a minute. */
  lastUsedAt: Nullable(UnixMs),
  revokedAt: Nullable(UnixMs),
});
export type TokenState = Static<typeof TokenState>;
export const TokenList = Type.Object({ tokens: Type.Array(TokenState) });

/** The one answer that has the token itself. */
export const TokenView = Type.Object({ ...TokenState.properties, token: Type.String() });
export type TokenView = Static<typeof TokenView>;

/** One call that changed something, or was to: who, from where, what, and what came of it. */
export const AuditEntry = Type.Object({
  index: Count,
  at: UnixMs,
  token: Type.Object({ id: Type.String(), name: Type.String() }),
  address: Type.String(),
  method: Type.String(),
  route: Type.String(),
  /** The host, command, image or token that it was about. */
  object: Nullable(Type.String()),
  status: Type.Integer(),
  /** Of the refusal, when it was one. */
  code: Nullable(Type.String()),
  /** SHA-256 of the entry as it is chained; null for entries older than the chain. */
  hash: Nullable(Digest),
});
export type AuditEntry = Static<typeof AuditEntry>;
/** What the controller's own audit says of itself: a chain of hashes, as the hosts' audits are. */
export const AuditChainView = Type.Object({
  entries: Count,
  /** What the oldest entry that is kept follows. */
  anchor: Type.Object({ seq: Count, hash: Digest }),
  /** The newest entry: kept elsewhere and asked for later, it shows whether the chain was cut off or made anew. */
  head: Type.Object({ seq: Count, hash: Digest }),
  /** None when it is whole; at most 100. */
  faults: Type.Array(Type.Object({ fault: Type.String(), finding: Line })),
});
export type AuditChainView = Static<typeof AuditChainView>;
export const AuditList = Type.Object({ entries: Type.Array(AuditEntry) });

export const ApproveRequest = Type.Object(
  { fingerprint: Type.Optional(Type.String({ maxLength: 64 })) },
  { additionalProperties: false },
);
/** `instance`: of the machine that is the true one; its boot id where both have one instance. */
export const ReleaseRequest = Type.Object(
  { instance: Type.String({ minLength: 1, maxLength: 64 }) },
  { additionalProperties: false },
);
/** What the host signed and what the controller answered, newest first: to hold against the host's own audit. */
export const AuditHeadList = Type.Object({
  /** `ssh-ed25519 AAAA…` of the controller, that the countersignatures are by. */
  auditKey: Type.String(),
  heads: Type.Array(Type.Object({ ...AuditHead.properties, countersignature: Type.String(), at: UnixMs })),
});
export type AuditHeadList = Static<typeof AuditHeadList>;

/** A rotation of the controller's authority. `waiting`: hosts that have not connected since and know the old one only. */
export const RotationView = Type.Object({
  state: Type.Union([Type.Literal("none"), Type.Literal("overlapping"), Type.Literal("finished")]),
  startedAt: Nullable(UnixMs),
  /** SHA-256 of the certificates that agents may have pinned, newest first. */
  authorities: Type.Array(Type.String()),
  waiting: Type.Array(Type.Object({ id: HostId, name: Name, lastSeenAt: UnixMs })),
});
export type RotationView = Static<typeof RotationView>;

export const RenameRequest = Type.Object({ name: Name }, { additionalProperties: false });

/** A backup lies in the controller's state directory until it is fetched from there: keys do not go over the API. */
export const BackupView = Type.Object({
  file: Type.String(),
  sizeBytes: Count,
  epoch: Count,
  at: UnixMs,
});
export type BackupView = Static<typeof BackupView>;

/** One event of `GET /v1/events` (SSE); the SSE id is `index`, which grows by one. */
export const ApiEvent = Type.Object({
  index: Count,
  at: UnixMs,
  topic: Type.Union([
    Type.Literal("host"),
    Type.Literal("command"),
    Type.Literal("image"),
    Type.Literal("join-token"),
    Type.Literal("token"),
    Type.Literal("controller"),
  ]),
  id: Type.String(),
  /**
   * host: joined, pending, approved, rejected, revoked, renamed, replaced, online, offline, duplicate, quarantined, released,
   * identity, key-changed, drift, audit-broken, records-lost.
   * command: the state it went to, or progress, output, signed. image: added, removed,
   * mirror-added, mirror-removed, signed. join-token, token: created, revoked. controller: backup, restored, authority.
   */
  event: Type.String(),
});
export type ApiEvent = Static<typeof ApiEvent>;

export const StatusView = Type.Object({
  version: Type.String(),
  epoch: Count,
  at: UnixMs,
  hosts: Type.Object({ known: Count, online: Count }),
  /** `ssh-ed25519 AAAA…`: what the controller countersigns hosts' audit heads with. */
  auditKey: Type.String(),
  /** Of the token that asks: what it may. Absent from older controllers. */
  scope: Type.Optional(Scope),
});
export type StatusView = Static<typeof StatusView>;

/** The file that a controller writes at its first start (mode 0600) and the CLI reads: how to reach and trust it. */
export const ClientFile = Type.Object({
  url: Type.String({ pattern: "^https://" }),
  token: Type.String({ minLength: 20 }),
  /** The controller's CA certificate, PEM. */
  ca: Type.String({ pattern: "^-----BEGIN CERTIFICATE-----" }),
});
export type ClientFile = Static<typeof ClientFile>;

/**
 * The routes. A bearer token is needed for all but /v1/ca and /v1/link.
 *
 * GET  /v1/status                              StatusView
 * GET  /v1/ca                                  the CA certificate, PEM
 * GET  /v1/hosts                               HostList
 * GET  /v1/hosts/{host}                        HostView ({host}: id, unique id prefix of 6 or more, or name)
 * GET  /v1/hosts/{host}/telemetry              TelemetryView
 * GET  /v1/hosts/{host}/telemetry/history?series=&from=&to=&stepSeconds= TelemetryHistoryView
 * GET  /v1/hosts/{host}/telemetry/live         SSE: LiveDictionary, LiveSample
 * POST /v1/hosts/{host}/approve ApproveRequest HostView; 409 enrol.fingerprint-mismatch, host.not-pending
 * POST /v1/hosts/{host}/reject                 HostView (admin, as approve, revoke and rename)
 * POST /v1/hosts/{host}/revoke                 HostView
 * POST /v1/hosts/{host}/rename  RenameRequest  HostView; 409 host.name-taken
 * POST /v1/hosts/{host}/release ReleaseRequest HostView; 409 host.not-quarantined
 * GET  /v1/hosts/{host}/audit-heads?limit=     AuditHeadList
 * POST /v1/commands           CommandRequest   201 CommandView; 200 when the same command is known already
 * GET  /v1/commands?host=&state=&limit=        CommandList, newest first
 * GET  /v1/commands/{id}                       CommandView
 * POST /v1/commands/{id}/cancel                202 CommandView
 * POST /v1/commands/{id}/pause                 202 CommandView; 409 command.not-pausable
 * POST /v1/commands/{id}/resume                202 CommandView
 * POST /v1/commands/{id}/signatures SignatureRequest CommandView; 409 command.already-offered
 * GET  /v1/commands/{id}/output?after=OFFSET&waitSeconds= OutputView
 * GET  /v1/images                              ImageList
 * GET  /v1/images/{root}                       ImageView ({root}: root, unique prefix of 8 or more, or name)
 * PUT  /v1/images/{root}/manifest  octets      204; the upload starts
 * GET  /v1/images/{root}/wanted                WantedGroups, of an upload whose manifest was sent
 * PUT  /v1/images/{root}/frames?only=wanted octets 201 ImageView, after every group was decoded and verified; with the query
 *                                              the frames of wanted groups alone; 409 image.incomplete: send all
 * GET  /v1/images/{root}/manifest              octets
 * GET  /v1/images/{root}/frames                octets, single ranges
 * GET  /v1/images/{root}/signatures            ImageSignatures
 * POST /v1/images/{root}/signatures ImageSignatureRequest 201 ImageSignatures; 409 image.too-many
 * POST /v1/images/{root}/signatures/remove ImageSignatureRemoval ImageSignatures; 404
 * POST /v1/images/{root}/remove ImageRemoval   RemovedImage; 409 image.in-use while a command that has not ended names it
 * POST /v1/images/collect     CollectionRequest CollectionView; stops when who asked goes
 * GET  /v1/image-collection                    CollectionState: how far it is
 * GET  /v1/mirrors                             MirrorList, of all images
 * POST /v1/images/{root}/mirrors MirrorRequest 201 ImageMirror; 409 image.too-many
 * POST /v1/images/{root}/mirrors/remove MirrorRemoval 204
 * POST /v1/join-tokens        JoinTokenRequest 201 JoinTokenView
 * GET  /v1/join-tokens                         JoinTokenList
 * POST /v1/join-tokens/{id}/revoke             JoinTokenState
 * POST /v1/tokens             TokenRequest     201 TokenView
 * GET  /v1/tokens                              TokenList
 * POST /v1/tokens/{id}/revoke                  TokenState
 * GET  /v1/audit?limit=                        AuditList, newest first
 * GET  /v1/audit/verify?seq=&hash=             AuditChainView; seq and hash: a head that was had before
 * GET  /v1/authority                           RotationView
 * POST /v1/authority/rotate                    RotationView (admin)
 * POST /v1/authority/finish                    RotationView (admin)
 * POST /v1/backups                             201 BackupView
 * GET  /v1/events?since=INDEX                  SSE of ApiEvent
 * GET  /v1/link                                WebSocket of agents, subprotocol bedplate.v1
 * GET  /metrics                                Prometheus text
 * GET  /openapi.json                           OpenAPI 3.1
 */
export const apiVersion = "v1";
