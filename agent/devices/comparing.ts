// Which groups a deploy reads before it writes them: all on a disk that holds some of the image, few on one that holds none.

/** After so many misses in a row a worker takes the disk for another one's, */
const missesMax = 4;
/** and looks less and less often, up to at one group of so many; at all again as soon as one of them is right. */
const strideMax = 32;

export interface Comparing {
  /** Asked once a group: whether to read what the disk holds of it. Reading and hashing cost more than writing. */
  worth(): boolean;
  told(right: boolean): void;
}

export function createComparing(): Comparing {
  let misses = 0;
  let passed = 0;
  return {
    worth() {
      if (passed === 0) return true;
      passed--;
      return false;
    },
    told(right) {
      misses = right ? 0 : misses + 1;
      passed = misses < missesMax ? 0 : Math.min(strideMax, 2 ** (misses - missesMax)) - 1;
    },
  };
}
