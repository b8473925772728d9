// How many answers with an image's bytes one host may be taking at once, so that none takes all connections and files.

/** Disks of one command that are written at once, times the workers of each, and some that a broken link left behind. */
const transfersMax = 256;

export class Transfers {
  readonly #byHost = new Map<string, number>();

  /** @returns what ends it; undefined when the host takes as many already */
  begin(host: string): (() => void) | undefined {
    const before = this.#byHost.get(host) ?? 0;
    if (before >= transfersMax) return undefined;
    this.#byHost.set(host, before + 1);
    return () => {
      const left = this.#byHost.get(host)! - 1;
      if (left === 0) this.#byHost.delete(host);
      else this.#byHost.set(host, left);
    };
  }
}
