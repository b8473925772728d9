// No change of a signature or key makes another that holds, and nothing but a BedplateError ever comes out.
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { utf8 } from "../../protocol/bytes.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { decodePublicKey, type KeyType, keyTypes, parsePublicKey } from "../../protocol/ssh-keys.ts";
import { base64 } from "../../protocol/ssh-wire.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import { armor } from "../../protocol/sshsig-format.ts";
import { makeSigner } from "./ssh-signers.ts";

const namespace = "bedplate-command";
const message = utf8("what is signed\n");
type Outcome = "holds" | BedplateError["code"];

async function outcomeOf(work: () => unknown): Promise<Outcome> {
  try {
    await work();
    return "holds";
  } catch (error) {
    if (error instanceof BedplateError) return error.code;
    throw error;
  }
}

/** Every byte once, each with a mask that fast-check picks. */
const masksOf = (length: number) =>
  fc.sample(fc.array(fc.integer({ min: 1, max: 255 }), { minLength: length, maxLength: length }), 1)[0]!;

function flipped(bytes: Uint8Array, at: number, mask: number): Uint8Array<ArrayBuffer> {
  const changed = bytes.slice() as Uint8Array<ArrayBuffer>;
  changed[at]! ^= mask;
  return changed;
}

test.each(keyTypes)("%s: a changed byte never holds, in the blob or in its text", async (type) => {
  const signer = makeSigner(type);
  const keys = [parsePublicKey(signer.line("alice"))];
  const blob = await signer.signBlob(message);
  const verify = (signature: string | Uint8Array) =>
    outcomeOf(() => verifySignature(signature, { namespace, message, keys }));
  expect(await verify(blob)).toBe("holds");
  const seen = new Set<Outcome>();
  for (const [at, mask] of masksOf(blob.length).entries()) seen.add(await verify(flipped(blob, at, mask)));
  const text = utf8(armor(blob));
  for (const [at, mask] of masksOf(text.length).entries()) seen.add(await verify(flipped(text, at, mask)));
  expect(seen).not.toContain("holds");
  for (const code of ["signature.malformed", "signature.unknown-key", "signature.invalid"])
    expect(seen).toContain(code);
});

test.each(keyTypes)("%s: with a changed key that is still one, the signature does not hold", async (type) => {
  const signer = makeSigner(type);
  const blob = await signer.signBlob(message);
  const start = Buffer.from(blob).indexOf(signer.blob);
  for (const [at, mask] of masksOf(signer.blob.length).entries()) {
    const changed = flipped(signer.blob, at, mask);
    const claimed = blob.slice();
    claimed.set(changed, start);
    const outcome = await outcomeOf(() =>
      verifySignature(claimed, { namespace, message, keys: [decodePublicKey(changed, "alice")] }),
    );
    expect(outcome).toMatch(/^(key\.|signature\.(invalid|malformed))/);
  }
});

test("any values in place of an algorithm's own never hold", async () => {
  const signers = new Map<KeyType, ReturnType<typeof makeSigner>>(
    keyTypes.map((type) => [type, makeSigner(type)]),
  );
  const lengthOf = (type: KeyType) => (type === "ssh-rsa" ? 256 : 60);
  const value = fc.constantFrom(...keyTypes).chain((type) =>
    fc.record({
      type: fc.constant(type),
      tail: fc.uint8Array({ minLength: lengthOf(type), maxLength: lengthOf(type) }),
    }),
  );
  await fc.assert(
    fc.asyncProperty(value, async ({ type, tail }) => {
      const signer = signers.get(type)!;
      const blob = await signer.signBlob(message);
      blob.set(tail, blob.length - tail.length);
      const keys = [parsePublicKey(signer.line("alice"))];
      expect(await outcomeOf(() => verifySignature(blob, { namespace, message, keys }))).toMatch(
        /^signature\./,
      );
    }),
    { numRuns: 150 },
  );
});

test("insertions, deletions and doublings in the text never hold", async () => {
  const text = readFileSync(new URL("sshsig/ed25519.sig", import.meta.url), "utf8");
  const keys = [parsePublicKey(readFileSync(new URL("sshsig/ed25519.pub", import.meta.url), "utf8"))];
  const signed = utf8(readFileSync(new URL("sshsig/message.txt", import.meta.url), "utf8"));
  const edit = fc.record({
    at: fc.nat(text.length - 2),
    drop: fc.nat(12),
    put: fc.oneof(
      fc.string({ maxLength: 8 }),
      fc.constantFrom("\n\n", "\r", "=", "A", "AAAA", "\0", "-----"),
    ),
  });
  await fc.assert(
    fc.asyncProperty(edit, async ({ at, drop, put }) => {
      const changed = text.slice(0, at) + put + text.slice(at + drop);
      // Line breaks inside may stand anywhere, and the last one may be missing: those are the same signature.
      const plain = (value: string) => value.trimEnd().split("\n").join("");
      fc.pre(plain(changed) !== plain(text));
      const outcome = await outcomeOf(() => verifySignature(changed, { namespace, message: signed, keys }));
      expect(outcome).toMatch(/^signature\./);
    }),
    { numRuns: 500 },
  );
});

test("arbitrary bytes and lines are refused with codes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ maxLength: 300 }),
      fc.string({ maxLength: 200 }),
      async (bytes, line) => {
        const withMagic = Uint8Array.from([...utf8("SSHSIG"), 0, 0, 0, 1, ...bytes]);
        for (const signature of [bytes, withMagic, line, armor(bytes), armor(withMagic)]) {
          expect(await outcomeOf(() => verifySignature(signature, { namespace, message, keys: [] }))).toMatch(
            /^signature\./,
          );
        }
        expect(await outcomeOf(() => decodePublicKey(bytes))).toMatch(/^key\./);
        expect(await outcomeOf(() => parsePublicKey(line))).toMatch(/^key\./);
        expect(await outcomeOf(() => parsePublicKey(`ssh-ed25519 ${base64(bytes)}`))).toMatch(/^key\./);
      },
    ),
    { numRuns: 200 },
  );
});

test("whatever 32 bytes stand as an Ed25519 key, or odd number as a modulus: refused, or no signature holds", async () => {
  const ed25519 = makeSigner("ssh-ed25519");
  const rsa = makeSigner("ssh-rsa");
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 32, maxLength: 32 }), async (point) => {
      for (const { blob: key, signBlob } of [ed25519, rsa]) {
        const changed = key.slice();
        changed.set(point, key.length - 32);
        const signature = await signBlob(message);
        signature.set(changed, Buffer.from(signature).indexOf(key));
        const outcome = await outcomeOf(() =>
          verifySignature(signature, { namespace, message, keys: [decodePublicKey(changed)] }),
        );
        expect(outcome).toMatch(/^(key\.|signature\.invalid)/);
      }
    }),
    { numRuns: 60 },
  );
});
