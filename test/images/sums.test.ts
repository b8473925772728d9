// Vendors' sums: files as the real tools write them, signatures as real keys of gpg make them, and imports that they stop.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { judge } from "../../controller/images/gpgv.ts";
import { type ImportOptions, importImage } from "../../controller/images/import.ts";
import { parseSums, sumFor } from "../../controller/images/sums.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { codeOf, content, errorOf, namesIn, rootOf, temporaryDirectory } from "./support.ts";

const hex = (algorithm: string, bytes: Uint8Array | string) =>
  createHash(algorithm).update(bytes).digest("hex");
const a256 = hex("sha256", "a");
const a512 = hex("sha512", "a");

describe("a file of sums", () => {
  test("coreutils and BSD form, binary mark, comments, other algorithms, escaped names", () => {
    const text = [
      "# Sums",
      `${a256}  disk.img`,
      `${hex("sha256", "b")} *binary.img\r`,
      "",
      `SHA256 (bsd (1).img) = ${hex("sha256", "c")}`,
      `SHA512 (disk.img) = ${a512.toUpperCase()}`,
      `MD5 (disk.img) = ${hex("md5", "a")}`,
      `${hex("md5", "a")}  disk.img`,
      `${hex("sha384", "a")}  disk.img`,
      `\\${hex("sha256", "d")}  new\\nline and \\\\ back`,
      `${hex("sha256", "e")}  two  spaces`,
      `${hex("sha256", "f")}  ./dotted.img`,
    ].join("\n");
    const entries = parseSums(text, "SUMS");
    expect(entries.map(({ algorithm, name }) => [algorithm, name])).toEqual([
      ["sha256", "disk.img"],
      ["sha256", "binary.img"],
      ["sha256", "bsd (1).img"],
      ["sha512", "disk.img"],
      ["sha256", "new\nline and \\ back"],
      ["sha256", "two  spaces"],
      ["sha256", "./dotted.img"],
    ]);
    expect(sumFor(entries, "disk.img", "SUMS")).toEqual({ algorithm: "sha512", digest: a512 });
    expect(sumFor(entries, "binary.img", "SUMS").digest).toBe(hex("sha256", "b"));
    expect(sumFor(entries, "dotted.img", "SUMS").digest).toBe(hex("sha256", "f"));
  });

  test.each([
    ["a line that is none", "hello"],
    ["a digest that is cut off", `${a256.slice(1)}  disk.img`],
    ["no name", `${a256}  `],
    ["one space only", `${a256} disk.img`],
    ["a name with an escape that is none", `\\${a256}  a\\tb`],
    ["SHA512 of 64 digits", `SHA512 (disk.img) = ${a256}`],
    ["an HTML page", "<!DOCTYPE html>\n<html>"],
  ])("%s is refused with its line", (_, line) => {
    expect(() => parseSums(`${a256}  other\n${line}\n`, "SUMS")).toThrow(/^SUMS, line 2: /);
  });

  test("a file that is not named, or named with two digests, is refused", async () => {
    const entries = parseSums(
      `${a256}  a.img\n${hex("sha256", "b")}  a.img\n${a256}  b.img\n${a256} *b.img`,
      "S",
    );
    expect(await codeOf(() => sumFor(entries, "a.img", "S"))).toBe("image.bad-sums");
    expect(sumFor(entries, "b.img", "S").digest).toBe(a256);
    const missing = await errorOf(() => sumFor(entries, "c.img", "S"));
    expect([missing.code, missing.hint]).toEqual(["image.bad-sums", expect.stringContaining("a.img, b.img")]);
    // A directory in the way is another file.
    expect(await codeOf(() => sumFor(parseSums(`${a256}  old/c.img`, "S"), "c.img", "S"))).toBe(
      "image.bad-sums",
    );
  });

  test("what sha256sum and sha512sum write, is read", async () => {
    await using directory = await temporaryDirectory();
    await writeFile(join(directory.path, "a\nb\\c"), "x");
    for (const [tool, ...options] of [
      ["sha256sum"],
      ["sha512sum", "--binary"],
      ["sha256sum", "--tag"],
      ["sha512sum", "--tag"],
    ] as [string, ...string[]][]) {
      const text = execFileSync(tool, [...options, "a\nb\\c"], { cwd: directory.path, encoding: "utf8" });
      expect(sumFor(parseSums(text, "S"), "a\nb\\c", "S").digest).toBe(hex(tool.slice(0, 6), "x"));
    }
  });
});

describe("an import with sums", () => {
  const image = content(3_000_000, 7);
  const packed = gzipSync(image);
  const setUp = async (named: string, bytes: Uint8Array = packed) => {
    const directory = await temporaryDirectory();
    const path = (name: string) => join(directory.path, name);
    await writeFile(path("disk.raw.gz"), packed);
    await writeFile(path("SHA256SUMS"), `${hex("sha256", bytes)}  ${named}\n`);
    await writeFile(path("SHA512SUMS"), `${hex("sha512", bytes)} *${named}\n`);
    const run = (options: Partial<ImportOptions>) =>
      importImage({
        input: path("disk.raw.gz"),
        store: path("store"),
        signal: new AbortController().signal,
        ...options,
      });
    return { ...directory, path, run, [Symbol.asyncDispose]: directory[Symbol.asyncDispose] };
  };

  test("the sum is that of the file as it is given, before unpacking", async () => {
    for (const name of ["SHA256SUMS", "SHA512SUMS"]) {
      await using place = await setUp("disk.raw.gz");
      const { root } = await place.run({ sums: { sums: place.path(name) } });
      expect(root).toBe(await rootOf(image));
    }
  });

  test("another sum, another name, or a sum of the unpacked image: nothing is kept", async () => {
    for (const [named, bytes, code] of [
      ["disk.raw.gz", packed.subarray(1), "image.digest-mismatch"],
      ["disk.raw.gz", image, "image.digest-mismatch"],
      ["other.raw.gz", packed, "image.bad-sums"],
    ] as const) {
      for (const sums of ["SHA256SUMS", "SHA512SUMS"]) {
        await using place = await setUp(named, bytes);
        expect(await codeOf(place.run({ sums: { sums: place.path(sums) } }))).toBe(code);
        expect(await namesIn(place.path("store"))).toEqual([]);
      }
    }
  });

  test("a raw file is read through, and refused if its sum is another", async () => {
    await using place = await setUp("disk.raw", image);
    await writeFile(place.path("disk.raw"), image);
    const sums = { sums: place.path("SHA256SUMS") };
    expect((await place.run({ input: place.path("disk.raw"), sums })).root).toBe(await rootOf(image));
    await writeFile(place.path("disk.raw"), image.with(5, image[5]! ^ 1));
    expect(await codeOf(place.run({ input: place.path("disk.raw"), sums, store: place.path("other") }))).toBe(
      "image.digest-mismatch",
    );
  });

  test("sums by plain http are refused without a signature; a signature without a keyring is wrong usage", async () => {
    await using place = await setUp("disk.raw.gz");
    const server = createServer((_, response) => void response.end(`${a256}  disk.raw.gz\n`));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/SHA256SUMS`;
    expect(await codeOf(place.run({ sums: { sums: address } }))).toBe("source.refused");
    const sums = place.path("SHA256SUMS");
    expect(await codeOf(place.run({ sums: { sums, signature: sums } }))).toBe("usage");
    expect(await codeOf(place.run({ sums: { sums: place.path("none") } }))).toBe("file.unreadable");
    server.close();
  });
});

const gnupg = ["gpg", "gpgv"].every((program) => spawnSync(program, ["--version"]).error === undefined);
if (!gnupg) console.log("gpg and gpgv are not installed: signatures of sums are NOT tested here");

describe.skipIf(!gnupg)("signed sums, by real keys", () => {
  const image = content(2_000_000, 9);
  let directory: string;
  const path = (name: string) => join(directory, name);
  // The home of gpg-agent holds sockets, whose paths are short.
  let home: string;
  const gpg = (...args: string[]) =>
    execFileSync(
      "gpg",
      [
        "--homedir",
        home,
        "--batch",
        "--yes",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
        ...args,
      ],
      {
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
  const at = (moment: string) => ["--faked-system-time", `${moment}!`];
  const sign = (name: string, key: string, ...options: string[]) =>
    gpg(...options, "-u", key, "--output", path(name), "--detach-sign", path("SHA256SUMS"));

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "bedplate-sums-"));
    home = await mkdtemp(join(tmpdir(), "bp-gpg-"));
    await writeFile(path("disk.raw"), image);
    await writeFile(path("SHA256SUMS"), `${hex("sha256", image)} *disk.raw\n`);
    const makeKey = (name: string, expires: string, ...options: string[]) =>
      gpg(...options, "--quick-generate-key", `${name} <${name}@keys.example>`, "ed25519", "sign", expires);
    for (const name of ["vendor", "next", "stranger", "revoked"]) makeKey(name, "never");
    makeKey("expired", "1d", ...at("20200101T000000"));
    sign("expired.sig", "expired", ...at("20200101T010000"));
    for (const name of ["vendor", "stranger", "revoked"]) sign(`${name}.sig`, name);
    gpg("-u", "vendor", "--armor", "--output", path("vendor.asc"), "--detach-sign", path("SHA256SUMS"));
    gpg("-u", "vendor", "-u", "next", "--output", path("both.sig"), "--detach-sign", path("SHA256SUMS"));
    gpg("-u", "vendor", "--clear-sign", "--output", path("CLEARSIGNED"), path("SHA256SUMS"));
    // gpg keeps a revocation of each key that it makes, made harmless by a colon.
    const fingerprint = gpg("--with-colons", "--list-keys", "revoked")
      .toString()
      .split("\n")
      .find((line) => line.startsWith("fpr:"))!
      .split(":")[9]!;
    const revocation = await readFile(join(home, "openpgp-revocs.d", `${fingerprint}.rev`), "utf8");
    await writeFile(path("revocation"), revocation.replace(":-----BEGIN", "-----BEGIN"));
    gpg("--import", path("revocation"));
    const trusted = ["vendor", "expired", "revoked"];
    gpg("--output", path("keys.gpg"), "--export", ...trusted);
    gpg("--armor", "--output", path("keys.asc"), "--export", ...trusted);
    gpg("--output", path("other.gpg"), "--export", "next");
  }, 60_000);
  afterAll(async () => {
    spawnSync("gpgconf", ["--homedir", home, "--kill", "all"]);
    for (const one of [directory, home]) await rm(one, { recursive: true, force: true });
  });

  const run = (sums: Partial<NonNullable<ImportOptions["sums"]>>, more: Partial<ImportOptions> = {}) =>
    temporaryDirectory().then(async (store) => {
      await using _store = store;
      const names: string[] = [];
      try {
        const { root } = await importImage({
          input: path("disk.raw"),
          store: join(store.path, "store"),
          signal: new AbortController().signal,
          sums: { sums: path("SHA256SUMS"), keyring: path("keys.gpg"), ...sums },
          onSigned: (signedBy) => names.push(...signedBy.map(({ owner }) => owner)),
          ...more,
        });
        return { root, names };
      } finally {
        names.push(...(await namesIn(join(store.path, "store"))).filter((name) => name.startsWith(".")));
      }
    });

  test.each<[string, string, string]>([
    ["binary, of a binary keyring", "vendor.sig", "keys.gpg"],
    ["armored, of an armored keyring", "vendor.asc", "keys.asc"],
    ["by two keys, of which the keyring has one", "both.sig", "keys.gpg"],
  ])("%s: taken, and named", async (_, signature, keyring) => {
    const { root, names } = await run({ signature: path(signature), keyring: path(keyring) });
    expect(root).toBe(await rootOf(image));
    expect(names).toEqual(["vendor <vendor@keys.example>"]);
  });

  test("clear-signed sums need no second file, and only what is signed counts", async () => {
    const clear = await readFile(path("CLEARSIGNED"), "utf8");
    await writeFile(path("LONGER"), `${hex("sha256", "x")}  disk.raw\n${clear}`);
    expect((await run({ sums: path("CLEARSIGNED") })).names).toHaveLength(1);
    expect((await run({ sums: path("LONGER") })).root).toBe(await rootOf(image));
    await writeFile(path("FORGED"), clear.replace(/[0-9a-f]{64}/, a256));
    expect(await codeOf(run({ sums: path("FORGED") }))).toBe("image.untrusted-sums");
    expect(await codeOf(run({ sums: path("CLEARSIGNED"), keyring: undefined }))).toBe("usage");
  });

  test.each<[string, string, RegExp]>([
    ["a key that is not in the keyring", "stranger.sig", /no key of the keyring/],
    ["a key that has expired", "expired.sig", /expired/],
    ["a key that is revoked", "revoked.sig", /revoked/],
    ["no signature at all", "SHA256SUMS", /no signature/],
  ])("by %s: refused", async (_, signature, why) => {
    const error = await errorOf(run({ signature: path(signature) }));
    expect([error.code, error.message]).toEqual(["image.untrusted-sums", expect.stringMatching(why)]);
  });

  test("sums that were changed after, and a keyring that is none: refused", async () => {
    await writeFile(path("CHANGED"), `${a256} *disk.raw\n`);
    const changed = run({ sums: path("CHANGED"), signature: path("vendor.sig") });
    expect(await codeOf(changed)).toBe("image.untrusted-sums");
    const keyring = path("SHA256SUMS");
    expect(await codeOf(run({ signature: path("vendor.sig"), keyring }))).toBe("image.untrusted-sums");
    expect(await codeOf(run({ signature: path("vendor.sig"), keyring: path("other.gpg") }))).toBe(
      "image.untrusted-sums",
    );
  });

  test("without gpgv a signature is not skipped but an error", async () => {
    const programs = { path: "/nonexistent" };
    expect(await codeOf(run({ signature: path("vendor.sig") }, { programs }))).toBe("image.tool-missing");
  });
});

describe("gpgv's status lines", () => {
  const refusal = (why: string) => new BedplateError("image.untrusted-sums", why);
  const verdict = (lines: readonly string[], exitCode = 0) =>
    judge(lines.map((line) => `[GNUPG:] ${line}`).join("\n"), exitCode, refusal);
  const [good, valid] = [
    "GOODSIG 1122 Vendor <v@example>",
    `VALIDSIG AA 2026-01-01 1 0 4 0 22 8 00 ${"F".repeat(40)}`,
  ];

  test("good and valid", () => {
    expect(verdict(["NEWSIG", good, valid])).toEqual([
      { owner: "Vendor <v@example>", fingerprint: "F".repeat(40) },
    ]);
    expect(verdict(["NEWSIG", good, valid, "NEWSIG", "ERRSIG 33 22 8 00 1 9 -"], 2)).toHaveLength(1);
  });

  test.each<[string, readonly string[], number?]>([
    ["nothing", []],
    ["good without being valid", ["NEWSIG", good]],
    ["valid by a key that has expired", ["NEWSIG", "EXPKEYSIG 1122 Vendor", valid]],
    ["an expired signature", ["NEWSIG", "EXPSIG 1122 Vendor", valid]],
    ["a revoked key", ["NEWSIG", "REVKEYSIG 1122 Vendor", valid]],
    ["good and expired at once", ["NEWSIG", good, "EXPKEYSIG 1122 Vendor", valid]],
    ["a bad one beside a good one", ["NEWSIG", good, valid, "NEWSIG", "BADSIG 33 Vendor"], 1],
    ["gpgv failing", ["NEWSIG", good, valid], 2],
    ["lines before any signature", [good, valid]],
    ["a user id that is a status line", ["NEWSIG", "BADSIG 1122 x", "GOODSIG 11 y", valid], 1],
  ])("%s: refused", async (_, lines, exitCode) => {
    expect(await codeOf(() => verdict(lines, exitCode))).toBe("image.untrusted-sums");
  });
});
