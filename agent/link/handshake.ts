// Proving to the controller who this host is: hello, challenge, auth, welcome.

import { isCode } from "../../protocol/codes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { encodeFrame } from "../../protocol/frames.ts";
import { linkProofBytes, probeBytes } from "../../protocol/link-proof.ts";
import { type AgentMessage, type ControllerMessage, protocolVersion } from "../../protocol/messages.ts";
import { version } from "../../protocol/version.ts";
import type { HostKeys } from "./keys.ts";
import type { LinkSocket } from "./socket.ts";

export type Welcome = Extract<ControllerMessage, { t: "welcome" }>;

export interface Introduction {
  readonly keys: HostKeys;
  readonly hostname: string;
  readonly bootId: string;
  /** 32 fresh random bytes. */
  readonly nonce: Uint8Array;
  readonly previousSession: string | undefined;
  readonly epochSeen: number;
  /** Only where the controller does not know the host yet. */
  readonly joinToken: string | undefined;
  readonly name: string | undefined;
  /** The controller refuses this machine, for another has its key, but it may run what is to be cancelled. */
  cancel(command: string): void;
}

/** @throws the controller's own code when it says goodbye, `message.unexpected`, `controller.unreachable` */
export async function introduce(
  socket: LinkSocket,
  self: Introduction,
): Promise<{ readonly welcome: Welcome; readonly epoch: number }> {
  const hello = encodeFrame({
    t: "hello",
    versions: { min: protocolVersion, max: protocolVersion },
    agentVersion: version,
    linkKey: self.keys.linkKey,
    nonce: self.nonce,
    instance: self.keys.instance,
    bootId: self.bootId,
    hostname: self.hostname,
    ...(self.previousSession === undefined ? {} : { previousSession: self.previousSession }),
    ...(self.epochSeen === 0 ? {} : { epochSeen: self.epochSeen }),
  } satisfies AgentMessage);
  socket.sendBytes(hello);

  const challenge = await expect(socket, self, "challenge");
  const proof = await linkProofBytes({
    agentNonce: self.nonce,
    controllerNonce: challenge.nonce,
    exported: socket.exported,
    hello,
  });
  socket.send({
    t: "auth",
    signature: self.keys.sign(proof),
    ...(self.joinToken === undefined ? {} : { joinToken: self.joinToken }),
    ...(self.name === undefined ? {} : { name: self.name }),
  });
  return { welcome: await expect(socket, self, "welcome"), epoch: challenge.epoch };
}

/** Answers a probe: the key is at this end of this connection, now. */
export async function answerProbe(socket: LinkSocket, keys: HostKeys, nonce: Uint8Array): Promise<void> {
  socket.send({ t: "proof", nonce, signature: keys.sign(await probeBytes(nonce, socket.exported)) });
}

async function expect<T extends ControllerMessage["t"]>(
  socket: LinkSocket,
  { keys, cancel }: Pick<Introduction, "keys" | "cancel">,
  type: T,
): Promise<Extract<ControllerMessage, { t: T }>> {
  for (;;) {
    const message = await socket.next();
    if (message?.t === type) return message as Extract<ControllerMessage, { t: T }>;
    // Another machine seems to have this key; the welcome follows, or not.
    if (message?.t === "probe" && type === "welcome") await answerProbe(socket, keys, message.nonce);
    else if (message?.t === "cancel" && type === "welcome" && message.ifKnown === true)
      cancel(message.command);
    else if (message === undefined || message.t === "goaway") throw await refusal(socket, message);
    else {
      throw new BedplateError(
        "message.unexpected",
        `The controller sent "${message.t}" where "${type}" was due.`,
      );
    }
  }
}

/** What an error of the introduction says of the connection's end, for who decides when to dial again. */
export interface RefusalDetails {
  readonly close: number;
  readonly reconnectWindowMs: number | undefined;
}

// A goodbye's reason starts with a dotted code: "enrol.token-used The join token was …".
async function refusal(
  socket: LinkSocket,
  goaway: Extract<ControllerMessage, { t: "goaway" }> | undefined,
): Promise<BedplateError> {
  const closed = await socket.closed;
  const reason = goaway?.reason ?? closed.reason;
  const details = {
    close: closed.code,
    reconnectWindowMs: goaway?.reconnectWindowMs,
  } satisfies RefusalDetails;
  const [first = "", ...rest] = reason.replace(/:\s/, " ").split(" ");
  if (isCode(first))
    return new BedplateError(first, rest.join(" ") || "The controller refused the connection.", { details });
  return new BedplateError(
    "controller.unreachable",
    `The controller closed the connection${reason === "" ? "" : `: ${reason}`}.`,
    { details },
  );
}
