// What of a program's output is kept, pure: each byte once, the newest up to a bound, what is missing left out by its offset.

export const outputKept = {
  /** Of one command. */
  bytesMax: 1 << 20,
  /** Programs that write to both streams in turn, a byte at a time, fill this before the bytes. */
  piecesMax: 1024,
  /** Beyond this neither JavaScript nor the store counts exactly. */
  endMax: 2 ** 53 - 1,
  /** Small pieces of one stream that follow each other become one up to this. */
  mergedBytesMax: 32 * 1024,
} as const;

export interface OutputPiece {
  readonly stream: string;
  /** Of its first byte in the whole output, both streams together. */
  readonly offset: number;
  readonly bytes: number;
}

export type OutputVerdict =
  /** All of it came before, or it says nothing. */
  | { readonly do: "nothing" }
  /** `skip`: its first bytes came before. `merge`: it continues the newest piece. */
  | { readonly do: "add"; readonly skip: number; readonly merge: boolean; readonly end: number };

/**
 * @param end how far the output came so far
 * @param newest the piece kept last
 */
export function judgeOutput(end: number, newest: OutputPiece | undefined, piece: OutputPiece): OutputVerdict {
  const pieceEnd = piece.offset + piece.bytes;
  // A host that counts beyond what numbers hold says nothing that could be kept.
  if (piece.bytes === 0 || pieceEnd <= end || pieceEnd > outputKept.endMax) return { do: "nothing" };
  const skip = Math.max(0, end - piece.offset);
  const merge =
    newest !== undefined &&
    newest.stream === piece.stream &&
    newest.offset + newest.bytes === piece.offset + skip &&
    newest.bytes + piece.bytes - skip <= outputKept.mergedBytesMax;
  return { do: "add", skip, merge, end: pieceEnd };
}

/** How many of the oldest pieces go. `sizes`: bytes of each, oldest first. The newest always stays. */
export function surplusPieces(sizes: readonly number[]): number {
  let bytes = 0;
  for (let kept = 0; kept < sizes.length; kept++) {
    bytes += sizes[sizes.length - 1 - kept]!;
    if (kept > 0 && (bytes > outputKept.bytesMax || kept >= outputKept.piecesMax)) return sizes.length - kept;
  }
  return 0;
}
