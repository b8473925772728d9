// Rights to read one image, for one host and one command: made and checked with a key of ours, kept nowhere.
//
// One holds while its command is open, however long a deploy is paused, and ends with it. A command that we do not know, as
// after our state was set back to a backup, may be under way all the same: its bearer then holds for a day.
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Clock } from "../machine/system.ts";

const unknownValidMs = 24 * 3_600_000;

/** What a bearer is for. */
export interface ImageClaim {
  readonly host: string;
  readonly root: string;
  readonly command: string;
  readonly issuedAt: number;
}

const form =
  /^(bedplate-image\.([0-9a-f]{64})\.([0-9a-f]{64})\.([0-9a-f-]{36})\.(\d{1,16}))\.([A-Za-z0-9_-]{43})$/;

export class ImageBearers {
  readonly #key: Uint8Array;
  readonly #clock: Clock;

  constructor(key: Uint8Array, clock: Clock) {
    this.#key = key;
    this.#clock = clock;
  }

  issue({ host, root, command }: Omit<ImageClaim, "issuedAt">): string {
    const claim = `bedplate-image.${host}.${root}.${command}.${this.#clock.now()}`;
    return `${claim}.${this.#mac(claim).toString("base64url")}`;
  }

  /** What the text is for; undefined when it is no bearer of ours. Whether it holds, {@link holds} says. */
  read(text: string): ImageClaim | undefined {
    const match = form.exec(text);
    if (match === null) return undefined;
    const [, claim, host, root, command, issuedAt, mac] = match as unknown as [string, ...string[]] & {
      readonly length: 7;
    };
    if (!timingSafeEqual(this.#mac(claim!), Buffer.from(mac!, "base64url"))) return undefined;
    return { host: host!, root: root!, command: command!, issuedAt: Number(issuedAt) };
  }

  /** @param command what is known of the claim's command */
  holds({ issuedAt }: ImageClaim, command: "open" | "ended" | "unknown"): boolean {
    if (command === "unknown") return this.#clock.now() < issuedAt + unknownValidMs;
    return command === "open";
  }

  #mac(claim: string): Buffer {
    return createHmac("sha256", this.#key).update(claim).digest();
  }
}
