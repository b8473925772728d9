// What kernels/compare.ts and the group pass find, in plain TypeScript.

export function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, k) => byte === b[k]);
}

/** One bit for each 4096 bytes of a group, least significant first: 32 bytes. */
export function zeroBlocks(group: Uint8Array): Uint8Array<ArrayBuffer> {
  const map = new Uint8Array(32);
  for (let block = 0; block * 4096 < group.length; block++) {
    if (isZero(group.subarray(block * 4096, (block + 1) * 4096))) map[block >> 3]! |= 1 << (block & 7);
  }
  return map;
}
