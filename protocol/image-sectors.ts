// For what sectors an image's partition table is made, by where its header stands.

const gpt = [...new TextEncoder().encode("EFI PART")];

/** Of the image's partition table: where its GPT header stands, else that of an MBR; null without either. */
export function sectorBytesOf(head: Uint8Array): 512 | 4096 | null {
  if (hasAt(head, 512, gpt)) return 512;
  if (hasAt(head, 4096, gpt)) return 4096;
  return hasAt(head, 510, [0x55, 0xaa]) ? 512 : null;
}

function hasAt(bytes: Uint8Array, offset: number, expected: readonly number[]): boolean {
  return expected.every((byte, i) => bytes[offset + i] === byte);
}
