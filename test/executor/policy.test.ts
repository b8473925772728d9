// The host's policy file: what it allows, and when it is not trusted.

import { createHash } from "node:crypto";
import { chmod, chown, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemFiles } from "../../agent/host/files.ts";
import { loadPolicy, missingPolicy, parsePolicy } from "../../agent/policy/policy.ts";
import type { Disk } from "../../protocol/disks.ts";
import type { BedplateError } from "../../protocol/errors.ts";
import { makeSigner } from "../protocol/ssh-signers.ts";
import { weakRsaLine } from "../support/operators.ts";

const disk = (changes: Partial<Disk>) =>
  ({ type: "ssd", serial: null, wwn: null, backing: null, fileDisk: null, ...changes }) as Disk;

const text = `allowDisks = ["serial:S3Z9", "wwn:naa.5000C500A1B2C3D4", "loop:/srv/a.img", "file:scratch"]
denyKinds = ["image.verify"]

[[fileDisks]]
name = "scratch"
path = "/srv/scratch.img"
sizeBytes = 1048576
`;

describe("what it allows", () => {
  const policy = parsePolicy(text, "/p");
  test.each<[Partial<Disk>, boolean]>([
    [{ serial: "S3Z9" }, true],
    [{ serial: "S3Z" }, false],
    [{ wwn: "0x5000c500a1b2c3d4" }, true],
    [{ type: "loop", backing: "/srv/a.img" }, true],
    [{ type: "loop", backing: "/srv/b.img" }, false],
    // A serial never allows what only stands for a disk.
    [{ type: "loop", backing: "/srv/b.img", serial: "S3Z9" }, false],
    [{ type: "file", fileDisk: "scratch", backing: "/srv/scratch.img" }, true],
    [{ type: "file", fileDisk: "other", serial: "S3Z9" }, false],
    [{}, false],
  ])("%j: %s", (changes, allowed) => expect(policy.allows(disk(changes))).toBe(allowed));

  test("an empty file allows nothing", () => {
    expect(parsePolicy("", "/p").allows(disk({ serial: "S3Z9" }))).toBe(false);
  });
});

describe("what it protects", () => {
  test("a serial in either case, which allows in its own alone", () => {
    const { allows, protects } = parsePolicy(
      'allowDisks = ["serial:abc"]\nprotectDisks = ["serial:s3z9"]\n',
      "/p",
    );
    expect(protects(disk({ serial: "S3Z9" }))).toBe(true);
    expect(protects(disk({ serial: "S3Z" }))).toBe(false);
    expect([allows(disk({ serial: "abc" })), allows(disk({ serial: "ABC" }))]).toEqual([true, false]);
  });

  const policy = parsePolicy(
    `allowDisks = ["serial:S3Z9", "wwn:0x5000c500a1b2c3d4", "loop:/srv/a.img", "file:scratch", "file:other"]
protectDisks = ["wwn:naa.5000C500A1B2C3D4", "loop:/srv/a.img", "file:scratch"]
[[fileDisks]]
name = "scratch"
path = "/srv/scratch.img"
sizeBytes = 1048576
[[fileDisks]]
name = "other"
path = "/srv/a.img"
sizeBytes = 1048576
`,
    "/p",
  );
  test.each<[string, Partial<Disk>, boolean]>([
    ["another disk", { serial: "S3Z9" }, false],
    ["by its other name", { serial: "S3Z9", wwn: "0x5000c500a1b2c3d4" }, true],
    ["a loop device, as the file disk on the same file", { type: "loop", backing: "/srv/scratch.img" }, true],
    ["a file disk", { type: "file", fileDisk: "scratch", backing: "/srv/scratch.img" }, true],
    [
      "a file disk, as the loop device on the same file",
      { type: "file", fileDisk: "other", backing: "/srv/a.img" },
      true,
    ],
  ])("%s: %j: %s", (_, changes, kept) => {
    expect(policy.protects(disk(changes))).toBe(kept);
    // Deny wins.
    expect(policy.allows(disk(changes))).toBe(!kept);
  });
});

test("whose signatures an image needs; without a word of it, nobody's", () => {
  const ops = `[signers]\nops = ["${makeSigner("ssh-ed25519").line("alice")}"]\n`;
  const asked = parsePolicy(`imageSignatures = { k = 1, from = ["ops"] }\n${ops}`, "/p");
  expect(asked.imageSignatures).toEqual({ k: 1, from: ["ops"] });
  expect(parsePolicy(ops, "/p").imageSignatures).toBeNull();
  expect(missingPolicy("/p").imageSignatures).toBeNull();
});

test("all of a policy: signers, windows, kinds, quota", () => {
  const [alice, bob] = ["alice", "bob"].map((name) => makeSigner("ssh-ed25519").line(name));
  const { rules, digest } = parsePolicy(
    `unsigned = ["host.reboot"]
destructivePerDay = 4
[signers]
ops = ["${alice}", "${bob}"]
[windows.nightly]
days = ["mon", "tue"]
from = "22:00"
to = "04:00"
[windows.always]
from = "00:00"
to = "24:00"
[kinds."image.deploy"]
signatures = { k = 2, from = ["ops"] }
window = "nightly"
[kinds."host.exec"]
argv = [["/usr/bin/systemctl", "restart", "*"], ["/usr/bin/uptime"]]
`,
    "/p",
  );
  expect(rules.unsigned).toEqual(["host.reboot"]);
  expect(rules.destructivePerDay).toBe(4);
  expect(rules.signers.map(({ name, signers }) => [name, signers.length])).toEqual([["ops", 2]]);
  expect(rules.kinds).toEqual({
    "image.deploy": {
      signatures: { k: 2, from: ["ops"] },
      window: { name: "nightly", days: ["mon", "tue"], fromMinute: 1320, toMinute: 240 },
      exec: null,
    },
    "host.exec": {
      signatures: null,
      window: null,
      exec: {
        argv: [["/usr/bin/systemctl", "restart", "*"], ["/usr/bin/uptime"]],
        shell: false,
        environment: [],
        directories: [],
      },
    },
  });
  expect(digest).toMatch(/^[0-9a-f]{64}$/);
});

describe("errors name file, line and key", () => {
  test.each<[string, string, number | undefined, string | undefined]>([
    ["a misspelt key", 'allowDisks = []\nallowDisk = ["serial:X"]\n', 2, "allowDisk"],
    ["a wrong entry", '# x\nallowDisks = ["S3Z9"]\n', 2, "allowDisks.0"],
    [
      "a relative path",
      '[[fileDisks]]\nname = "a"\npath = "a.img"\nsizeBytes = 1048576\n',
      3,
      "fileDisks.0.path",
    ],
    [
      "a size that is no whole sector",
      '[[fileDisks]]\nname = "a"\npath = "/a"\nsizeBytes = 1048577\n',
      4,
      "fileDisks.0.sizeBytes",
    ],
    ["no TOML", "allowDisks = [\n= 3\n", 2, undefined],
  ])("%s", (_, content, line, key) => {
    try {
      parsePolicy(content, "/etc/p.toml");
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: "config.invalid" });
      expect((error as BedplateError).message).toContain("/etc/p.toml");
      expect((error as BedplateError).details).toMatchObject({
        file: "/etc/p.toml",
        ...(line === undefined ? {} : { line }),
        ...(key === undefined ? {} : { key }),
      });
    }
  });

  const line = makeSigner("ssh-ed25519").line("alice");
  const ops = `[signers]\nops = ["${line}"]\n`;
  const weak = weakRsaLine("mallory");
  test.each<[string, string, number | undefined, string]>([
    [
      "signatures of images by nobody that is known",
      `imageSignatures = { k = 1, from = ["opps"] }\n${ops}`,
      1,
      "imageSignatures",
    ],
    [
      "more signatures of images than there are operators",
      `imageSignatures = { k = 2, from = ["ops"] }\n${ops}`,
      1,
      "imageSignatures",
    ],
    ["a kind that is not known, denied", 'denyKinds = ["image.depoly"]\n', 1, "denyKinds"],
    ["a kind that is not known, unsigned", '\nunsigned = ["image.*"]\n', 2, "unsigned"],
    ["what the agent itself answers, denied", 'denyKinds = ["agent.logs"]\n', 1, "denyKinds"],
    [
      "what changes nothing, signed",
      `${ops}[kinds."image.verify"]\nsignatures = { k = 1, from = ["ops"] }\n`,
      3,
      "kinds.image.verify",
    ],
    ["a kind that is not known, with rules", '[kinds."disk.eat"]\n', 1, "kinds.disk.eat"],
    [
      "a key of a kind that is not known",
      '[kinds."image.deploy"]\nsigned = true\n',
      2,
      "kinds.image.deploy.signed",
    ],
    ["a set of signers that is empty", "[signers]\nops = []\n", 2, "signers.ops"],
    ["a key that is no key", '[signers]\nops = ["ssh-ed25519 AAAA alice"]\n', 2, "signers.ops"],
    [
      "a key without an operator's name",
      `[signers]\nops = ["${line.replace(" alice", "")}"]\n`,
      2,
      "signers.ops",
    ],
    ["RSA of 1024 bits", `[signers]\nops = ["${weak}"]\n`, 2, "signers.ops"],
    ["a certificate authority", `[signers]\nops = ["cert-authority ${line}"]\n`, 2, "signers.ops"],
    [
      "one key with two owners",
      `[signers]\na = ["${line}"]\nb = ["${line.replace("alice", "bob")}"]\n`,
      1,
      "signers",
    ],
    [
      "signatures of a set that is not there",
      `${ops}[kinds."image.deploy"]\nsignatures = { k = 1, from = ["x"] }\n`,
      4,
      "kinds.image.deploy.signatures",
    ],
    [
      "more signatures than there are operators",
      `${ops}[kinds."image.deploy"]\nsignatures = { k = 2, from = ["ops"] }\n`,
      4,
      "kinds.image.deploy.signatures",
    ],
    [
      "no signatures, as signatures",
      `${ops}[kinds."image.deploy"]\nsignatures = { k = 0, from = ["ops"] }\n`,
      4,
      "kinds.image.deploy.signatures.k",
    ],
    [
      "a window that is not there",
      '[kinds."image.deploy"]\nwindow = "night"\n',
      2,
      "kinds.image.deploy.window",
    ],
    ["a window that has no length", '[windows.w]\nfrom = "07:00"\nto = "07:00"\n', 1, "windows.w"],
    ["a window that begins at 24:00", '[windows.w]\nfrom = "24:00"\nto = "07:00"\n', 1, "windows.w"],
    ["no time of day", '[windows.w]\nfrom = "7:00"\nto = "08:00"\n', 2, "windows.w.from"],
    ["no day", '[windows.w]\ndays = ["monday"]\nfrom = "07:00"\nto = "08:00"\n', 2, "windows.w.days.0"],
    [
      "argument vectors of another kind",
      '[kinds."host.reboot"]\nargv = [["/bin/a"]]\n',
      2,
      "kinds.host.reboot.argv",
    ],
    ["a program that is no path", '[kinds."host.exec"]\nargv = [["uptime"]]\n', 2, "kinds.host.exec.argv"],
    ["any program", '[kinds."host.exec"]\nargv = [["*"]]\n', 2, "kinds.host.exec.argv"],
    ["any program of a folder", '[kinds."host.exec"]\nargv = [["/bin/*"]]\n', 2, "kinds.host.exec.argv"],
    [
      "any number of arguments before others",
      '[kinds."host.exec"]\nargv = [["/bin/a", "**", "b"]]\n',
      2,
      "kinds.host.exec.argv",
    ],
    ["a wwn that no disk can have", 'protectDisks = ["wwn:5000c500a1b2c3d4"]\n', 1, "protectDisks"],
    ["a wwn of its vendor alone", 'allowDisks = ["wwn:t10.ATA disk"]\n', 1, "allowDisks"],
    ["a path with a step up", 'protectDisks = ["loop:/srv/../a.img"]\n', 1, "protectDisks"],
    ["a path with an empty step", 'protectDisks = ["loop:/srv//a.img"]\n', 1, "protectDisks"],
    ["the path of a directory", 'protectDisks = ["loop:/srv/"]\n', 1, "protectDisks"],
    ["a serial of blanks", 'protectDisks = ["serial: "]\n', 1, "protectDisks"],
    ["a protected file disk that nothing declares", 'protectDisks = ["file:x"]\n', 1, "protectDisks"],
    ["a number of operations that is none", "destructivePerDay = -1\n", 1, "destructivePerDay"],
  ])("%s", (_, content, line, key) => {
    let error: BedplateError | undefined;
    try {
      parsePolicy(content, "/etc/p.toml");
    } catch (thrown) {
      error = thrown as BedplateError;
    }
    expect(error?.code).toBe("config.invalid");
    expect(error?.message).toContain("/etc/p.toml");
    expect(error?.details).toEqual({ file: "/etc/p.toml", key, ...(line === undefined ? {} : { line }) });
  });

  test("a file disk that nothing declares, and two of one name", () => {
    expect(() => parsePolicy('allowDisks = ["file:x"]', "/p")).toThrow("file:x");
    const twice = '[[fileDisks]]\nname = "a"\npath = "/a"\nsizeBytes = 1048576\n';
    expect(() => parsePolicy(twice + twice, "/p")).toThrow("two fileDisks");
  });
});

describe("whom it must belong to", () => {
  const user = process.geteuid!();
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "bp-policy-"));
  });
  afterAll(() => rm(directory, { recursive: true }));
  const path = () => join(directory, "policy.toml");
  const codeOf = (file: string, owner = user) => {
    try {
      return loadPolicy(systemFiles, file, owner).state;
    } catch (error) {
      return (error as BedplateError).code;
    }
  };

  test("missing, safe, writable by others, in a directory that others can write, a link", async () => {
    expect(codeOf(path())).toBe("missing");
    await writeFile(path(), text, { mode: 0o644 });
    expect(codeOf(path())).toBe("present");
    await chmod(path(), 0o664);
    expect(codeOf(path())).toBe("policy.unsafe");
    await chmod(path(), 0o602);
    expect(codeOf(path())).toBe("policy.unsafe");
    await chmod(path(), 0o600);
    await chmod(directory, 0o777);
    expect(codeOf(path())).toBe("policy.unsafe");
    await chmod(directory, 0o700);
    await symlink(path(), join(directory, "link.toml"));
    expect(codeOf(join(directory, "link.toml"))).toBe("policy.unsafe");
    expect(codeOf(path())).toBe("present");
  });

  test("its digest is that of its bytes; what is too long or no text is not read in part", async () => {
    const file = join(directory, "other.toml");
    const bytes = Buffer.from(`\u{feff}# Größe\n${text}`);
    await writeFile(file, bytes, { mode: 0o600 });
    expect(loadPolicy(systemFiles, file, user).digest).toBe(createHash("sha256").update(bytes).digest("hex"));
    await writeFile(file, `${text}#${"x".repeat(1 << 20)}\n`);
    expect(codeOf(file)).toBe("config.invalid");
    await writeFile(file, Uint8Array.of(0x23, 0xff, 0x0a));
    expect(codeOf(file)).toBe("config.invalid");
  });

  test("another user's is refused; root's is taken by anybody", () => {
    // /etc/hostname and its directory belong to root, writable by it alone: only the parser objects.
    expect(codeOf("/etc/hostname")).toBe("config.invalid");
    // What belongs to this user, as an executor of another user sees it.
    if (user !== 0) expect(codeOf(path(), user + 1)).toBe("policy.unsafe");
  });

  test.runIf(user === 0)("as root, a file of another user is refused", async () => {
    await chown(path(), 65_534, 65_534);
    expect(codeOf(path())).toBe("policy.unsafe");
    await chown(path(), 0, 0);
    expect(codeOf(path())).toBe("present");
  });
});
