// Signatures of operators: those that ssh-keygen made hold, the form of security keys holds, everything else is named.
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { concatBytes, sshString, utf8 } from "../../protocol/bytes.ts";
import type { Code } from "../../protocol/codes.ts";
import { type KeyType, keyTypes, type PublicKey, parsePublicKey } from "../../protocol/ssh-keys.ts";
import { bytesOfBase64 } from "../../protocol/ssh-wire.ts";
import { type VerifyOptions, verifySignature, verifySignatures } from "../../protocol/sshsig.ts";
import { armor, encodeSignature, parseSignature, signatureBytesMax } from "../../protocol/sshsig-format.ts";
import { makeSigner, mpint, type TestSigner } from "./ssh-signers.ts";

const read = (name: string) => readFileSync(new URL(`sshsig/${name}`, import.meta.url), "utf8");
const message = utf8(read("message.txt"));
const blobOf = (armored: string) => bytesOfBase64(armored.split("\n").slice(1, -2).join(""))!;
const text = (value: string) => sshString(utf8(value));

const options = (keys: readonly PublicKey[], more: Partial<VerifyOptions> = {}): VerifyOptions => ({
  namespace: "bedplate-command",
  message,
  keys,
  ...more,
});
const refused = (signature: string | Uint8Array, given: VerifyOptions, code: Code) =>
  expect(verifySignature(signature, given)).rejects.toMatchObject({ name: "BedplateError", code });

const names = ["ed25519", "ecdsa-p256", "rsa-2048", "rsa-3072", "rsa-4096"];
const keys = names.map((name) => parsePublicKey(read(`${name}.pub`)));
const fingerprints = read("fingerprints.txt").trim().split("\n");

describe("what ssh-keygen signed", () => {
  const files = names.flatMap((name) => [[name, `${name}.sig`]]);
  files.push(["ed25519", "ed25519-sha256.sig"], ["rsa-2048", "rsa-2048-sha256.sig"]);

  test.each(files)("%s: %s", async (name, file) => {
    const place = names.indexOf(name!);
    const signature = read(file!);
    const holds = {
      key: keys[place],
      fingerprint: fingerprints[place]!.split(" ")[1],
      comment: `${name}@test`,
      touched: false,
      userVerified: false,
      counter: null,
    };
    await expect(verifySignature(signature, options(keys))).resolves.toEqual(holds);
    await expect(verifySignature(utf8(signature), options(keys))).resolves.toEqual(holds);
    await expect(verifySignature(blobOf(signature), options(keys))).resolves.toEqual(holds);
    expect(armor(blobOf(signature))).toBe(signature);
    await refused(
      signature,
      options(keys, { message: concatBytes(message, utf8("\n")) }),
      "signature.invalid",
    );
    await refused(signature, options(keys, { namespace: "bedplate-plan" }), "signature.wrong-namespace");
    await refused(signature, options(keys.toSpliced(place, 1)), "signature.unknown-key");
  });

  test("the signature that the specification prints", async () => {
    const specification = readFileSync(new URL("../../protocol/README.md", import.meta.url), "utf8");
    const block = (name: string) => specification.split(`\`\`\`${name}\n`)[1]!.split("```")[0]!;
    const alice = parsePublicKey(block("signer"));
    const given = options([alice], { message: utf8("erase") });
    await expect(verifySignature(block("signature"), given)).resolves.toMatchObject({ comment: "alice" });
  });

  test("for another namespace it is refused, and holds in its own", async () => {
    await refused(read("ed25519-plan.sig"), options(keys), "signature.wrong-namespace");
    const { fingerprint } = await verifySignature(
      read("ed25519-plan.sig"),
      options(keys, { namespace: "bedplate-plan" }),
    );
    expect(fingerprint).toBe(fingerprints[0]!.split(" ")[1]);
  });
});

describe("each key type", () => {
  let signers: Record<KeyType, TestSigner>;
  beforeAll(() => {
    signers = Object.fromEntries(keyTypes.map((type) => [type, makeSigner(type)])) as typeof signers;
  });
  const keyOf = (type: KeyType) => parsePublicKey(signers[type].line("alice"));

  test.each(keyTypes)("%s: holds with both hashes, and over nothing else", async (type) => {
    const given = options([keyOf(type)]);
    for (const hash of ["sha256", "sha512"] as const) {
      const signature = await signers[type].sign(message, { hash });
      await expect(verifySignature(signature, given)).resolves.toMatchObject({
        comment: "alice",
        touched: type.startsWith("sk-"),
        counter: type.startsWith("sk-") ? 7 : null,
      });
      await refused(signature, { ...given, message: utf8("other") }, "signature.invalid");
    }
  });

  test("a key's signature claimed for another key of its type does not hold", async () => {
    const [mine, other] = [makeSigner("ssh-ed25519"), signers["ssh-ed25519"]];
    const signature = await mine.signBlob(message);
    const at = Buffer.from(signature).indexOf(mine.blob);
    const claimed = signature.slice();
    claimed.set(other.blob, at);
    await refused(claimed, options([keyOf("ssh-ed25519")]), "signature.invalid");
  });

  test("rsa-sha2-256 holds; SHA-1 is refused even where the signature is right", async () => {
    const given = options([keyOf("ssh-rsa")]);
    const { sign } = signers["ssh-rsa"];
    await expect(
      verifySignature(await sign(message, { algorithm: "rsa-sha2-256" }), given),
    ).resolves.toBeDefined();
    await refused(await sign(message, { algorithm: "ssh-rsa" }), given, "signature.malformed");
  });

  test("an RSA value that is not as long as the modulus is malformed", async () => {
    const { blob } = signers["ssh-rsa"];
    const parts = {
      publicKey: blob,
      namespace: "bedplate-command",
      hash: "sha512",
      algorithm: "rsa-sha2-512",
    } as const;
    for (const length of [0, 255, 257]) {
      const signature = encodeSignature({ ...parts, value: sshString(new Uint8Array(length).fill(1)) });
      await refused(signature, options([keyOf("ssh-rsa")]), "signature.malformed");
    }
  });

  test("an algorithm of another key type is malformed", async () => {
    const signature = encodeSignature({
      publicKey: signers["ssh-rsa"].blob,
      namespace: "bedplate-command",
      hash: "sha512",
      algorithm: "ssh-ed25519",
      value: sshString(new Uint8Array(64)),
    });
    await refused(signature, options([keyOf("ssh-rsa")]), "signature.malformed");
  });

  test.each(["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"] as const)(
    "%s: touch is required, verification of the user where asked, the counter is told",
    async (type) => {
      const given = options([keyOf(type)]);
      const { sign } = signers[type];
      for (const flags of [0, 4])
        await refused(await sign(message, { flags }), given, "signature.not-touched");
      const verified = { ...given, requireUserVerified: true };
      await refused(await sign(message, { flags: 1 }), verified, "signature.no-user-verification");
      await expect(
        verifySignature(await sign(message, { flags: 5, counter: 0xffff_fffe }), verified),
      ).resolves.toMatchObject({ touched: true, userVerified: true, counter: 0xffff_fffe });
    },
  );

  test("a flag or a counter changed afterwards does not hold, nor one of another application", async () => {
    const type = "sk-ssh-ed25519@openssh.com";
    const given = options([keyOf(type)]);
    const untouched = await signers[type].signBlob(message, { flags: 0 });
    untouched[untouched.length - 5] = 1;
    await refused(untouched, given, "signature.invalid");
    const counted = await signers[type].signBlob(message);
    counted[counted.length - 1]! ^= 1;
    await refused(counted, given, "signature.invalid");
    const elsewhere = makeSigner(type, "ssh:elsewhere");
    const line = elsewhere.line("alice");
    await expect(
      verifySignature(await elsewhere.sign(message), options([parsePublicKey(line)])),
    ).resolves.toBeDefined();
    await refused(await elsewhere.sign(message), given, "signature.unknown-key");
  });

  test("a key in a file cannot show that its user was verified", async () => {
    const given = options([keyOf("ssh-ed25519")], { requireUserVerified: true });
    await refused(await signers["ssh-ed25519"].sign(message), given, "signature.no-user-verification");
  });

  test("a bad signature takes nothing from the good ones", async () => {
    const good = await signers["ssh-ed25519"].sign(message);
    const { verified, refused: others } = await verifySignatures(
      ["garbage", good],
      options([keyOf("ssh-ed25519")]),
    );
    expect(verified.map(({ comment }) => comment)).toEqual(["alice"]);
    expect(others.map(({ index, error }) => [index, error.code])).toEqual([[0, "signature.malformed"]]);
  });
});

describe("malformed signatures", () => {
  const armored = read("ed25519.sig");
  const blob = blobOf(armored);
  const key = keys[0]!;
  const lengthAt = (offset: number, length: number) => {
    const changed = blob.slice();
    new DataView(changed.buffer).setUint32(offset, length);
    return changed;
  };
  const parts = { namespace: "bedplate-command", hash: "sha512" } as const;
  const ecdsa = (value: Uint8Array) =>
    encodeSignature({
      ...parts,
      publicKey: bytesOfBase64(keys[1]!.encoded)!,
      algorithm: "ecdsa-sha2-nistp256",
      value: sshString(value),
    });
  const one = mpint(Uint8Array.of(1));
  const proof = concatBytes(text("ssh-ed25519"), sshString(new Uint8Array(64)));
  const envelope = (namespace: Uint8Array, hash: string, inner = proof) =>
    concatBytes(
      utf8("SSHSIG"),
      Uint8Array.of(0, 0, 0, 1),
      sshString(bytesOfBase64(key.encoded)!),
      sshString(namespace),
      sshString(new Uint8Array()),
      text(hash),
      sshString(inner),
    );

  test("the envelope that the cases below vary is itself read", () => {
    expect(parseSignature(envelope(utf8("bedplate-command"), "sha512")).hash).toBe("sha512");
    expect(parseSignature(ecdsa(concatBytes(one, one))).proof.value).toHaveLength(64);
  });

  const cases: Record<string, string | Uint8Array> = {
    "nothing at all": "",
    "no bytes": new Uint8Array(),
    "one byte": Uint8Array.of(0x2d),
    "a huge text": "A".repeat(signatureBytesMax + 1),
    "many bytes": new Uint8Array(signatureBytesMax + 1),
    "bytes after the end": concatBytes(blob, Uint8Array.of(0)),
    "other magic": concatBytes(utf8("SSHSIH"), blob.slice(6)),
    "version 0": lengthAt(6, 0),
    "version 2": lengthAt(6, 2),
    "a key of 4 GiB": lengthAt(10, 0xffff_ffff),
    "a key that leaves nothing": lengthAt(10, blob.length - 14),
    "an empty namespace": envelope(utf8(""), "sha512"),
    "a namespace with a zero": envelope(utf8("bedplate-command\0"), "sha512"),
    "a namespace that is no text": envelope(Uint8Array.of(0xff, 0xfe), "sha512"),
    "a long namespace": envelope(utf8("n".repeat(257)), "sha512"),
    "hash sha1": envelope(utf8("bedplate-command"), "sha1"),
    "hash SHA512": envelope(utf8("bedplate-command"), "SHA512"),
    "an empty proof": envelope(utf8("bedplate-command"), "sha512", new Uint8Array()),
    "bytes after the proof": envelope(
      utf8("bedplate-command"),
      "sha512",
      concatBytes(proof, Uint8Array.of(0)),
    ),
    "ssh-dss": envelope(
      utf8("bedplate-command"),
      "sha512",
      concatBytes(text("ssh-dss"), sshString(new Uint8Array(40))),
    ),
    "an Ed25519 value of 63 bytes": envelope(
      utf8("bedplate-command"),
      "sha512",
      concatBytes(text("ssh-ed25519"), sshString(new Uint8Array(63))),
    ),
    "r of zero": ecdsa(concatBytes(sshString(new Uint8Array()), one)),
    "s of zero, padded": ecdsa(concatBytes(one, sshString(Uint8Array.of(0)))),
    "r with a needless zero": ecdsa(concatBytes(sshString(Uint8Array.of(0, 1)), one)),
    "a negative r": ecdsa(concatBytes(sshString(Uint8Array.of(0x80)), one)),
    "an r of 33 bytes": ecdsa(concatBytes(mpint(new Uint8Array(33).fill(0x7f)), one)),
    "bytes after s": ecdsa(concatBytes(one, one, Uint8Array.of(0))),
    "no armor": armored.split("\n").slice(1, -2).join("\n"),
    "a line before": `\n${armored}`,
    "a line after": `${armored}\n`,
    "two signatures": armored + armored,
    "no last line": armored.slice(0, armored.indexOf("\n-----END")),
    "only the first and last line": "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n",
    "carriage returns": armored.replaceAll("\n", "\r\n"),
    "an empty line inside": armored.replace("-----\nU1", "-----\n\nU1"),
    "a space inside": armored.replace("U1NI", "U1N I"),
    "base64 of the web": armored.replace("U1NI", "U1N_"),
    "padding too many": armored.replace("\n-----END", "=\n-----END"),
    "text that is not ASCII": armored.replace("U1NI", "U1Né"),
    "the same as bytes": utf8(armored.replace("U1NI", "U1Né")),
  };

  test.each(Object.entries(cases))("%s", (_, signature) =>
    refused(signature, options(keys), "signature.malformed"),
  );

  test("stray bits in the last character of base64 are no second text of a signature", async () => {
    const source = names.map((name) => read(`${name}.sig`)).find((text) => text.includes("=\n-----END"))!;
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const changed = source.replace(/(.)(=+\n-----END)/, (_, last: string, rest: string) => {
      return alphabet[alphabet.indexOf(last) + 1]! + rest;
    });
    expect(changed).not.toBe(source);
    await refused(changed, options(keys), "signature.malformed");
  });

  test("cut short anywhere", async () => {
    for (let length = 0; length < blob.length; length++) {
      await refused(blob.slice(0, length), options([key]), "signature.malformed");
    }
    for (let length = 0; length < armored.length - 1; length++) {
      await refused(armored.slice(0, length), options([key]), "signature.malformed");
    }
  });

  test("what is reserved is ignored, and the last newline may be missing", async () => {
    const at = blob.length - (4 + 83) - (4 + 6) - 4;
    expect([...blob.slice(at, at + 4)]).toEqual([0, 0, 0, 0]);
    const reserved = concatBytes(blob.slice(0, at), text("later"), blob.slice(at + 4));
    await expect(verifySignature(reserved, options([key]))).resolves.toBeDefined();
    await expect(verifySignature(armored.trimEnd(), options([key]))).resolves.toBeDefined();
    // What is ignored is bounded too.
    const long = concatBytes(
      blob.slice(0, at),
      sshString(new Uint8Array(signatureBytesMax)),
      blob.slice(at + 4),
    );
    await refused(long, options([key]), "signature.malformed");
    await refused(armor(long), options([key]), "signature.malformed");
  });
});
