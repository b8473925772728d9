// Short-lived rights to read one image, for one host: made and checked with a key of ours, kept nowhere.
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Clock } from "./system.ts";

/** Long enough for the largest image over a slow line; it opens nothing but that image. A new offer brings a new one. */
const validMs = 24 * 3_600_000;

export class ImageBearers {
  readonly #key: Uint8Array;
  readonly #clock: Clock;

  constructor(key: Uint8Array, clock: Clock) {
    this.#key = key;
    this.#clock = clock;
  }

  issue(host: string, root: string): string {
    const claim = `bedplate-image.${host}.${root}.${this.#clock.now() + validMs}`;
    return `${claim}.${this.#mac(claim).toString("base64url")}`;
  }

  /** The host and image that the text is good for; undefined when it is no bearer of ours or has expired. */
  check(text: string): { readonly host: string; readonly root: string } | undefined {
    const match = /^(bedplate-image\.([0-9a-f]{64})\.([0-9a-f]{64})\.(\d{1,16}))\.([A-Za-z0-9_-]{43})$/.exec(
      text,
    );
    if (match === null) return undefined;
    const [, claim, host, root, expiresAt, mac] = match as unknown as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    if (!timingSafeEqual(this.#mac(claim), Buffer.from(mac, "base64url"))) return undefined;
    return Number(expiresAt) > this.#clock.now() ? { host, root } : undefined;
  }

  #mac(claim: string): Buffer {
    return createHmac("sha256", this.#key).update(claim).digest();
  }
}
