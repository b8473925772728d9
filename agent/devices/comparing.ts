// Which groups a deploy reads before it writes them: all on a disk that holds some of the image, few on one that holds none.

/** Without a match for so long, a worker takes the disk for another one's. */
const missesMax = 32;
/** Then it looks at every so many groups alone, and at all again as soon as one of them is right. */
const probeEvery = 16;

export interface Comparing {
  /** Whether to read what the disk holds of this group: reading costs as much as writing. */
  worth(group: number): boolean;
  told(right: boolean): void;
}

export function createComparing(): Comparing {
  let misses = 0;
  return {
    worth: (group) => misses < missesMax || group % probeEvery === 0,
    told(right) {
      misses = right ? 0 : misses + 1;
    },
  };
}
