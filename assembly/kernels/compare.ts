// Tests of byte ranges: all zero, equal. Addresses are checked by the callers.

/** Whether all of [address, address + length) is zero; true for no bytes. */
export function zeroBytes(address: usize, length: usize): bool {
  const end = address + length;
  if (ASC_FEATURE_SIMD) {
    for (; address + 64 <= end; address += 64) {
      const a = v128.or(v128.load(address), v128.load(address, 16));
      const b = v128.or(v128.load(address, 32), v128.load(address, 48));
      if (v128.any_true(v128.or(a, b))) return false;
    }
  }
  for (; address + 8 <= end; address += 8) if (load<u64>(address)) return false;
  for (; address < end; address++) if (load<u8>(address)) return false;
  return true;
}

/** Whether two ranges of `length` bytes are the same; true for no bytes. */
export function equalBytes(a: usize, b: usize, length: usize): bool {
  const end = a + length;
  if (ASC_FEATURE_SIMD) {
    for (; a + 64 <= end; a += 64, b += 64) {
      const low = v128.or(v128.xor(v128.load(a), v128.load(b)), v128.xor(v128.load(a, 16), v128.load(b, 16)));
      const high = v128.or(v128.xor(v128.load(a, 32), v128.load(b, 32)), v128.xor(v128.load(a, 48), v128.load(b, 48)));
      if (v128.any_true(v128.or(low, high))) return false;
    }
  }
  for (; a + 8 <= end; a += 8, b += 8) if (load<u64>(a) != load<u64>(b)) return false;
  for (; a < end; a++, b++) if (load<u8>(a) != load<u8>(b)) return false;
  return true;
}
