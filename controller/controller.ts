// Builds the controller's parts in order, connects them, and stops them in reverse.
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { BedplateError } from "../protocol/errors.ts";
import type { App } from "./api/app.ts";
import { createApi, tlsOf } from "./api/server.ts";
import { openAuditKey } from "./authority/audit-key.ts";
import type { Authority } from "./authority/authority.ts";
import { AuthorityKeeper } from "./authority/authority-keeper.ts";
import { Backups } from "./backup.ts";
import { refreshClientFile } from "./client-file.ts";
import { Dispatcher } from "./commands/dispatch.ts";
import { OutputNews } from "./commands/output-news.ts";
import { CommandService } from "./commands/service.ts";
import type { ControllerConfig } from "./config.ts";
import { HostService, shutOut } from "./hosts/service.ts";
import { ImageBearers } from "./images/image-bearers.ts";
import { ImageMirrors } from "./images/image-mirrors.ts";
import { type ImageStore, openImageStore } from "./images/store.ts";
import { LinkMeters } from "./link/meters.ts";
import { LinkServer } from "./link/server.ts";
import { Sessions } from "./link/sessions.ts";
import { Strangers } from "./link/strangers.ts";
import { openPrivateDirectory } from "./machine/files.ts";
import type { Log } from "./machine/log.ts";
import { type Clock, type Random, systemClock, systemRandom } from "./machine/system.ts";
import { type Lived, live, patientTime } from "./rules/patient-time.ts";
import { openSqliteStore } from "./store/sqlite.ts";
import type { Store } from "./store/store.ts";
import { LiveTelemetry } from "./telemetry/live.ts";
import { ProgressBoard } from "./telemetry/progress.ts";
import { LateWriter } from "./telemetry/writer.ts";

export interface ControllerAddress {
  /** What clients on this machine call; the certificate is for `tlsServerName` at any address. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
}

export interface ControllerParts {
  readonly log: Log;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly openImages?: (directory: string) => Promise<ImageStore>;
  readonly reconnectWindowMsMin?: number;
}

export interface Controller extends AsyncDisposable {
  readonly address: ControllerAddress;
}

/** @throws `state.unsafe`, `state.in-use`, `state.newer`, `config.invalid` when the address cannot be had */
export async function startController(config: ControllerConfig, parts: ControllerParts): Promise<Controller> {
  const {
    log,
    clock = systemClock,
    random = systemRandom,
    openImages = openImageStore,
    reconnectWindowMsMin = 5000,
  } = parts;
  const directory = config.stateDirectory;
  await using stack = new AsyncDisposableStack();
  await openPrivateDirectory(directory);
  const store = stack.use(await openSqliteStore(join(directory, "controller.db")));
  const ageing = stack.use(await ageingOf(store, clock, log));
  const { agesBy } = ageing;
  await store.hosts.forgetSessions();
  const names = isWildcard(config.listen.host) ? config.names : [config.listen.host, ...config.names];
  const authority = await AuthorityKeeper.open({ directory, names, store, clock, random, log });
  const onUnreadable = (image: string, error: unknown) =>
    log.error({ err: error, image }, "files in the image store cannot be used: the image is not listed");
  const images = stack.use(await openImages(join(directory, "images"), { onUnreadable }));
  const writer = stack.use(
    new LateWriter({ store, clock, log, telemetryHours: config.telemetryHours, agesBy }),
  );
  const bearers = new ImageBearers(await store.secret("image-bearer", () => random.bytes(32)), clock);
  const mirrors = await ImageMirrors.open({ store, clock });
  const auditKey = await openAuditKey(store, random);
  const [sessions, live, progress, meters] = [
    new Sessions(),
    new LiveTelemetry(),
    new ProgressBoard(),
    new LinkMeters(),
  ];
  const outputs = stack.use(new OutputNews({ store, clock, log }));
  const dispatcher = stack.use(new Dispatcher({ store, sessions, bearers, mirrors, clock, log, agesBy }));
  const commands = stack.use(new CommandService({ store, images, dispatcher, clock, log, agesBy }));
  const hosts = new HostService({ store, sessions, dispatcher, clock, log });
  const backups = new Backups({ store, directory, clock, random, log });
  const strangers = new Strangers(() => clock.monotonicMs());
  const stopping = new AbortController();
  const api = await createApi({
    store,
    images,
    commands,
    hosts,
    backups,
    outputs,
    progress,
    live,
    sessions,
    strangers,
    bearers,
    mirrors,
    meters,
    authority,
    auditKey,
    clock,
    random,
    log,
    stopping: stopping.signal,
  });
  stack.defer(() => api.close());
  const link = stack.use(
    new LinkServer({
      ...{
        store,
        writer,
        live,
        progress,
        meters,
        clock,
        random,
        log,
        sessions,
        strangers,
        reconnectWindowMsMin,
        auditKey,
      },
      trustedAuthority: () => authority.current,
      heartbeatMs: config.heartbeatMs,
      onReplaced: (host) => shutOut(sessions, host),
      offer: (session) => dispatcher.serve(session),
      authority: () => `${bracketed(address.host)}:${address.port}`,
    }),
  );
  stack.defer(() => stopping.abort());
  api.server.on("connection", (socket) => link.connection(socket));
  api.server.on("upgrade", (request, socket, head) => link.upgrade(request, socket, head));
  const address = await listen(api, config);
  const trustIn = ({ trustedPem }: Authority): Promise<void> =>
    refreshClientFile(
      directory,
      { url: address.url, caPem: trustedPem },
      { tokens: store.tokens, clock, random },
    );
  await trustIn(authority.current);
  authority.follow(async (changed) => {
    // Connections that are open go on; who connects from now on is shown the new chain.
    api.server.setSecureContext(tlsOf(changed));
    await trustIn(changed);
    await link.tellAuthority();
  });
  log.info(
    { url: address.url, stateDirectory: directory, caSha256: authority.current.caSha256 },
    "the controller listens",
  );
  const running = stack.move();
  return { address, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

/** By which time what waits or is kept for so many days is too old, see `patientTime`. */
async function ageingOf(
  store: Pick<Store, "events" | "lived" | "keepLived">,
  clock: Clock,
  log: Log,
): Promise<Disposable & { readonly agesBy: () => number }> {
  let lived = (await store.lived()) ?? (await livedAsTold(store, clock));
  let livedMs = clock.monotonicMs();
  const upToNow = (): Lived =>
    live(lived, { now: clock.now(), elapsedMs: Math.max(0, clock.monotonicMs() - livedMs) });
  // Before anything is told of by a clock that may be wrong.
  await store.keepLived(lived);
  const timer = clock.every(keepLivedMs, () => {
    lived = upToNow();
    livedMs = clock.monotonicMs();
    store
      .keepLived(lived)
      .catch((error: unknown) => log.error({ err: error }, "not noted what time was lived through"));
  });
  return {
    agesBy: () => patientTime(upToNow(), clock.now()),
    [Symbol.dispose]: () => timer[Symbol.dispose](),
  };
}

const keepLivedMs = 60_000;

/** Of a state that kept no such note yet. */
async function livedAsTold({ events }: Pick<Store, "events">, clock: Clock): Promise<Lived> {
  const newest = await events.after(Math.max(0, (await events.newest()) - 1), 1);
  return { until: (newest === "gone" ? undefined : newest[0]?.at) ?? clock.now(), doubtedMs: 0 };
}

async function listen(api: App, { listen: { host, port } }: ControllerConfig): Promise<ControllerAddress> {
  try {
    await api.listen({ host, port });
  } catch (cause) {
    throw new BedplateError(
      "config.invalid",
      `The controller cannot listen on ${bracketed(host)}:${port}: ${cause instanceof Error ? cause.message : String(cause)}.`,
      {
        hint: "Is another controller running? Another address can be given with listen, port 0 takes a free one.",
        details: { key: "listen" },
        cause,
      },
    );
  }
  const bound = (api.server.address() as AddressInfo).port;
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return { url: `https://${bracketed(reachable)}:${bound}`, host: reachable, port: bound };
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
