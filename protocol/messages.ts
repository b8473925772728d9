// Every message of protocol version 1, as schemas. README.md beside this file is the specification in words.
import Type, { type Static, type TSchema } from "typebox";
import { AuditHead } from "./audit.ts";
import { OutputStream, outputPieceBytesMax, Progress, Result } from "./commands.ts";
import { BedplateError } from "./errors.ts";
import { HostIdentity } from "./identity.ts";
import { limits } from "./limits.ts";
import {
  Bytes,
  CommandId,
  Count,
  checker,
  Digest,
  FixedBytes,
  HostId,
  Line,
  Name,
  Report,
  UnixMs,
} from "./schema.ts";

export { exporter, tlsServerName } from "./tls.ts";

export const subprotocol = "bedplate.v1";
export const protocolVersion = 1;
const Nonce = FixedBytes(32);
const Version = Type.String({ maxLength: 64 });
/** What tells two machines with one key apart: shown to people, and typed by them in commands. */
const MachineMark = Type.String({ pattern: "^[A-Za-z0-9][A-Za-z0-9._:-]*$", maxLength: 64 });
/** A number that numbers go on from: half of what a JavaScript number counts exactly, so that they always can. */
const Mark = Type.Integer({ minimum: 0, maximum: 2 ** 52 });

/** A series: an integer as the kernel gives it, times `scale`, is the value in the unit that the name ends with. */
export const Series = Type.Object({
  name: Type.String({ pattern: "^[a-zA-Z_][a-zA-Z0-9_]*$", maxLength: 256 }),
  // Of a key's schema only the pattern is looked at.
  labels: Type.Record(Type.String({ pattern: "^[^]{0,64}$" }), Type.String({ maxLength: 512 }), {
    additionalProperties: false,
  }),
  type: Type.Union([Type.Literal("counter"), Type.Literal("gauge")]),
  scale: Type.Number(),
  /** The integer is two's complement. */
  signed: Type.Optional(Type.Boolean()),
  help: Type.Optional(Type.String({ maxLength: 512 })),
});
export type Series = Static<typeof Series>;

/** What a durable record can say. Delivered in order, once. */
export const RecordBody = Type.Union([
  Type.Object({ type: Type.Literal("received"), command: CommandId }),
  Type.Object({ type: Type.Literal("accepted"), command: CommandId }),
  Type.Object({ type: Type.Literal("refused"), command: CommandId, error: Report }),
  Type.Object({ type: Type.Literal("running"), command: CommandId, run: Count }),
  Type.Object({ type: Type.Literal("result"), command: CommandId, result: Result }),
  /** What came of the controller's cancel; the result follows all the same. */
  Type.Object({
    type: Type.Literal("cancel"),
    command: CommandId,
    answer: Type.Union([Type.Literal("cancelling"), Type.Literal("too-late")]),
    reason: Line,
  }),
  /** A piece of what a program printed, base64; `offset` counts both streams together from 0. A jump: what was between is lost. */
  Type.Object({
    type: Type.Literal("output"),
    command: CommandId,
    stream: OutputStream,
    offset: Count,
    data: Type.String({ pattern: "^[A-Za-z0-9+/]*={0,2}$", maxLength: (outputPieceBytesMax / 3 + 1) * 4 }),
  }),
  /** Who the host's executor is, sent when it differs from what the controller has. */
  Type.Object({ type: Type.Literal("identity"), identity: HostIdentity }),
  /** Where the host's audit stands. */
  Type.Object({ type: Type.Literal("audit-head"), ...AuditHead.properties }),
  /** Batches `from` to `to` were dropped while nobody read them. */
  Type.Object({ type: Type.Literal("gap"), from: Count, to: Count, count: Count }),
]);
export type RecordBody = Static<typeof RecordBody>;

/** Where an image's bytes can be had. */
export const ImageSource = Type.Object({
  url: Type.String({ pattern: "^(https?://|file:///)", maxLength: 2048 }),
  /**
   * `frames`, also if absent: `manifest` and `frames` are under `url`. `raw`: `url` is the raw image itself, as a file of
   * the host or read by ranges; it has no manifest.
   */
  layout: Type.Optional(Type.Union([Type.Literal("frames"), Type.Literal("raw")])),
  /** For this host and image, as long as the command is open. */
  bearer: Type.Optional(Type.String({ maxLength: 512 })),
  /** Offered to every host: one whose policy does not list it passes it over, where any other source is refused. */
  mirror: Type.Optional(Type.Literal(true)),
});
export type ImageSource = Static<typeof ImageSource>;

const agentMessages = {
  hello: Type.Object({
    t: Type.Literal("hello"),
    versions: Type.Object({ min: Count, max: Count }),
    agentVersion: Version,
    linkKey: FixedBytes(32),
    nonce: Nonce,
    /** Made with the state directory: tells a restarted agent from a copied one. */
    instance: MachineMark,
    bootId: MachineMark,
    hostname: Type.String({ maxLength: 255 }),
    previousSession: Type.Optional(Type.String({ maxLength: 64 })),
    /** The highest epoch this host has seen of its controller. */
    epochSeen: Type.Optional(Count),
  }),
  auth: Type.Object({
    t: Type.Literal("auth"),
    /** Ed25519 by the link key over the proof that link-proof.ts describes. */
    signature: FixedBytes(64),
    /** First time only. */
    joinToken: Type.Optional(Type.String({ maxLength: 512 })),
    name: Type.Optional(Name),
  }),
  heartbeat: Type.Object({
    t: Type.Literal("heartbeat"),
    at: UnixMs,
    operations: Type.Array(Type.Object({ id: CommandId, state: Type.String({ maxLength: 32 }) }), {
      maxItems: 1024,
    }),
    outbox: Type.Object({ records: Count, recordBytes: Count, sampleBytes: Count }),
  }),
  dictionary: Type.Object({
    t: Type.Literal("dictionary"),
    id: Count,
    series: Type.Array(Series, { maxItems: limits.seriesMax }),
  }),
  batch: Type.Object({
    t: Type.Literal("batch"),
    seq: Mark,
    dictionary: Count,
    at: UnixMs,
    intervalMs: Count,
    /** A key frame holds all values; another one only what changed since the batch before. */
    key: Type.Boolean(),
    data: Bytes,
  }),
  record: Type.Object({ t: Type.Literal("record"), seq: Mark, at: UnixMs, body: RecordBody }),
  progress: Type.Object({ t: Type.Literal("progress"), command: CommandId, progress: Progress }),
  /** Answer to `authority`, once they are kept: SHA-256 of the authorities (DER) that this host trusts now, newest first. */
  trusts: Type.Object({
    t: Type.Literal("trusts"),
    authorities: Type.Array(Digest, { minItems: 1, maxItems: 4 }),
  }),
  /** Answer to a probe: Ed25519 by the link key over `probeBytes` of link-proof.ts. */
  proof: Type.Object({ t: Type.Literal("proof"), nonce: Nonce, signature: FixedBytes(64) }),
  goaway: Type.Object({ t: Type.Literal("goaway"), reason: Line }),
} as const;

const controllerMessages = {
  challenge: Type.Object({
    t: Type.Literal("challenge"),
    nonce: Nonce,
    version: Count,
    epoch: Count,
    at: UnixMs,
  }),
  welcome: Type.Object({
    t: Type.Literal("welcome"),
    session: Type.String({ maxLength: 64 }),
    host: HostId,
    name: Name,
    at: UnixMs,
    heartbeatMs: Type.Integer({ minimum: 100, maximum: 3_600_000 }),
    /** After this connection is closed from the controller's side, come back at a random moment within it. */
    reconnectWindowMs: Count,
    /** The highest record the controller has stored: what follows is sent again. */
    records: Mark,
    /** The highest batch the controller has stored, 0 if none: an agent's numbers go on from it, also after its restart. */
    samples: Mark,
    /** `pending`: no command comes before a person approved the host; `quarantined`: none that changes it. Absent: approved. */
    standing: Type.Optional(
      Type.Union([Type.Literal("pending"), Type.Literal("approved"), Type.Literal("quarantined")]),
    ),
    /** The most bytes of record and batch frames that may be on their way unacknowledged; absent: no limit. */
    creditBytes: Type.Optional(Type.Integer({ minimum: limits.frameBytesMax, maximum: 1 << 30 })),
    /** `ssh-ed25519 AAAA…`: what the controller countersigns audit heads with. */
    auditKey: Type.Optional(Type.String({ maxLength: 512 })),
    /** `identityDigest` of what the controller has of the host's executor; absent: nothing. */
    identity: Type.Optional(Digest),
  }),
  heartbeat: Type.Object({ t: Type.Literal("heartbeat"), at: UnixMs }),
  /** Cumulative: everything up to these is stored. */
  ack: Type.Object({ t: Type.Literal("ack"), records: Count, samples: Count }),
  offer: Type.Object({
    t: Type.Literal("offer"),
    /** The command document, the caller's very bytes. */
    document: Bytes,
    signatures: Type.Array(Type.String({ maxLength: 8192 }), { maxItems: 16 }),
    generation: Count,
    epoch: Count,
    sources: Type.Array(ImageSource, { maxItems: 8 }),
  }),
  cancel: Type.Object({
    t: Type.Literal("cancel"),
    command: CommandId,
    /** Another machine may have it: who does not know it does nothing. */
    ifKnown: Type.Optional(Type.Literal(true)),
  }),
  /**
   * The operation waits at its next safe point, or goes on: the newest word holds. Of what was ever paused it is said in
   * each session anew, after the offer; an agent that does not know the command does nothing.
   */
  pause: Type.Object({ t: Type.Literal("pause"), command: CommandId, paused: Type.Boolean() }),
  /** Two machines seem to have one key: answer with `proof`. */
  probe: Type.Object({ t: Type.Literal("probe"), nonce: Nonce }),
  /** The authorities to trust from now on, PEM, newest first: kept in place of those before. */
  authority: Type.Object({
    t: Type.Literal("authority"),
    ca: Type.String({ minLength: 1, maxLength: 32 * 1024 }),
  }),
  /** The controller has stored this head of the host's audit; signed with its audit key over the same bytes. */
  "audit-head": Type.Object({ t: Type.Literal("audit-head"), ...AuditHead.properties }),
  goaway: Type.Object({ t: Type.Literal("goaway"), reason: Line, reconnectWindowMs: Count }),
} as const;

type MessageOf<M extends Record<string, TSchema>> = { [K in keyof M]: Static<M[K]> }[keyof M];
/** What an agent sends. */
export type AgentMessage = MessageOf<typeof agentMessages>;
/** What a controller sends. */
export type ControllerMessage = MessageOf<typeof controllerMessages>;

/** @throws `message.unknown`, `message.invalid` */
export const checkAgentMessage = messageChecker<AgentMessage>(agentMessages);
/** @throws `message.unknown`, `message.invalid` */
export const checkControllerMessage = messageChecker<ControllerMessage>(controllerMessages);

function messageChecker<M>(schemas: Record<string, TSchema>): (value: unknown) => M {
  const checks = new Map(
    Object.entries(schemas).map(([type, schema]) => [
      type,
      checker(schema, "message.invalid", `message "${type}"`),
    ]),
  );
  return (value) => {
    const type = value !== null && typeof value === "object" && "t" in value ? value.t : undefined;
    const check = typeof type === "string" ? checks.get(type) : undefined;
    if (check === undefined)
      throw new BedplateError(
        "message.unknown",
        // Only text is quoted: what else a peer may send there need not have a JSON form.
        `There is no message ${typeof type === "string" ? JSON.stringify(type).slice(0, 80) : "without a type"} in ${subprotocol}.`,
      );
    return check(value) as M;
  };
}
