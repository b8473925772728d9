// The pin: the controller's CA certificate, fetched once and believed only if its digest is the join token's.
import { createHash, X509Certificate } from "node:crypto";
import { request } from "node:https";
import { BedplateError } from "../../protocol/errors.ts";
import { parseJoinToken } from "../../protocol/join-token.ts";
import type { StateDirectory } from "../host/state-directory.ts";

const caFile = "controller-ca.pem";
const caBytesMax = 64 * 1024;
const timeoutMs = 10_000;

/** The pinned CA as PEM, if this host has one. */
export function knownAuthority(state: StateDirectory): string | undefined {
  const pem = state.read(caFile);
  return pem === undefined ? undefined : Buffer.from(pem).toString("utf8");
}

/**
 * Fetches the controller's CA over a connection that trusts nobody, and pins it when its SHA-256 equals the token's.
 * Nothing secret is sent here: a certificate is public, and what the wrong server answers is refused.
 * @throws `controller.unreachable`, `controller.untrusted`
 */
export async function pinAuthority(
  controller: URL,
  joinToken: string,
  state: StateDirectory,
  signal: AbortSignal,
): Promise<string> {
  const { caSha256 } = parseJoinToken(joinToken);
  const pem = await fetchCertificate(controller, signal);
  let found: string;
  try {
    found = createHash("sha256").update(new X509Certificate(pem).raw).digest("hex");
  } catch (cause) {
    throw untrusted(controller, "it answered with something that is no certificate", cause);
  }
  if (found !== caSha256)
    throw untrusted(controller, `its CA has SHA-256 ${found}, the join token says ${caSha256}`);
  state.write(caFile, Buffer.from(pem));
  return pem;
}

function untrusted(controller: URL, why: string, cause?: unknown): BedplateError {
  return new BedplateError(
    "controller.untrusted",
    `The server at ${controller.host} is not the controller of this join token: ${why}.`,
    {
      hint: "Check the address, and that the token was made by that controller. Nothing secret was sent.",
      cause,
    },
  );
}

function fetchCertificate(controller: URL, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown) =>
      reject(
        new BedplateError(
          "controller.unreachable",
          `The controller at ${controller.host} does not answer: ${(cause as Error).message}.`,
          { cause },
        ),
      );
    const asked = request(
      new URL("/v1/ca", controller),
      { rejectUnauthorized: false, minVersion: "TLSv1.3", agent: false, signal, timeout: timeoutMs },
      (response) => {
        const parts: Buffer[] = [];
        let bytes = 0;
        response.on("data", (part: Buffer) => {
          bytes += part.length;
          if (bytes > caBytesMax)
            asked.destroy(new Error(`the answer to /v1/ca is larger than ${caBytesMax} bytes`));
          else parts.push(part);
        });
        response.on("end", () => {
          if (response.statusCode === 200) resolve(Buffer.concat(parts).toString("latin1"));
          else failed(new Error(`/v1/ca answered with status ${response.statusCode}`));
        });
        response.on("error", failed);
      },
    );
    asked.on("timeout", () => asked.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
    asked.on("error", failed);
    asked.end();
  });
}
