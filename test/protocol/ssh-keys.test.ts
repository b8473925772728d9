// Operators' public keys: those that are taken with ssh-keygen's own fingerprints, and each refusal by its code.
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { bytesOfHex, concatBytes, sshString, utf8 } from "../../protocol/bytes.ts";
import type { Code } from "../../protocol/codes.ts";
import { ed25519Fault, isP256Point } from "../../protocol/ssh-curves.ts";
import { decodePublicKey, fingerprintOf, keyTypes, parsePublicKey } from "../../protocol/ssh-keys.ts";
import { base64, bytesOfBase64 } from "../../protocol/ssh-wire.ts";
import { makeSigner, mpint } from "./ssh-signers.ts";

const read = (name: string) => readFileSync(new URL(`sshsig/${name}`, import.meta.url), "utf8");
const fingerprints = read("fingerprints.txt").trim().split("\n");
const names = ["ed25519", "ecdsa-p256", "rsa-2048", "rsa-3072", "rsa-4096"];
const text = (value: string) => sshString(utf8(value));
const number = (value: bigint) => {
  const digits = value.toString(16);
  return mpint(bytesOfHex(digits.padStart(digits.length + (digits.length % 2), "0")));
};
const ed25519 = (point: Uint8Array) => concatBytes(text("ssh-ed25519"), sshString(point));
const rsa = (exponent: Uint8Array, modulus: Uint8Array) => concatBytes(text("ssh-rsa"), exponent, modulus);
const refused = (line: string, code: Code) =>
  expect(() => parsePublicKey(line), line.slice(0, 60)).toThrow(
    expect.objectContaining({ name: "BedplateError", code }),
  );
const refusedBlob = (blob: Uint8Array, code: Code) =>
  expect(() => decodePublicKey(blob)).toThrow(expect.objectContaining({ name: "BedplateError", code }));

test.each(names)("%s has the fingerprint that ssh-keygen prints", async (name) => {
  const key = parsePublicKey(read(`${name}.pub`));
  const [, fingerprint, comment] = fingerprints[names.indexOf(name)]!.split(" ");
  expect(await fingerprintOf(key)).toBe(fingerprint);
  expect(key.comment).toBe(comment);
  expect(decodePublicKey(bytesOfBase64(key.encoded)!, key.comment)).toEqual(key);
});

test.each(keyTypes)("%s is read, whatever blanks surround it", (type) => {
  const { blob, line } = makeSigner(type);
  expect(parsePublicKey(line("Alice Müller"))).toMatchObject({
    type,
    comment: "Alice Müller",
    encoded: base64(blob),
  });
  expect(parsePublicKey(`  ${line("").replace(" ", "\t ")} \n`)).toMatchObject({ type, comment: "" });
});

describe("not taken", () => {
  const line = read("ed25519.pub").trim();

  test.each(["ecdsa-p384", "ecdsa-p521", "dsa", "certificate"])("%s", (name) =>
    refused(read(`refused-${name}.pub`), "key.unsupported"),
  );

  test.each([
    `cert-authority ${line}`,
    `@cert-authority * ${line}`,
    `cert-authority,principals="a" ${line}`,
    `no-pty ${line}`,
    `from="10.0.0.0/8",no-pty ${line}`,
    `command="echo hello there" ${line}`,
    `verify-required ${line}`,
    "ssh-ed448 AAAAC3NzaC1lZDI1NTE5 alice",
  ])("%s", (given) => refused(given, "key.unsupported"));

  test("a security key bound to anything but ssh:", () => {
    refused(makeSigner("sk-ssh-ed25519@openssh.com", "https://example.org").line("alice"), "key.unsupported");
    expect(() =>
      parsePublicKey(makeSigner("sk-ssh-ed25519@openssh.com", "ssh:ops").line("alice")),
    ).not.toThrow();
  });

  test("RSA over 8192 bits", () => {
    const e = number(65537n);
    expect(decodePublicKey(rsa(e, number(2n ** 8192n - 1n))).type).toBe("ssh-rsa");
    refusedBlob(rsa(e, number(2n ** 8192n + 1n)), "key.unsupported");
  });
});

describe("too weak", () => {
  test("RSA under 2048 bits, also by one", () => {
    refused(read("refused-rsa-1024.pub"), "key.too-weak");
    refusedBlob(rsa(number(65537n), number(2n ** 2047n - 1n)), "key.too-weak");
    expect(decodePublicKey(rsa(number(65537n), number(2n ** 2047n + 1n))).type).toBe("ssh-rsa");
  });

  test.each([1n, 3n, 35n, 65535n, 65538n])("RSA with the exponent %s", (e) =>
    refusedBlob(rsa(number(e), number(2n ** 2048n - 1n)), "key.too-weak"),
  );

  const p = 2n ** 255n - 19n;
  const order8 = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;
  const littleEndian = (value: bigint) =>
    Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 255n));

  test.each([0n, 1n, p - 1n, p, p + 1n, order8, p - order8])("Ed25519 point of small order, y = %s", (y) => {
    for (const sign of [0n, 1n << 255n]) {
      expect(ed25519Fault(littleEndian(y | sign))).toBe("small-order");
      refusedBlob(ed25519(littleEndian(y | sign)), "key.too-weak");
    }
  });

  test("neighbours of those are not called weak", () => {
    for (const y of [2n, 3n, p - 2n, order8 + 1n, order8 - 1n])
      expect(ed25519Fault(littleEndian(y))).toBeUndefined();
    expect(ed25519Fault(littleEndian(p + 3n))).toBe("not-canonical");
    refusedBlob(ed25519(littleEndian(p + 3n)), "key.malformed");
  });
});

test("a point on P-256 has one encoding: no coordinate at or over the prime", () => {
  const prime = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
  const y = 0x66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4n;
  const encoding = (x: bigint) =>
    bytesOfHex(`04${x.toString(16).padStart(64, "0")}${y.toString(16).padStart(64, "0")}`);
  expect(isP256Point(encoding(0n))).toBe(true);
  expect(isP256Point(encoding(prime))).toBe(false);
});

describe("malformed", () => {
  const line = read("ed25519.pub").trim();
  const [type, encoded] = line.split(" ") as [string, string];

  test.each([
    "",
    " ",
    "#",
    "# a comment",
    "ssh-ed25519",
    "ssh-ed25519 ",
    `${type} ${encoded.slice(0, -4)} alice`,
    `${type} ${encoded.slice(0, -1)} alice`,
    `${type} ${encoded}AAAA alice`,
    `${type} ${encoded}= alice`,
    `ssh-rsa ${encoded} alice`,
    `${type} ${encoded} alice\nssh-ed25519 ${encoded} bob`,
    `${type} ${encoded} al\u001b[31mice`,
    `${type} ${encoded} ali\u202ece`,
    encoded,
  ])("%j", (given) => refused(given, "key.malformed"));

  test("a line of more than 4096 characters", () => refused(`${line}${"a".repeat(4096)}`, "key.malformed"));

  test("inside", () => {
    const point = decodePublicKey(bytesOfBase64(read("ecdsa-p256.pub").split(" ")[1]!)!);
    if (point.type !== "ecdsa-sha2-nistp256") throw new Error("not P-256");
    const ecdsa = (curve: string, given: Uint8Array) =>
      concatBytes(text(point.type), text(curve), sshString(given));
    expect(decodePublicKey(ecdsa("nistp256", point.point)).type).toBe(point.type);
    const offCurve = point.point.slice();
    offCurve[64]! ^= 1;
    const compressed = concatBytes(Uint8Array.of(2 + (point.point[64]! & 1)), point.point.slice(1, 33));
    for (const blob of [
      ecdsa("nistp256", offCurve),
      ecdsa("nistp256", compressed),
      ecdsa("nistp256", new Uint8Array(65).fill(0xff).fill(4, 0, 1)),
      ecdsa("nistp256", Uint8Array.of(0)),
      ecdsa("nistp384", point.point),
      ed25519(new Uint8Array(31).fill(9)),
      ed25519(new Uint8Array(33).fill(9)),
      rsa(sshString(Uint8Array.of(0, 1, 0, 1)), number(2n ** 2048n - 1n)),
      rsa(sshString(Uint8Array.of(0x81, 0, 1)), number(2n ** 2048n - 1n)),
      rsa(sshString(new Uint8Array()), number(2n ** 2048n - 1n)),
      rsa(number(2n ** 64n + 1n), number(2n ** 2048n - 1n)),
      rsa(number(65537n), number(2n ** 2048n)),
      rsa(number(65537n), number(2n ** 20000n - 1n)),
      new Uint8Array(),
      Uint8Array.of(0xff, 0xff, 0xff, 0xff),
    ]) {
      refusedBlob(blob, "key.malformed");
    }
  });
});
