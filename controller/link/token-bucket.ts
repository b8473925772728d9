// Who may knock how often: a bucket of tokens for each address, which fills with time. The arithmetic is pure.

export interface BucketLimits {
  /** Tokens that a full bucket has: what may come at once. */
  readonly burst: number;
  readonly perSecond: number;
}

export interface Bucket {
  readonly tokens: number;
  readonly atMs: number;
}

export interface Taken {
  readonly bucket: Bucket;
  /** 0 when the tokens were there and are taken; else how long until they would be. */
  readonly waitMs: number;
}

/** Takes `cost` tokens, if there are so many. An absent bucket is a full one. */
export function takeTokens(
  bucket: Bucket | undefined,
  { burst, perSecond }: BucketLimits,
  nowMs: number,
  cost = 1,
): Taken {
  const before = bucket ?? { tokens: burst, atMs: nowMs };
  const tokens = Math.min(burst, before.tokens + (Math.max(0, nowMs - before.atMs) * perSecond) / 1000);
  if (tokens < cost)
    return { bucket: { tokens, atMs: nowMs }, waitMs: Math.ceil((1000 * (cost - tokens)) / perSecond) };
  return { bucket: { tokens: tokens - cost, atMs: nowMs }, waitMs: 0 };
}

/** Takes tokens that may not be there: the bucket is in debt then, by no more than it holds when full. */
export function chargeTokens(
  bucket: Bucket | undefined,
  limits: BucketLimits,
  nowMs: number,
  cost: number,
): Bucket {
  const { tokens } = takeTokens(bucket, limits, nowMs, 0).bucket;
  return { tokens: Math.max(-limits.burst, tokens - cost), atMs: nowMs };
}

/** Whose bucket: an address of version 4 alone, one of version 6 with all its network of 64 bits. */
export function bucketOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "").replace(/%.*$/, "");
  if (!plain.includes(":")) return plain;
  const [head = "", tail] = plain.toLowerCase().split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeroes =
    tail === undefined ? [] : Array<string>(Math.max(0, 8 - before.length - after.length)).fill("0");
  const groups = [...before, ...zeroes, ...after].slice(0, 4);
  return `${groups.map((group) => group.replace(/^0+(?=.)/, "")).join(":")}::/64`;
}

/** Buckets by address. The one that was used longest ago makes room: it is the fullest by then, or nearly so. */
export class AddressBuckets {
  readonly #buckets = new Map<string, Bucket>();
  readonly #limits: BucketLimits;
  readonly #addressesMax: number;

  constructor(limits: BucketLimits, addressesMax = 16_384) {
    this.#limits = limits;
    this.#addressesMax = addressesMax;
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** @returns 0, or how long to wait */
  take(address: string, nowMs: number, cost = 1): number {
    const key = bucketOf(address);
    const { bucket, waitMs } = takeTokens(this.#buckets.get(key), this.#limits, nowMs, cost);
    this.#keep(key, bucket);
    return waitMs;
  }

  /** Makes the address pay for what it cost us. */
  charge(address: string, nowMs: number, cost: number): void {
    const key = bucketOf(address);
    this.#keep(key, chargeTokens(this.#buckets.get(key), this.#limits, nowMs, cost));
  }

  #keep(key: string, bucket: Bucket): void {
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size <= this.#addressesMax) return;
    this.#buckets.delete(this.#buckets.keys().next().value!);
  }
}
