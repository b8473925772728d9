// What a detector is: it looks at the spots of a region for one kind of thing, and gives what it found.
import type { Signature } from "../../../protocol/disk-content.ts";
import type { Spots } from "./spots.ts";

export interface Found {
  /** Of the magic number. */
  readonly offset: number;
  readonly uuid?: string | null;
  readonly label?: string | null;
  readonly version?: string | null;
  /** Instead of the detector's own: ext2, ext3 and ext4 are told apart by features. */
  readonly kind?: string;
}

export interface Detector {
  readonly kind: string;
  readonly use: Signature["use"];
  /** Whether several hosts may use it at a time. */
  readonly shared?: true;
  /** Never throws: it asks the spots, and takes null for an answer. */
  readonly detect: (spots: Spots) => Found | null;
}

/** For what is told by its magic number alone. */
export function magic(offset: number, text: string): Detector["detect"] {
  return (spots) => (spots.has(offset, text) ? { offset } : null);
}
