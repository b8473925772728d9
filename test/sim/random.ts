// Seeded randomness: the same seed gives the same numbers, and each part of a world has a stream of its own, so that one
// part asking more often does not change what another one gets.

export interface Random {
  /** Uniform in [0, 1). */
  fraction(): number;
  /** Whole, from `low` to `high`, both included. */
  between(low: number, high: number): number;
  chance(probability: number): boolean;
  pick<T>(from: readonly T[]): T;
}

/** sfc32 (Chris Doty-Humphrey's PractRand), seeded from the seed and the name of the stream by FNV-1a. */
export function createRandom(seed: number, stream: string): Random {
  let hash = 0x811c9dc5;
  for (let i = 0; i < stream.length; i++) hash = Math.imul(hash ^ stream.charCodeAt(i), 0x01000193);
  let a = seed | 0;
  let b = hash | 0;
  let c = (hash ^ Math.imul(seed, 0x9e3779b1)) | 0;
  let counter = 1;
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    c |= 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) next();
  return {
    fraction: next,
    between: (low, high) => low + Math.floor(next() * (high - low + 1)),
    chance: (probability) => next() < probability,
    pick: (from) => from[Math.floor(next() * from.length)]!,
  };
}
