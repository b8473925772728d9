// Who this host's executor is, as it publishes it: vouched for with the link key, and sent when the controller has not got it.
import { BedplateError } from "../../protocol/errors.ts";
import {
  ExecutorIdentity,
  type HostIdentity,
  identityDigest,
  linkProofOfAttestation,
} from "../../protocol/identity.ts";
import { checker } from "../../protocol/schema.ts";
import { signMessage } from "../../protocol/ssh-sign.ts";
import type { ExecutorLauncher } from "../door/executor-process.ts";
import type { Clock } from "../host/clock.ts";
import { errnoOf, type Files } from "../host/files.ts";
import type { Log } from "../host/log.ts";
import { createBell } from "./bell.ts";
import type { HostKeys } from "./keys.ts";
import { isDiskFull, type Outbox } from "./outbox.ts";

export interface IdentityOptions {
  /** Where the executor publishes itself. */
  readonly path: string;
  readonly keys: HostKeys;
  readonly files: Pick<Files, "readBytes">;
  readonly executors: Pick<ExecutorLauncher, "start">;
  readonly outbox: Pick<Outbox, "append">;
  readonly clock: Clock;
  readonly log: Log;
  /** There is something to send. */
  onChange(): void;
}

export interface IdentityWatch {
  /** A session began; the controller has this identity, by `identityDigest`. */
  welcomed(digest: string | undefined): void;
  /** An executor ran: what it published may be different. */
  executorRan(): void;
  run(signal: AbortSignal): Promise<void>;
}

export const identityLimits = {
  fileBytesMax: 64 * 1024,
  /** Before it asks an executor, so that the connection comes first; where nothing was published yet, no longer than that. */
  firstAskMs: 3000,
  /** How often it asks again: the policy may have been changed while nothing was asked of this host. */
  askEveryMs: 3_600_000,
  /** How long an executor takes at most to publish itself. */
  publishMsMax: 20_000,
  /** The file is read no more often than this. */
  readEveryMs: 1000,
} as const;

const check = checker(ExecutorIdentity, "executor.failed", "identity of the executor");

export function createIdentityWatch(options: IdentityOptions): IdentityWatch {
  const { keys, clock, log } = options;
  const bell = createBell();
  let current:
    | { readonly text: string; readonly identity: ExecutorIdentity; readonly digest: string }
    | undefined;
  /** What the controller has; undefined while nothing is known of that. */
  let known: { readonly digest: string | undefined } | undefined;
  let trouble = "";
  const connected = new AbortController();

  const complain = (error: unknown) => {
    const code = error instanceof BedplateError ? error.code : errnoOf(error);
    if (code === trouble) return;
    trouble = code;
    log.warn({ code, err: error }, "who this host's executor is cannot be read");
  };

  const read = async () => {
    let text: string;
    try {
      text = Buffer.from(options.files.readBytes(options.path, identityLimits.fileBytesMax)).toString("utf8");
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") complain(error);
      return;
    }
    if (text === current?.text) return;
    try {
      const identity = check(JSON.parse(text));
      // Of a host of before, whose directories this one has taken over.
      if (identity.host !== keys.hostId) return;
      current = { text, identity, digest: await identityDigest(identity) };
      trouble = "";
    } catch (error) {
      complain(error);
    }
  };

  const tell = async () => {
    if (current === undefined || known === undefined) return;
    const { identity, digest } = current;
    if (digest === known.digest) return;
    const message = linkProofOfAttestation(identity.attestationKey);
    const linkSignature = await signMessage(
      { publicKey: keys.linkKey, sign: keys.sign },
      "bedplate-identity",
      message,
    );
    const vouched: HostIdentity = { ...identity, linkSignature };
    try {
      options.outbox.append({ type: "identity", identity: vouched }, clock.now());
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      complain(error);
      // Again, as soon as the file may be read again.
      bell.ring();
      return;
    }
    // It will have it; and if not, its next welcome says so.
    known = { digest };
    options.onChange();
  };

  // Under systemd nobody says when the executor has ended: what counts is the file.
  const ask = async (signal: AbortSignal) => {
    const done = new AbortController();
    try {
      const started = await options.executors.start({ request: "identify", host: keys.hostId });
      void started.ended.then(() => done.abort());
      await clock.sleep(identityLimits.publishMsMax, AbortSignal.any([signal, done.signal]));
    } catch (error) {
      if (!signal.aborted && !done.signal.aborted) complain(error);
    }
    bell.ring();
  };

  const askAgainAndAgain = async (signal: AbortSignal) => {
    const first = AbortSignal.any([signal, connected.signal]);
    await clock.sleep(identityLimits.firstAskMs, first).catch(() => undefined);
    while (!signal.aborted) {
      await ask(signal);
      await clock.sleep(identityLimits.askEveryMs, signal).catch(() => undefined);
    }
  };

  const watch = async (signal: AbortSignal) => {
    while (!signal.aborted) {
      await read();
      await tell();
      await bell.wait();
      await clock.sleep(identityLimits.readEveryMs, signal).catch(() => undefined);
    }
  };

  return {
    welcomed(digest) {
      known = { digest };
      bell.ring();
      // Nobody can approve a host by a key that it has not told: not later than it must be.
      if (current === undefined) connected.abort();
    },
    executorRan: () => bell.ring(),
    async run(signal) {
      signal.addEventListener("abort", () => bell.ring(), { once: true });
      await Promise.all([watch(signal), askAgainAndAgain(signal)]);
    },
  };
}
