// The host's policy file: what it allows, and when it is not trusted.
import { chmod, chown, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadPolicy, parsePolicy } from "../../agent/executor/policy.ts";
import { systemFiles } from "../../agent/host/files.ts";
import type { Disk } from "../../protocol/disks.ts";
import type { BedplateError } from "../../protocol/errors.ts";

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
