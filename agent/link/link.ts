// Keeps the one connection to the controller: dials, introduces the host, runs the session, and comes back after its end.
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { Random } from "../host/random.ts";
import type { StateDirectory } from "../host/state-directory.ts";
import type { Pins } from "./authority.ts";
import { createBackoff } from "./backoff.ts";
import { createEpochMemory } from "./epoch.ts";
import { type Introduction, introduce, type RefusalDetails, type Welcome } from "./handshake.ts";
import type { IdentityWatch } from "./identity.ts";
import type { HostKeys } from "./keys.ts";
import { redialMs } from "./redial.ts";
import { type LinkParts, runSession } from "./session.ts";
import { type LinkSocket, openSocket } from "./socket.ts";

export interface LinkOptions {
  readonly controller: URL;
  readonly joinToken: string | undefined;
  readonly name: string | undefined;
  readonly hostname: string;
  readonly bootId: string;
  readonly keys: HostKeys;
  readonly pins: Pins;
  readonly identity: Pick<IdentityWatch, "welcomed">;
  readonly state: StateDirectory;
  readonly random: Random;
  readonly parts: Omit<LinkParts, "authority" | "standing">;
  /** Told at each change. */
  onState(state: { readonly connected: boolean }): void;
}

const enrolledFile = "enrolled.json";

/** Runs until aborted. Connection troubles are logged once each time they change, never thrown. */
export async function runLink(options: LinkOptions, signal: AbortSignal): Promise<void> {
  const { parts, random, pins, state } = options;
  const { log } = parts;
  const backoff = createBackoff();
  const epochs = createEpochMemory(state, log);
  let previousSession: string | undefined;
  let lastTrouble = "";
  let known = state.read(enrolledFile) !== undefined;

  while (!signal.aborted) {
    let waitMs: number;
    try {
      const ca = pins.pem ?? (await firstAuthority(options, signal));
      const self: Introduction = {
        ...options,
        nonce: random.bytes(32),
        previousSession,
        epochSeen: epochs.highest,
        joinToken: known ? undefined : options.joinToken,
        cancel: (command) => parts.cancel(command, true),
      };
      const { socket, welcome, epoch } = await connectInTime(options, ca, self, signal);
      if (state.read(enrolledFile) === undefined) {
        const { host, name } = welcome;
        const joined = { host, name, controller: options.controller.href };
        state.write(enrolledFile, Buffer.from(JSON.stringify(joined)));
      }
      known = true;
      previousSession = welcome.session;
      lastTrouble = "";
      tellWelcome(welcome, options);
      epochs.seen(epoch);
      options.identity.welcomed(welcome.identity);
      options.onState({ connected: true });
      const closed = await runSession(
        socket,
        welcome,
        options.keys,
        {
          ...parts,
          authority: (pem) => {
            if (pins.replace(pem) === "changed")
              log.info({ code: "controller.authority" }, "the controller named other authorities to trust");
            return pins.trusted;
          },
          standing: (standing) => tellStanding({ ...welcome, standing }, log),
        },
        signal,
      ).finally(() => options.onState({ connected: false }));
      if (signal.aborted) break;
      log.warn(
        { code: closed.code, reason: closed.reason, livedMs: Math.round(closed.livedMs) },
        "the connection to the controller ended",
      );
      backoff.sessionEnded(closed.livedMs);
      waitMs = redialMs(closed, backoff, () => random.fraction());
    } catch (error) {
      if (signal.aborted) break;
      const trouble = error instanceof BedplateError ? error.code : "internal";
      const facts = { controller: options.controller.host, code: trouble, err: error };
      if (trouble === lastTrouble) log.debug(facts, "the controller is still out of reach");
      else log.warn(facts, `${sentencesOf(error)} Trying again for as long as it takes.`);
      lastTrouble = trouble;
      // A controller that was set up anew does not know this host: the token, where there is one, is for it.
      if (trouble === "link.unknown-host") known = false;
      waitMs = afterFailure(error, backoff, random);
      if (trouble === "controller.untrusted" && (await adoptedAnew(options, signal))) waitMs = 0;
    }
    await parts.clock.sleep(waitMs, signal).catch(() => undefined);
  }
}

function tellWelcome(welcome: Welcome, { controller, parts }: LinkOptions): void {
  const { host, name, session } = welcome;
  parts.log.info(
    { controller: controller.host, host, hostName: name, session, fingerprint: fingerprintOf(host) },
    "connected to the controller",
  );
  if (welcome.standing === "pending" || welcome.standing === "quarantined") tellStanding(welcome, parts.log);
}

function tellStanding({ host, name, standing }: Welcome, log: LinkParts["log"]): void {
  const fingerprint = fingerprintOf(host);
  switch (standing) {
    case "pending":
      log.warn(
        { code: "host.pending", fingerprint },
        `This host waits for approval. Compare the fingerprint, then: bedplate host approve ${name} --fingerprint ${fingerprint}`,
      );
      break;
    case "quarantined":
      log.error(
        { code: "host.quarantined", fingerprint },
        `Another machine answers with this host's key; it is only read from until a person has decided: bedplate host show ${name}`,
      );
      break;
    case "approved":
    case undefined:
      log.info({ fingerprint }, "this host may work: it is approved");
      break;
  }
}

/** What to do about it is logged with it: whoever reads the log is on the host. */
function sentencesOf(error: unknown): string {
  const { message } = error as Error;
  return error instanceof BedplateError && error.hint !== undefined ? `${message} ${error.hint}` : message;
}

/** When to dial again after a connection that never became a session. */
function afterFailure(error: unknown, backoff: ReturnType<typeof createBackoff>, random: Random): number {
  const details = error instanceof BedplateError ? (error.details ?? {}) : {};
  const { close, reconnectWindowMs } = details as Partial<RefusalDetails>;
  const { retryAfterMs } = details as { retryAfterMs?: number };
  if (close !== undefined)
    return redialMs({ code: close, reconnectWindowMs, ours: false }, backoff, () => random.fraction());
  // All who are told so at once shall not come back at once.
  return Math.max(backoff.next(random.fraction()), (retryAfterMs ?? 0) * (1 + random.fraction()));
}

/**
 * The server is not one that this host trusts: where there is a join token that names another authority, that one is what
 * an administrator of this host says is right.
 */
async function adoptedAnew(options: LinkOptions, signal: AbortSignal): Promise<boolean> {
  const { pins, joinToken, controller, parts } = options;
  if (joinToken === undefined || pins.pem === undefined || !pins.isNews(joinToken)) return false;
  try {
    await pins.adopt(controller, joinToken, signal);
    parts.log.warn(
      { controller: controller.host },
      "the authority of the join token is trusted from now on, in place of the one before",
    );
    return true;
  } catch (error) {
    parts.log.warn({ err: error }, sentencesOf(error));
    return false;
  }
}

/** From the first packet to the welcome, a few seconds of which the controller may take to ask another machine. */
const connectMs = 15_000;

/** On the way to a session nothing else would notice a wire gone dead, or a peer that says a byte now and then. */
async function connectInTime(options: LinkOptions, ca: string, self: Introduction, signal: AbortSignal) {
  const { controller, parts } = options;
  const silent = new BedplateError(
    "controller.unreachable",
    `The controller at ${controller.host} did not welcome this host within ${connectMs / 1000} s.`,
  );
  using late = parts.clock.deadline(connectMs, signal, silent);
  let socket: LinkSocket | undefined;
  try {
    socket = await openSocket(controller, ca, late);
    return { socket, ...(await introduce(socket, self)) };
  } catch (error) {
    socket?.terminate();
    throw late.aborted ? late.reason : error;
  }
}

async function firstAuthority(
  { controller, joinToken, pins }: LinkOptions,
  signal: AbortSignal,
): Promise<string> {
  if (joinToken === undefined) {
    throw new BedplateError(
      "enrol.token-invalid",
      "This host has not joined a controller and has no join token.",
      {
        hint: "Make one with `bedplate join-token create`, then start with `bedplate agent --join TOKEN` or set joinToken in agent.toml.",
      },
    );
  }
  return pins.adopt(controller, joinToken, signal);
}
