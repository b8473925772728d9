// The guards of destructive commands, one by one, over facts.
import { describe, expect, test } from "vitest";
import { evaluateGuards, type GuardFacts, nameForPolicy, requireGuards } from "../../agent/devices/guards.ts";
import type { PartitionTable, Signature } from "../../protocol/disk-content.ts";
import { type Disk, GuardFinding, overridableGuards } from "../../protocol/disks.ts";
import type { BedplateError } from "../../protocol/errors.ts";
import { checker } from "../../protocol/schema.ts";

const checkFinding = checker(GuardFinding, "message.invalid", "finding");
const disk: Disk = {
  path: "/dev/sdx",
  type: "ssd",
  sizeBytes: 100 << 20,
  logicalSectorBytes: 512,
  physicalSectorBytes: 4096,
  serial: "S3Z9",
  wwn: null,
  model: null,
  vendor: null,
  firmware: null,
  hctl: null,
  byId: [],
  transport: "sata",
  readOnly: false,
  removable: false,
  diskSequence: 1,
  backing: null,
  fileDisk: null,
  partitions: [],
  mounts: [],
  swap: false,
  holders: [],
  allowed: true,
};
const good: GuardFacts = {
  disk,
  carries: [],
  policy: "present",
  policyPath: "/etc/p",
  protectedByPolicy: false,
  heldByAnother: false,
  writers: [],
  content: { table: null, partitions: [], signatures: [], errors: [] },
  overrides: [],
  allowOverrides: [],
  image: { sizeBytes: 1000, sectorBytes: 512 },
};
const signature = (changes: Partial<Signature>): Signature => ({
  ...{ kind: "ext4", use: "filesystem", shared: false, offset: 0, uuid: null, label: null, version: null },
  ...changes,
});
const withSignature = (changes: Partial<Signature>): GuardFacts => ({
  ...good,
  content: { ...good.content!, signatures: [signature(changes)] },
});
const inPartition = (type: string, changes: Partial<Signature>): GuardFacts => {
  const partition = { number: 2, startBytes: 1 << 20, sizeBytes: 1 << 20, type, typeName: "Ceph OSD" };
  const signatures = [signature(changes)];
  const content = { ...good.content!, partitions: [{ ...partition, uuid: null, name: null, signatures }] };
  return { ...good, content };
};
type Copy = PartitionTable["primary"];
const withTable = (primary: Copy, backup: Copy): GuardFacts => {
  const table = { type: "gpt", sectorBytes: 512, uuid: null, primary, backup } as const;
  return { ...good, content: { ...good.content!, table } };
};
const cephType = "4FBD7E29-9D25-41B8-AFD0-062C0CEFF05D";
const withDisk = (changes: Partial<Disk>): GuardFacts => ({ ...good, disk: { ...disk, ...changes } });

test("nothing fails on a disk that may be written", () => {
  const findings = evaluateGuards(good);
  expect(findings.every(({ ok }) => ok)).toBe(true);
  expect(() => requireGuards(findings, disk)).not.toThrow();
});

describe("each guard has its own code, and the others still pass", () => {
  test.each<[string, string, GuardFacts]>([
    ["protected", "disk.protected", { ...good, protectedByPolicy: true }],
    ["allowed", "disk.not-allowed", withDisk({ allowed: false })],
    ["allowed", "policy.missing", { ...good, policy: "missing" }],
    ["own-root", "disk.own-root", { ...good, carries: ["/"] }],
    ["mounted", "disk.mounted", withDisk({ mounts: ["/srv"] })],
    ["swap", "disk.swap", withDisk({ swap: true })],
    ["held", "disk.held", withDisk({ holders: ["dm-0"] })],
    ["held", "disk.held", { ...good, heldByAnother: true }],
    ["held", "disk.held", { ...good, writers: ["qemu-system-x86 (4711)"] }],
    ["mounted", "disk.mounted", { ...withDisk({ mounts: ["/srv"] }), heldByAnother: true }],
    ["remote", "disk.remote", withDisk({ transport: "iscsi" })],
    ["remote", "disk.remote", withDisk({ transport: "nvme-tcp" })],
    ["member", "disk.member", withSignature({ kind: "LVM2_member", use: "member" })],
    ["member", "disk.member", inPartition("0x83", { kind: "linux_raid_member", use: "member" })],
    ["shared-storage", "disk.shared-storage", withSignature({ kind: "gfs2", shared: true })],
    ["shared-storage", "disk.shared-storage", inPartition(cephType, {})],
    ["shared-storage", "disk.shared-storage", inPartition(cephType.toLowerCase(), {})],
    ["table", "disk.table-damaged", withTable("bad", "bad")],
    ["table", "disk.table-damaged", withTable("bad", "missing")],
    ["table", "disk.table-damaged", withTable("missing", "bad")],
    ["table", "disk.table-damaged", inPartition("0xee", {})],
    ["read-only", "disk.read-only", withDisk({ readOnly: true })],
    ["size", "disk.too-small", { ...good, image: { sizeBytes: (100 << 20) + 1, sectorBytes: 512 } }],
    [
      "size",
      "disk.too-small",
      {
        ...withDisk({ logicalSectorBytes: 4096, sizeBytes: 4096 }),
        image: { sizeBytes: 4097, sectorBytes: null },
      },
    ],
    ["sector-size", "disk.sector-size", withDisk({ logicalSectorBytes: 4096 })],
  ])("%s: %s", (guard, code, facts) => {
    const failed = evaluateGuards(facts).filter(({ ok }) => !ok);
    expect(failed).toMatchObject([{ guard, ok: false, code }]);
  });
});

test("all are evaluated; the refusal has the first one's code and tells all", () => {
  const findings = evaluateGuards(withDisk({ allowed: false, mounts: ["/srv"], swap: true }));
  expect(findings).toHaveLength(13);
  let error: BedplateError | undefined;
  try {
    requireGuards(findings, disk);
  } catch (thrown) {
    error = thrown as BedplateError;
  }
  expect(error?.code).toBe("disk.not-allowed");
  expect(error?.message).toContain("serial:S3Z9");
  expect(error?.message).toContain("/dev/sdx (serial S3Z9) is not touched.");
  expect(error?.message).toContain("/srv");
  expect(error?.details?.guards).toEqual(findings);
});

test("what made no sense is told where nothing was found", () => {
  const errors = ["the checksum of the primary header is wrong"];
  const found = evaluateGuards({ ...good, content: { ...good.content!, errors } });
  for (const guard of ["member", "shared-storage"])
    expect(found.find((each) => each.guard === guard)).toMatchObject({
      ok: true,
      finding: expect.stringContaining(
        "as far as it can be read (the checksum of the primary header is wrong)",
      ),
    });
});

test("a GUID partition table of which one copy is whole passes", () => {
  for (const facts of [withTable("good", "bad"), withTable("bad", "good"), withTable("good", "missing")])
    expect(evaluateGuards(facts).every(({ ok }) => ok)).toBe(true);
});

test("where signatures lie and nobody could read, nothing is ruled out; who may override it says so", () => {
  const unread = ["bytes 1048576 to 1052672: EIO"];
  const content = { ...good.content!, errors: unread, unread };
  const found = evaluateGuards({ ...good, content }).filter(({ ok }) => !ok);
  expect(found).toMatchObject([
    { guard: "member", code: "disk.unreadable", finding: expect.stringContaining("1048576 to 1052672: EIO") },
    { guard: "shared-storage", code: "disk.unreadable" },
  ]);
  const both = ["member", "shared-storage"] as const;
  const overridden = evaluateGuards({ ...good, content, overrides: both, allowOverrides: both });
  expect(overridden.every(({ ok }) => ok)).toBe(true);
});

test("however long mount points are, a finding stays a line that travels", () => {
  const mounts = Array.from({ length: 8 }, (_, at) => `/${at}`.padEnd(1024, "x"));
  const findings = evaluateGuards({ ...withDisk({ mounts }), overrides: ["member"] });
  expect(findings.every((finding) => checkFinding(finding) === finding)).toBe(true);
  expect(findings.find(({ guard }) => guard === "mounted")!.finding.length).toBeGreaterThan(3000);
});

test("a partition table for sectors of the same size, or none, passes", () => {
  const ok = (sectorBytes: 512 | 4096 | null, logicalSectorBytes: number) =>
    evaluateGuards({ ...withDisk({ logicalSectorBytes }), image: { sizeBytes: 4096, sectorBytes } }).every(
      ({ ok }) => ok,
    );
  expect([ok(512, 512), ok(4096, 4096), ok(null, 4096), ok(4096, 512)]).toEqual([true, true, true, false]);
});

test.each<[Partial<Disk>, string]>([
  [{}, "serial:S3Z9"],
  [{ serial: null, wwn: "0x5" }, "wwn:0x5"],
  [{ type: "loop", serial: null, backing: "/a" }, "loop:/a"],
  [{ type: "file", serial: null, backing: "/a", fileDisk: "one" }, "file:one"],
])("how the policy would name a disk", (changes, name) =>
  expect(nameForPolicy({ ...disk, ...changes })).toBe(name),
);

describe("an override", () => {
  const member = withSignature({ kind: "LVM2_member", use: "member", label: "vg0" });
  const failedOf = (facts: GuardFacts) => evaluateGuards(facts).filter(({ ok }) => !ok);

  test("counts where the policy lets it, and the finding stays", () => {
    const findings = evaluateGuards({ ...member, overrides: ["member"], allowOverrides: ["member"] });
    expect(findings.find(({ guard }) => guard === "member")).toEqual({
      guard: "member",
      ok: true,
      finding: 'overridden: It is a part of something larger: LVM2_member "vg0" at byte 0.',
    });
  });

  test("that the policy does not let is a refusal of its own", () => {
    expect(failedOf({ ...member, overrides: ["member"] })).toMatchObject([
      { guard: "member", code: "policy.override-denied" },
    ]);
  });

  test("of one guard is none of another, and what is only allowed is not overridden", () => {
    const both = { overrides: ["remote"], allowOverrides: ["remote", "member"] } as const;
    expect(failedOf({ ...member, ...both })).toMatchObject([{ code: "disk.member" }]);
  });

  test("is for what lies on a disk or how it is attached, never for what is in use", () => {
    const facts = { ...withDisk({ mounts: ["/srv"] }), overrides: ["mounted"], allowOverrides: ["mounted"] };
    expect(failedOf(facts as never)).toMatchObject([{ code: "disk.mounted" }]);
    expect(overridableGuards).not.toContain("mounted");
  });

  test("is not asked for once the operation itself has begun to write", () => {
    expect(failedOf({ ...member, content: null })).toEqual([]);
  });
});
