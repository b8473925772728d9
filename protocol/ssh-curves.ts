// Whether a public point is one that signatures can be trusted with, by plain arithmetic: no platform checks it for all keys.
import { bigintOf } from "./ssh-wire.ts";

const p25519 = 2n ** 255n - 19n;
const p256 = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
const b256 = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn;

/**
 * What is wrong with 32 bytes as an Ed25519 public key (RFC 8032, section 5.1).
 * `small-order`: one of the eight points, such as 32 zeroes, for which anyone can make signatures.
 * `not-canonical`: a second encoding of a point.
 */
export function ed25519Fault(point: Uint8Array): "small-order" | "not-canonical" | undefined {
  const y = bigintOf(point.toReversed()) & (2n ** 255n - 1n);
  const square = (y * y) % p25519;
  // y = ±1 are the points of order 1 and 2, y = 0 those of order 4; doubling one of order 8 gives y = 0, which with
  // x² = −y² on the curve −x² + y² = 1 + d·x²·y², d = −121665/121666, is this quadratic in y².
  const doublesToOrder4 = 121665n * square * square - 243332n * square + 121666n;
  if ((y * (square - 1n) * doublesToOrder4) % p25519 === 0n) return "small-order";
  return y >= p25519 ? "not-canonical" : undefined;
}

/** Whether 65 bytes are an uncompressed point on P-256 (SEC 1, section 2.3.4). */
export function isP256Point(point: Uint8Array): boolean {
  if (point.length !== 65 || point[0] !== 4) return false;
  const x = bigintOf(point.subarray(1, 33));
  const y = bigintOf(point.subarray(33));
  return x < p256 && y < p256 && (y * y - x * x * x + 3n * x - b256) % p256 === 0n;
}
