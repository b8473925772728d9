// The pieces an image is divided into. Apart from manifest.ts, so that a worker which only counts groups loads no schemas.

export const groupBytes = 1 << 20;
export const digestBytes = 32;

export function groupCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / groupBytes);
}

/** Bytes of group `group`: 1 MiB, or what is left in the last one. */
export function groupLength(sizeBytes: number, group: number): number {
  return Math.min(groupBytes, sizeBytes - group * groupBytes);
}
