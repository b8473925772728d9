// The controller's public API, typed: one function a route, answers checked against their schemas.
import type { Readable } from "node:stream";
import type { Static, TSchema } from "typebox";
import {
  ApiEvent,
  AuditChainView,
  type AuditEntry,
  AuditHeadList,
  AuditList,
  BackupView,
  CommandList,
  CommandView,
  HostList,
  HostView,
  ImageList,
  ImageView,
  JoinTokenList,
  type JoinTokenRequest,
  JoinTokenState,
  JoinTokenView,
  LiveDictionary,
  LiveSample,
  OutputView,
  RotationView,
  StatusView,
  TelemetryView,
  TokenList,
  type TokenRequest,
  TokenState,
  TokenView,
} from "../protocol/api.ts";
import {
  type CollectionProgress,
  type CollectionRequest,
  CollectionState,
  CollectionView,
  ImageMirror,
  type ImageSignature,
  ImageSignatures,
  MirrorList,
  type MirrorRequest,
  RemovedImage,
  WantedGroups,
} from "../protocol/api-images.ts";
import { textOf } from "../protocol/bytes.ts";
import { type Command, encodeCommand } from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import { limits } from "../protocol/limits.ts";
import { checker } from "../protocol/schema.ts";
import { type ApiRequest, openTransport } from "./api-transport.ts";
import { sleep } from "./clock.ts";
import type { Connection } from "./connection.ts";
import { createEventParser, type StreamEvent } from "./event-stream.ts";

export type LiveEvent =
  | { readonly type: "dictionary"; readonly dictionary: LiveDictionary }
  | { readonly type: "sample"; readonly sample: LiveSample };

export interface Signing {
  /** Armored SSHSIG over the document's bytes. */
  readonly signatures?: readonly string[];
  /** It is held until it has so many. */
  readonly signaturesWanted?: number;
}

export interface ApiClient extends Disposable {
  readonly url: URL;
  status(): Promise<StatusView>;
  hosts(): Promise<HostView[]>;
  host(reference: string): Promise<HostView>;
  telemetry(host: string): Promise<TelemetryView>;
  /** The dictionary and then samples, until the signal aborts or the server ends; comes back after a broken connection. */
  live(host: string, signal?: AbortSignal): AsyncGenerator<LiveEvent, void>;
  submit(command: Command, signing?: Signing): Promise<CommandView>;
  /** The same signature again changes nothing. */
  addSignature(id: string, signature: string): Promise<CommandView>;
  /** What a command's program printed from `after` on; waits up to `waitSeconds` for some to come. */
  output(id: string, after: number, waitSeconds?: number, until?: AbortSignal): Promise<OutputView>;
  commands(filter: {
    readonly host?: string;
    readonly state?: string;
    readonly limit?: number;
  }): Promise<CommandView[]>;
  command(id: string): Promise<CommandView>;
  cancel(id: string): Promise<CommandView>;
  pause(id: string): Promise<CommandView>;
  resume(id: string): Promise<CommandView>;
  images(): Promise<ImageView[]>;
  image(reference: string): Promise<ImageView>;
  putManifest(root: string, body: Uint8Array): Promise<void>;
  /** After its manifest: groups whose frames the controller has not, first and last of each stretch. */
  wantedGroups(root: string): Promise<[number, number][]>;
  /** @param only the frames are those of the wanted groups */
  putFrames(root: string, body: Readable, bytes: number, only?: "wanted"): Promise<ImageView>;
  /** The manifest's very bytes, unchecked. */
  manifest(root: string): Promise<Uint8Array>;
  /** All frames, one after the other. */
  frames(root: string): Promise<AsyncIterable<Uint8Array>>;
  imageSignatures(root: string): Promise<ImageSignature[]>;
  /** Armored, over the manifest's bytes; the same again changes nothing. */
  signImage(root: string, signature: string): Promise<ImageSignature[]>;
  /** Takes away the signature of one key, and answers those that stay. */
  unsignImage(root: string, fingerprint: string): Promise<ImageSignature[]>;
  /** `force`: also while a command that has not ended names it. */
  removeImage(root: string, force: boolean): Promise<RemovedImage>;
  /** When the connection ends before, so does the collection. */
  collectImages(wanted: CollectionRequest): Promise<CollectionView>;
  /** Of the collection that runs now, if any. */
  collectionProgress(until: AbortSignal): Promise<CollectionProgress | null>;
  /** Of all images. */
  mirrors(): Promise<ImageMirror[]>;
  addMirror(image: string, wanted: MirrorRequest): Promise<ImageMirror>;
  removeMirror(image: string, url: string): Promise<void>;
  approveHost(reference: string, fingerprint?: string): Promise<HostView>;
  rejectHost(reference: string): Promise<HostView>;
  revokeHost(reference: string): Promise<HostView>;
  renameHost(reference: string, name: string): Promise<HostView>;
  /** That instance is the true one; the other machine with its key is shut out. */
  releaseHost(reference: string, instance: string): Promise<HostView>;
  auditHeads(reference: string, limit: number | undefined): Promise<AuditHeadList>;
  createJoinToken(wanted: JoinTokenRequest): Promise<JoinTokenView>;
  joinTokens(): Promise<JoinTokenState[]>;
  revokeJoinToken(id: string): Promise<JoinTokenState>;
  createToken(wanted: TokenRequest): Promise<TokenView>;
  tokens(): Promise<TokenState[]>;
  revokeToken(id: string): Promise<TokenState>;
  audit(limit: number): Promise<AuditEntry[]>;
  /** Whether the controller's own audit holds, also against a head that it once had. */
  verifyAudit(head?: { readonly seq: number; readonly hash: string }): Promise<AuditChainView>;
  authority(): Promise<RotationView>;
  rotateAuthority(step: "rotate" | "finish"): Promise<RotationView>;
  /** Makes a backup on the controller's machine; its bytes do not come this way. */
  backup(): Promise<BackupView>;
  /** Events after `since`, or from now on; goes on after a broken connection where it was. */
  events(since?: number, signal?: AbortSignal): AsyncGenerator<ApiEvent, void>;
}

/** Every request ends when `signal` aborts. */
export function openApi(connection: Connection, signal: AbortSignal): ApiClient {
  const transport = openTransport(connection);
  const checkerOf = createCheckers();

  async function ask<T extends TSchema>(schema: T, asked: Omit<ApiRequest, "signal">): Promise<Static<T>> {
    const value = await transport.json({ ...asked, signal });
    return checkerOf(schema)(value);
  }
  const get = <T extends TSchema>(schema: T, path: string) => ask(schema, { method: "GET", path });
  const post = <T extends TSchema>(schema: T, path: string, json?: unknown) =>
    ask(schema, { method: "POST", path, ...(json === undefined ? {} : { json }) });

  async function* stream(
    path: (last: string) => string,
    until: AbortSignal,
  ): AsyncGenerator<StreamEvent, void> {
    let last = "";
    let failures = 0;
    while (!until.aborted) {
      try {
        const answer = await transport.send({
          method: "GET",
          path: path(last),
          accept: "text/event-stream",
          signal: until,
        });
        const parse = createEventParser();
        const decoder = new TextDecoder();
        for await (const chunk of answer as AsyncIterable<Uint8Array>) {
          for (const event of parse(decoder.decode(chunk, { stream: true }))) {
            failures = 0;
            last = event.id;
            yield event;
          }
        }
      } catch (error) {
        if (until.aborted) return;
        const gone = !(error instanceof BedplateError) || error.code === "controller.unreachable";
        if (!gone || ++failures > reconnectsMax) throw error;
      }
      if (until.aborted) return;
      await sleep(Math.min(5000, 250 * 2 ** failures), until).catch(() => {});
    }
  }

  return {
    url: connection.url,
    status: () => get(StatusView, "/v1/status"),
    hosts: async () => (await get(HostList, "/v1/hosts")).hosts,
    async host(reference) {
      const host = await get(HostView, `/v1/hosts/${segment(reference)}`);
      return requireMeant("host", host.name, host.id, host, reference);
    },
    telemetry: (host) => get(TelemetryView, `/v1/hosts/${segment(host)}/telemetry`),
    async *live(host, until = signal) {
      for await (const event of stream(() => `/v1/hosts/${segment(host)}/telemetry/live`, until)) {
        if (event.event === "dictionary")
          yield { type: "dictionary", dictionary: checkerOf(LiveDictionary)(JSON.parse(event.data)) };
        if (event.event === "sample")
          yield { type: "sample", sample: checkerOf(LiveSample)(JSON.parse(event.data)) };
      }
    },
    submit: (command, { signatures = [], signaturesWanted } = {}) =>
      post(CommandView, "/v1/commands", {
        document: textOf(encodeCommand(command)),
        signatures,
        ...(signaturesWanted === undefined ? {} : { signaturesWanted }),
      }),
    addSignature: (id, signature) => post(CommandView, `${commandPath(id)}/signatures`, { signature }),
    output: async (id, after, waitSeconds = 0, until = signal) =>
      checkerOf(OutputView)(
        await transport.json({
          method: "GET",
          path: `${commandPath(id)}/output?after=${after}&waitSeconds=${waitSeconds}`,
          signal: until,
        }),
      ),
    commands: async (filter) => {
      const query = new URLSearchParams(
        Object.entries(filter).map(([key, value]): [string, string] => [key, `${value}`]),
      );
      return (await get(CommandList, `/v1/commands?${query}`)).commands;
    },
    command: (id) => get(CommandView, `${commandPath(id)}`),
    cancel: (id) => ask(CommandView, { method: "POST", path: `${commandPath(id)}/cancel` }),
    pause: (id) => ask(CommandView, { method: "POST", path: `${commandPath(id)}/pause` }),
    resume: (id) => ask(CommandView, { method: "POST", path: `${commandPath(id)}/resume` }),
    images: async () => (await get(ImageList, "/v1/images")).images,
    async image(reference) {
      const image = await get(ImageView, `/v1/images/${segment(reference)}`);
      return requireImage(image, reference);
    },
    async putManifest(root, body) {
      await transport.json({
        method: "PUT",
        path: `/v1/images/${root}/manifest`,
        octets: { body, bytes: body.length },
        signal,
      });
    },
    wantedGroups: async (root) => (await get(WantedGroups, `/v1/images/${root}/wanted`)).wanted,
    putFrames: (root, body, bytes, only) =>
      ask(ImageView, {
        method: "PUT",
        path: `/v1/images/${root}/frames${only === undefined ? "" : `?only=${only}`}`,
        octets: { body, bytes },
      }),
    async manifest(root) {
      const path = `/v1/images/${root}/manifest`;
      const answer = await transport.bytes({ method: "GET", path, accept: "*/*", signal });
      const pieces: Uint8Array[] = [];
      let bytes = 0;
      for await (const piece of answer) {
        bytes += piece.length;
        if (bytes > limits.manifestBytesMax)
          throw new BedplateError("image.bad-manifest", "The manifest is larger than any may be.");
        pieces.push(piece);
      }
      return Buffer.concat(pieces);
    },
    frames: (root) =>
      transport.bytes({ method: "GET", path: `/v1/images/${root}/frames`, accept: "*/*", signal }),
    imageSignatures: async (root) =>
      (await get(ImageSignatures, `/v1/images/${segment(root)}/signatures`)).signatures,
    signImage: async (root, signature) =>
      (await post(ImageSignatures, `/v1/images/${segment(root)}/signatures`, { signature })).signatures,
    unsignImage: async (root, fingerprint) =>
      (await post(ImageSignatures, `/v1/images/${segment(root)}/signatures/remove`, { fingerprint }))
        .signatures,
    removeImage: (root, force) => post(RemovedImage, `/v1/images/${segment(root)}/remove`, { force }),
    // It may write for long before it answers.
    collectImages: async (wanted) =>
      checkerOf(CollectionView)(
        await transport.json({
          ...{ method: "POST", path: "/v1/images/collect", json: wanted, signal },
          idleMs: collectionIdleMs,
        }),
      ),
    collectionProgress: async (until) =>
      checkerOf(CollectionState)(
        await transport.json({ method: "GET", path: "/v1/image-collection", signal: until }),
      ).running,
    mirrors: async () => (await get(MirrorList, "/v1/mirrors")).mirrors,
    addMirror: (image, wanted) => post(ImageMirror, `/v1/images/${segment(image)}/mirrors`, wanted),
    async removeMirror(image, url) {
      const path = `/v1/images/${segment(image)}/mirrors/remove`;
      await transport.json({ method: "POST", path, json: { url }, signal });
    },
    approveHost: (reference, fingerprint) =>
      post(
        HostView,
        `/v1/hosts/${segment(reference)}/approve`,
        fingerprint === undefined ? {} : { fingerprint },
      ),
    rejectHost: (reference) => post(HostView, `/v1/hosts/${segment(reference)}/reject`),
    revokeHost: (reference) => post(HostView, `/v1/hosts/${segment(reference)}/revoke`),
    renameHost: (reference, name) => post(HostView, `/v1/hosts/${segment(reference)}/rename`, { name }),
    releaseHost: (reference, instance) =>
      post(HostView, `/v1/hosts/${segment(reference)}/release`, { instance }),
    auditHeads: (reference, limit) =>
      get(
        AuditHeadList,
        `/v1/hosts/${segment(reference)}/audit-heads${limit === undefined ? "" : `?limit=${limit}`}`,
      ),
    createJoinToken: (wanted) => post(JoinTokenView, "/v1/join-tokens", wanted),
    joinTokens: async () => (await get(JoinTokenList, "/v1/join-tokens")).joinTokens,
    revokeJoinToken: (id) => post(JoinTokenState, `/v1/join-tokens/${segment(id)}/revoke`),
    createToken: (wanted) => post(TokenView, "/v1/tokens", wanted),
    tokens: async () => (await get(TokenList, "/v1/tokens")).tokens,
    revokeToken: (id) => post(TokenState, `/v1/tokens/${segment(id)}/revoke`),
    audit: async (limit) => (await get(AuditList, `/v1/audit?limit=${limit}`)).entries,
    verifyAudit: (head) =>
      get(
        AuditChainView,
        `/v1/audit/verify${head === undefined ? "" : `?seq=${head.seq}&hash=${segment(head.hash)}`}`,
      ),
    authority: () => get(RotationView, "/v1/authority"),
    rotateAuthority: (step) => post(RotationView, `/v1/authority/${step}`),
    backup: () => post(BackupView, "/v1/backups"),
    async *events(since, until = signal) {
      const path = (last: string) => {
        const from = last === "" ? since : Number(last);
        return from === undefined ? "/v1/events" : `/v1/events?since=${from}`;
      };
      for await (const event of stream(path, until)) yield checkerOf(ApiEvent)(JSON.parse(event.data));
    },
    [Symbol.dispose]: () => transport[Symbol.dispose](),
  };
}

/**
 * What goes by a name or a digest must be what was named: a controller that gives another is found out here.
 * @throws `message.invalid`
 */
function requireMeant<T>(what: string, name: string, digest: string, found: T, reference: string): T {
  if (name === reference || digest.startsWith(reference.toLowerCase())) return found;
  throw new BedplateError(
    "message.invalid",
    `The controller was asked for the ${what} ${reference} and answered with ${name} (${digest.slice(0, 16)}…).`,
  );
}

/**
 * The same for images, where so many digits are a root's or its beginning, never a name: who uploads an image named like
 * another's root has nobody sign or deploy it in the other's place.
 * @throws `message.invalid`, `image.unknown`
 */
export function requireImage(image: ImageView, reference: string): ImageView {
  if (!/^[0-9a-f]{16,64}$/i.test(reference) || image.root.startsWith(reference.toLowerCase()))
    return requireMeant("image", image.name, image.root, image, reference);
  throw new BedplateError(
    "image.unknown",
    `There is no image whose root begins with ${reference}; one has that for its name.`,
    { hint: `If that is the one you mean, say its root: ${image.root}.` },
  );
}

/**
 * A name or an id as a part of a path: one that no server could take is not sent.
 * @throws `usage`
 */
function segment(reference: string): string {
  if (reference.length > segmentCharactersMax)
    throw new BedplateError(
      "usage",
      `"${reference.slice(0, 64)}…" has ${reference.length} characters; no name or id has more than ${segmentCharactersMax}.`,
    );
  if (reference === "." || reference === "..")
    throw new BedplateError("usage", `"${reference}" is no name or id.`);
  return encodeURIComponent(reference);
}

const segmentCharactersMax = 256;

/** @throws `usage` for what can be no command's id */
function commandPath(id: string): string {
  if (/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id))
    return `/v1/commands/${id}`;
  throw new BedplateError("usage", `"${id.slice(0, 64)}${id.length > 64 ? "…" : ""}" is no command's id.`, {
    hint: "`bedplate commands` lists them.",
  });
}

/** A terabyte is copied meanwhile. */
const collectionIdleMs = 3_600_000;

/** In a row, before a stream gives up. */
const reconnectsMax = 20;

/** Compiling a schema costs milliseconds: only those that are met, once. */
function createCheckers(): <T extends TSchema>(schema: T) => (value: unknown) => Static<T> {
  const made = new Map<TSchema, (value: unknown) => unknown>();
  return <T extends TSchema>(schema: T) => {
    const known = made.get(schema) ?? checker(schema, "message.invalid", "controller's answer");
    made.set(schema, known);
    return known as (value: unknown) => Static<T>;
  };
}
