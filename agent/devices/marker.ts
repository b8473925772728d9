// The in-progress marker: the first MiB of a disk while an image is written to it. It boots nothing, and says whose it is.
import { groupBytes } from "../../protocol/groups.ts";

/** The text stands in the first sector alone, so that a power cut cannot tear it. */
const markerTextBytes = 512;

export interface MarkerFacts {
  readonly operation: string;
  /** Lower-case hexadecimal. */
  readonly root: string;
}

/** 512 bytes: the first sector, text and then zeroes. */
export function markerSector({ operation, root }: MarkerFacts): Uint8Array {
  const sector = new Uint8Array(markerTextBytes);
  sector.set(
    new TextEncoder().encode(
      `BEDPLATE DEPLOY IN PROGRESS\noperation ${operation}\nimage ${root}\nThis disk holds an incomplete image and cannot be booted.\nRun the operation again, or deploy anew.\n`,
    ),
  );
  return sector;
}

/** Fills `window` (at least `length` bytes) with the marker: the text and zeroes, so that no partition table is left. */
export function fillMarker(window: Uint8Array, length: number, facts: MarkerFacts): void {
  window.fill(0, 0, length);
  window.set(markerSector(facts));
}

export function hasMarker(firstSector: Uint8Array, facts: MarkerFacts): boolean {
  return Buffer.compare(firstSector.subarray(0, markerTextBytes), markerSector(facts)) === 0;
}

/** Bytes that the marker takes: the first MiB, or the whole of a smaller disk. */
export function markerBytes(diskBytes: number): number {
  return Math.min(groupBytes, diskBytes);
}
