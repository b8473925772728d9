// Proving to the controller who this host is: hello, challenge, auth, welcome.

import { isCode } from "../../protocol/codes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { encodeFrame } from "../../protocol/frames.ts";
import { linkProofBytes } from "../../protocol/link-proof.ts";
import { type AgentMessage, type ControllerMessage, protocolVersion } from "../../protocol/messages.ts";
import { version } from "../../protocol/version.ts";
import type { HostKeys } from "../keys.ts";
import type { LinkSocket } from "./socket.ts";

export type Welcome = Extract<ControllerMessage, { t: "welcome" }>;

export interface Introduction {
  readonly keys: HostKeys;
  readonly hostname: string;
  readonly bootId: string;
  /** 32 fresh random bytes. */
  readonly nonce: Uint8Array;
  readonly previousSession: string | undefined;
  /** First time only. */
  readonly joinToken: string | undefined;
  readonly name: string | undefined;
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
  } satisfies AgentMessage);
  socket.sendBytes(hello);

  const challenge = await expect(socket, "challenge");
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
  return { welcome: await expect(socket, "welcome"), epoch: challenge.epoch };
}

async function expect<T extends ControllerMessage["t"]>(
  socket: LinkSocket,
  type: T,
): Promise<Extract<ControllerMessage, { t: T }>> {
  const message = await socket.next();
  if (message?.t === type) return message as Extract<ControllerMessage, { t: T }>;
  if (message === undefined || message.t === "goaway") {
    const closed = message === undefined ? await socket.closed : undefined;
    throw refusal(message?.reason ?? closed?.reason ?? "");
  }
  throw new BedplateError(
    "message.unexpected",
    `The controller sent "${message.t}" where "${type}" was due.`,
  );
}

// A goodbye's reason starts with a dotted code: "enrol.token-used The join token was …".
function refusal(reason: string): BedplateError {
  const [first = "", ...rest] = reason.replace(/:\s/, " ").split(" ");
  if (isCode(first))
    return new BedplateError(first, rest.join(" ") || "The controller refused the connection.");
  return new BedplateError(
    "controller.unreachable",
    `The controller closed the connection${reason === "" ? "" : `: ${reason}`}.`,
  );
}
