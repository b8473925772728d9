// The pins: the controller's CA certificates that this host trusts. The first comes with the join token, later ones from a
// controller that has proved itself; one that was given up is never trusted again.
import { createHash, X509Certificate } from "node:crypto";
import { request } from "node:https";
import { BedplateError } from "../../protocol/errors.ts";
import { parseJoinToken } from "../../protocol/join-token.ts";
import type { StateDirectory } from "../host/state-directory.ts";

const pinFile = "controller-ca.pem";
const droppedFile = "controller-ca-dropped.json";
const caBytesMax = 64 * 1024;
const certificatesMax = 4;
/** Given-up authorities that are remembered. */
const droppedMax = 64;
const timeoutMs = 10_000;

export interface Pins {
  /** What is trusted now, PEM, newest first; undefined before the host has joined. */
  readonly pem: string | undefined;
  /** SHA-256 of each of these. */
  readonly trusted: readonly string[];
  /**
   * Fetches the controller's CA over a connection that trusts nobody, and pins it in place of what was pinned when its
   * SHA-256 equals the token's. Nothing secret is sent here: a certificate is public, and a wrong server's is refused.
   * @throws `controller.unreachable`, `controller.untrusted`
   */
  adopt(controller: URL, joinToken: string, signal: AbortSignal): Promise<string>;
  /** Whether the token names an authority that might be adopted: not one of those that are trusted. */
  isNews(joinToken: string): boolean;
  /**
   * From now on these are trusted. Only for what came from a controller that had proved itself, over its own link: one of
   * them must be trusted already, else a mistake there would cut the host off for good.
   * @throws `controller.untrusted`
   */
  replace(pem: string): "changed" | "same";
}

export function openPins(state: StateDirectory): Pins {
  const kept = state.read(pinFile);
  let pem = kept === undefined ? undefined : Buffer.from(kept).toString("utf8");
  let trusted = pem === undefined ? [] : certificatesOf(pem);

  const pin = (certificates: readonly Pinned[]) => {
    const gone = trusted.filter(({ sha256 }) => !certificates.some((other) => other.sha256 === sha256));
    // Before the pins: who dies in between trusts what it trusted, and is told again.
    if (gone.length > 0) {
      const dropped = [...readDropped(state), ...gone.map(({ sha256 }) => sha256)].slice(-droppedMax);
      state.write(droppedFile, Buffer.from(JSON.stringify(dropped)));
    }
    pem = certificates.map((certificate) => certificate.pem).join("");
    trusted = [...certificates];
    state.write(pinFile, Buffer.from(pem));
  };

  return {
    get pem() {
      return pem;
    },
    get trusted() {
      return trusted.map(({ sha256 }) => sha256);
    },
    isNews: (joinToken) => {
      const { caSha256 } = parseJoinToken(joinToken);
      return !trusted.some(({ sha256 }) => sha256 === caSha256);
    },
    async adopt(controller, joinToken, signal) {
      const { caSha256 } = parseJoinToken(joinToken);
      if (readDropped(state).includes(caSha256)) {
        throw untrusted(controller, "the token is for an authority that the controller has given up", {
          hint: `Make a new token with \`bedplate join-token create\`. If the controller was really set back to that authority, remove ${state.file(droppedFile)} first.`,
        });
      }
      const found = parsed(controller, await fetchCertificates(controller, signal));
      const meant = found.find(({ sha256 }) => sha256 === caSha256);
      if (meant === undefined) {
        const shown = found.map(({ sha256 }) => sha256).join(", ");
        throw untrusted(controller, `its CA has SHA-256 ${shown}, the join token says ${caSha256}`);
      }
      pin([meant]);
      return meant.pem;
    },
    replace(text) {
      const certificates = certificatesOf(text);
      const ours = (sha256: string) => trusted.some((other) => other.sha256 === sha256);
      if (!certificates.some(({ sha256 }) => ours(sha256))) {
        throw new BedplateError(
          "controller.untrusted",
          "The controller named authorities of which this host trusts none; they are not taken.",
          { details: { sha256: certificates.map(({ sha256 }) => sha256) } },
        );
      }
      if (certificates.length === trusted.length && certificates.every(({ sha256 }) => ours(sha256)))
        return "same";
      pin(certificates);
      return "changed";
    },
  };
}

interface Pinned {
  readonly pem: string;
  /** SHA-256 of the certificate (DER), lower-case hexadecimal. */
  readonly sha256: string;
}

/** @throws `controller.untrusted` when they are none, too many, or no authorities */
function certificatesOf(text: string): readonly Pinned[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0 || blocks.length > certificatesMax)
    throw new BedplateError(
      "controller.untrusted",
      `There are ${blocks.length} certificates where 1 to 4 must be.`,
    );
  return blocks.map((block) => {
    let certificate: X509Certificate;
    try {
      certificate = new X509Certificate(block);
    } catch (cause) {
      throw new BedplateError("controller.untrusted", "A certificate of the controller cannot be read.", {
        cause,
      });
    }
    if (!certificate.ca)
      throw new BedplateError("controller.untrusted", "A certificate of the controller is no authority's.");
    return { pem: `${block}\n`, sha256: createHash("sha256").update(certificate.raw).digest("hex") };
  });
}

function parsed(controller: URL, text: string): readonly Pinned[] {
  try {
    return certificatesOf(text);
  } catch (cause) {
    throw untrusted(controller, "it answered with something that is no certificate of an authority", {
      cause,
    });
  }
}

// What cannot be read counts as nothing given up: it only ever closes doors.
function readDropped(state: StateDirectory): readonly string[] {
  const kept = state.read(droppedFile);
  if (kept === undefined) return [];
  try {
    const value: unknown = JSON.parse(Buffer.from(kept).toString("utf8"));
    return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
  } catch {
    return [];
  }
}

function untrusted(
  controller: URL,
  why: string,
  { hint, cause }: { readonly hint?: string; readonly cause?: unknown } = {},
): BedplateError {
  return new BedplateError(
    "controller.untrusted",
    `The server at ${controller.host} is not the controller of this join token: ${why}.`,
    {
      hint:
        hint ?? "Check the address, and that the token was made by that controller. Nothing secret was sent.",
      cause,
    },
  );
}

function fetchCertificates(controller: URL, signal: AbortSignal): Promise<string> {
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
