// The pieces an image is divided into. Apart from manifest.ts, so that a worker which only counts groups loads no schemas.

export const groupBytes = 1 << 20;
export const digestBytes = 32;
/** How many wrong groups are named one by one. */
export const wrongGroupsMax = 64;

export function groupCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / groupBytes);
}

/** Bytes of group `group`: 1 MiB, or what is left in the last one. */
export function groupLength(sizeBytes: number, group: number): number {
  return Math.min(groupBytes, sizeBytes - group * groupBytes);
}

/** What an image, or a part of one, takes on a disk: whole sectors. */
export function paddedBytes(sizeBytes: number, sectorBytes: number): number {
  return Math.ceil(sizeBytes / sectorBytes) * sectorBytes;
}
