// Commands, selectors, manifests, tokens and configuration: what is taken, and what bad input gets.
import { parse } from "smol-toml";
import Type from "typebox";
import { expect, test } from "vitest";
import { utf8 } from "../../protocol/bytes.ts";
import { decodeCommand, effectOf, encodeCommand } from "../../protocol/commands.ts";
import { configReader } from "../../protocol/config.ts";
import { formatDiskSelector, parseDiskSelector } from "../../protocol/disks.ts";
import { uuidV7 } from "../../protocol/identifiers.ts";
import { formatJoinToken, parseJoinToken } from "../../protocol/join-token.ts";
import { decodeManifest, encodeManifest, frameOffsets, groupBytes } from "../../protocol/manifest.ts";

const refusedWith = (code: string) => expect.objectContaining({ code });
const id = uuidV7(1_763_769_600_000, new Uint8Array(10).fill(255));
const host = "ab".repeat(32);
const image = { root: "cd".repeat(32), sizeBytes: 5 };

test("a UUIDv7 carries its time, version and variant", () => {
  expect(id).toBe("019aa8dc-4800-7fff-bfff-ffffffffffff");
});

test("a command is read from the very bytes it was made into", () => {
  const command = {
    id,
    host,
    kind: "image.verify",
    mode: "apply",
    arguments: { image, disk: { serial: "S1" } },
    limits: { runForSeconds: 60 },
  } as const;
  expect(decodeCommand(encodeCommand(command))).toEqual(command);
  expect(effectOf({ kind: "image.deploy", mode: "plan" })).toBe("read");
  expect(effectOf({ kind: "image.deploy", mode: "apply" })).toBe("resumable");
});

test.each([
  ["not JSON", "{", "command.bad-arguments"],
  ["not UTF-8", "\xff", "command.bad-arguments"],
  ["another document", "{}", "command.bad-arguments"],
  ["an unknown kind", { kind: "disk.explode" }, "command.unknown-kind"],
  ["a kind named like a method", { kind: "toString" }, "command.unknown-kind"],
  ["a plan of what destroys nothing", { kind: "agent.ping", mode: "plan" }, "command.bad-arguments"],
  ["an argument too many", { kind: "agent.ping", arguments: { force: true } }, "command.bad-arguments"],
  ["a member too many", { kind: "agent.ping", force: true }, "command.bad-arguments"],
  [
    "a deploy that quotes no plan",
    { kind: "image.deploy", arguments: { image, disk: { serial: "S1" } } },
    "command.bad-arguments",
  ],
  [
    "a disk by size alone",
    { kind: "image.verify", arguments: { image, disk: { sizeBytes: 5 } } },
    "command.bad-arguments",
  ],
  [
    "a disk by its path",
    { kind: "image.verify", arguments: { image, disk: { path: "/dev/sda" } } },
    "command.bad-arguments",
  ],
  ["an id that is no UUIDv7", { kind: "agent.ping", id: "1" }, "command.bad-arguments"],
])("refused: %s", (_, change, code) => {
  const base = {
    bedplate: "command/1",
    id,
    host,
    kind: "agent.ping",
    mode: "apply",
    arguments: {},
    limits: {},
  };
  const bytes =
    typeof change === "string" ? Buffer.from(change, "latin1") : utf8(JSON.stringify({ ...base, ...change }));
  expect(() => decodeCommand(bytes)).toThrow(refusedWith(code));
});

test("a disk selector is KEY=VALUE pairs with an identity among them", () => {
  const selector = parseDiskSelector("serial=S3Z9=X,type=ssd");
  expect(selector).toEqual({ serial: "S3Z9=X", type: "ssd" });
  expect(parseDiskSelector(formatDiskSelector(selector))).toEqual(selector);
  for (const bad of [
    "",
    "/dev/sda",
    "serial=",
    "=S1",
    "type=ssd",
    "sizeBytes=1",
    "serial=S1,,",
    "serial=S1,type=floppy",
    "hctl=1:2",
  ]) {
    expect(() => parseDiskSelector(bad), bad).toThrow(refusedWith("command.bad-arguments"));
  }
});

test("a manifest comes back whole and its frames add up", () => {
  const manifest = {
    sizeBytes: 2 * groupBytes + 1,
    sectorBytes: 512 as const,
    root: new Uint8Array(32).fill(1),
    groups: new Uint8Array(96).fill(2),
    frameBytes: Uint32Array.of(10, 0, 4_000_000_000),
    name: "debian-12",
    importedFrom: "raw",
  };
  const decoded = decodeManifest(encodeManifest(manifest));
  expect(decoded).toEqual(manifest);
  expect([...frameOffsets(decoded)]).toEqual([0, 10, 10, 4_000_000_010]);
  expect(() => decodeManifest(encodeManifest({ ...manifest, sizeBytes: groupBytes }))).toThrow(
    refusedWith("image.bad-manifest"),
  );
  expect(() => decodeManifest(encodeManifest({ ...manifest, frameBytes: Uint32Array.of(1) }))).toThrow(
    refusedWith("image.bad-manifest"),
  );
  expect(() => decodeManifest(encodeManifest(manifest).subarray(1))).toThrow(
    refusedWith("image.bad-manifest"),
  );
});

test("a join token comes back whole, and a cut one is refused", () => {
  const token = { id: "abcdefgh", secret: "s".repeat(43), caSha256: "ef".repeat(32) };
  expect(parseJoinToken(`${formatJoinToken(token)}\n`)).toEqual(token);
  expect(() => parseJoinToken(formatJoinToken(token).slice(0, -1))).toThrow(
    refusedWith("enrol.token-invalid"),
  );
});

test("a configuration error names file, line and key", () => {
  const closed = { additionalProperties: false } as const;
  const read = configReader(
    Type.Object(
      {
        a: Type.Integer(),
        t: Type.Optional(Type.Object({ x: Type.String() }, closed)),
        list: Type.Optional(Type.Array(Type.Object({ n: Type.Integer() }, closed))),
      },
      closed,
    ),
    parse,
  );
  const problem = (text: string) => {
    try {
      return read(text, "agent.toml");
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(problem("a = 1\n[t]\nx = 'y'")).toEqual({ a: 1, t: { x: "y" } });
  expect(problem("a = 1\nb = 2")).toContain('agent.toml, line 2: "b" is not a known key');
  expect(problem("aa = 1")).toBe(`agent.toml, line 1: "aa" is not a known key.`);
  expect(problem("")).toBe(`agent.toml: the file lacks "a".`);
  expect(problem("\n\na = 'x'")).toContain('agent.toml, line 3: "a" must be integer');
  expect(problem("a = 1\n[t]\nx = 3")).toContain('agent.toml, line 3: "t.x" must be string');
  expect(problem("a = 1\n[[list]]\nn = 1\n[[list]]\nn = 'x'")).toContain("agent.toml, line 5:");
  expect(problem("a = 1\nb = [")).toContain("agent.toml, line 2:");
});
