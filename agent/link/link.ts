// Keeps the one connection to the controller: dials, introduces the host, runs the session, and comes back after its end.
import { closeCodes } from "../../protocol/codes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import type { Clock } from "../host/clock.ts";
import type { Random } from "../host/random.ts";
import type { StateDirectory } from "../host/state-directory.ts";
import type { HostKeys } from "../keys.ts";
import { knownAuthority, pinAuthority } from "./authority.ts";
import { createBackoff } from "./backoff.ts";
import { createEpochMemory } from "./epoch.ts";
import { type Introduction, introduce } from "./handshake.ts";
import { type LinkParts, runSession } from "./session.ts";
import { type LinkSocket, openSocket } from "./socket.ts";

export interface LinkOptions {
  readonly controller: URL;
  readonly joinToken: string | undefined;
  readonly name: string | undefined;
  readonly hostname: string;
  readonly bootId: string;
  readonly keys: HostKeys;
  readonly state: StateDirectory;
  readonly random: Random;
  readonly parts: LinkParts;
  /** Told at each change; `ca` is the pinned authority. */
  onState(state: { readonly connected: boolean; readonly ca?: string; readonly name?: string }): void;
}

const enrolledFile = "enrolled.json";

/** Runs until aborted. Connection troubles are logged once each time they change, never thrown. */
export async function runLink(options: LinkOptions, signal: AbortSignal): Promise<void> {
  const { parts, random } = options;
  const backoff = createBackoff();
  let previousSession: string | undefined;
  const epochs = createEpochMemory(options.state, parts.log);
  let lastTrouble = "";

  while (!signal.aborted) {
    let waitMs: number | undefined;
    try {
      const ca = knownAuthority(options.state) ?? (await firstAuthority(options, signal));
      const socket = await openSocket(options.controller, ca, signal);
      const enrolled = options.state.read(enrolledFile) !== undefined;
      const nonce = random.bytes(32);
      const self = {
        ...options,
        nonce,
        previousSession,
        joinToken: enrolled ? undefined : options.joinToken,
      };
      const { welcome, epoch } = await introduceInTime(socket, self, parts.clock, signal);
      if (!enrolled) {
        options.state.write(
          enrolledFile,
          Buffer.from(
            JSON.stringify({ host: welcome.host, name: welcome.name, controller: options.controller.href }),
          ),
        );
      }
      previousSession = welcome.session;
      lastTrouble = "";
      parts.log.info(
        {
          controller: options.controller.host,
          host: welcome.host,
          name: welcome.name,
          session: welcome.session,
          fingerprint: fingerprintOf(welcome.host),
        },
        "connected to the controller",
      );
      if (welcome.standing === "pending") {
        parts.log.warn(
          { code: "host.pending", fingerprint: fingerprintOf(welcome.host) },
          `This host waits for approval. Compare the fingerprint, then: bedplate host approve ${welcome.name} --fingerprint ${fingerprintOf(welcome.host)}`,
        );
      }
      epochs.seen(epoch);
      options.onState({ connected: true, ca, name: welcome.name });
      const closed = await runSession(socket, welcome, parts, signal);
      options.onState({ connected: false });
      if (signal.aborted) break;
      parts.log.warn(
        { code: closed.code, reason: closed.reason, livedMs: Math.round(closed.livedMs) },
        "the connection to the controller ended",
      );
      backoff.sessionEnded(closed.livedMs);
      const wanted = Object.values(closeCodes).find(({ code }) => code === closed.code);
      // The server's side ended it: everyone else was sent away too, so come back spread over its window, and never
      // sooner than after any other failure.
      if (wanted?.retry === "window")
        waitMs = Math.max(random.fraction() * closed.reconnectWindowMs, backoff.next(random.fraction()));
      if (closed.code === closeCodes.replaced.code) waitMs = replacedMs;
    } catch (error) {
      if (signal.aborted) break;
      const trouble = error instanceof BedplateError ? error.code : "internal";
      const facts = { controller: options.controller.host, code: trouble, err: error };
      if (trouble === lastTrouble) parts.log.debug(facts, "the controller is still out of reach");
      else parts.log.warn(facts, `${(error as Error).message} Trying again for as long as it takes.`);
      lastTrouble = trouble;
    }
    await parts.clock.sleep(waitMs ?? backoff.next(random.fraction()), signal).catch(() => undefined);
  }
}

/** After another agent with this host's key took over: rare and slow, so that two copies never fight. */
const replacedMs = 60_000;

const introductionMs = 15_000;

/** Between hello and welcome nothing else would notice a controller that says nothing more. */
async function introduceInTime(socket: LinkSocket, self: Introduction, clock: Clock, signal: AbortSignal) {
  const silent = new BedplateError(
    "controller.unreachable",
    `The controller did not welcome this host within ${introductionMs / 1000} s.`,
  );
  using late = clock.deadline(introductionMs, signal, silent);
  const cut = () => socket.terminate();
  late.addEventListener("abort", cut, { once: true });
  try {
    return await introduce(socket, self);
  } catch (error) {
    socket.terminate();
    throw late.aborted ? late.reason : error;
  } finally {
    late.removeEventListener("abort", cut);
  }
}

async function firstAuthority(options: LinkOptions, signal: AbortSignal): Promise<string> {
  if (options.joinToken === undefined) {
    throw new BedplateError(
      "enrol.token-invalid",
      "This host has not joined a controller and has no join token.",
      {
        hint: "Make one with `bedplate join-token create`, then start with `bedplate agent --join TOKEN` or set joinToken in agent.toml.",
      },
    );
  }
  return pinAuthority(options.controller, options.joinToken, options.state, signal);
}
