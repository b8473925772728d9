// What lies on a disk, and what it costs to overwrite it all the same: real executors, and the disk's hash before and after.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DeployStage, deployOf, openDeployStage, planOf } from "../support/deploy-stage.ts";
import { auditOf, policyOf, resultOf, runToEnd, sha256Of } from "../support/executor-host.ts";
import { layouts } from "../support/signature-layouts.ts";
import { putGpt, sparseDisk } from "../support/sparse-disk.ts";

const busy = { timeout: 180_000 } as const;
const mib = 1 << 20;
const linuxType = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const sizeBytes = 8 * mib;
let stage: DeployStage;
let disks = 0;

beforeAll(async () => {
  stage = await openDeployStage({ sizeBytes: 2 * mib });
}, busy.timeout);
afterAll(() => stage?.[Symbol.asyncDispose]());

/** A file that stands for a disk with this superblock on it, and a policy that allows it. */
async function makeDisk(kind: string, allowOverrides: readonly string[] = []) {
  const disk = await stage.host.makeDisk(`disk-${disks++}`, sizeBytes);
  const content = sparseDisk(sizeBytes);
  layouts[kind]!.put(content, 0, sizeBytes);
  await content.save(disk.path);
  await stage.host.writePolicy(policyOf([disk], `allowOverrides = ${JSON.stringify(allowOverrides)}`));
  return disk;
}

/** The same with a GUID partition table, and zeroes over parts of it. */
async function makePartitioned(overwrite: readonly [offset: number, bytes: number][]) {
  const made = await makeDisk("ext4", ["table"]);
  const disk = putGpt(sparseDisk(sizeBytes), 512, [{ type: linuxType, startBytes: mib, sizeBytes: 4 * mib }]);
  for (const [offset, bytes] of overwrite) disk.put(offset, new Uint8Array(bytes));
  await disk.save(made.path);
  return made;
}

async function attempt(name: string, more: object = {}) {
  const { host, image, offer } = stage;
  const plan = await planOf(stage, deployOf(image, { name }, "plan", more));
  const command = deployOf(image, { name }, "apply", { ...more, fingerprint: plan.fingerprint });
  const { last } = await runToEnd(host, command, offer);
  return { plan, result: resultOf(last), command };
}

describe("a disk that belongs to something larger", busy, () => {
  test.each([
    ["LVM2_member", "disk.member", "member"],
    ["VMFS_volume_member", "disk.shared-storage", "shared-storage"],
    ["gfs2", "disk.shared-storage", "shared-storage"],
  ])("%s is refused by plan and by apply, untouched: %s", async (kind, code, guard) => {
    const { name, path } = await makeDisk(kind);
    const before = await sha256Of(path);
    const { plan, result } = await attempt(name);
    expect(plan.allowed).toBe(false);
    expect(plan.guards.filter(({ ok }) => !ok)).toMatchObject([{ guard, code }]);
    expect(plan.guards.find((each) => each.guard === guard)!.finding).toContain(kind);
    expect(result).toMatchObject({ outcome: "failed", error: { code } });
    expect(await sha256Of(path)).toBe(before);
  });

  test("an override that the policy does not allow is refused, untouched", async () => {
    const { name, path } = await makeDisk("LVM2_member", ["remote"]);
    const before = await sha256Of(path);
    const { result } = await attempt(name, { overrides: ["member"] });
    expect(result).toMatchObject({ outcome: "failed", error: { code: "policy.override-denied" } });
    expect(await sha256Of(path)).toBe(before);
  });

  test("an override that the policy allows lets it pass, and is audited", async () => {
    const { name } = await makeDisk("LVM2_member", ["member", "remote", "shared-storage"]);
    const { plan, result, command } = await attempt(name, { overrides: ["member"] });
    expect(plan.guards.find(({ guard }) => guard === "member")).toMatchObject({ ok: true });
    expect(result).toMatchObject({ outcome: "succeeded", output: { root: stage.image.reference.root } });
    const overridden = auditOf(stage.host).find(
      (entry) => entry.command === command.id && entry.event === "override",
    );
    expect(overridden).toMatchObject({ detail: { guards: ["member"] } });
  });
});

describe("a partition table that nobody can read", busy, () => {
  const lastSector = sizeBytes - 512;

  test.each<[string, [number, number][]]>([
    [
      "both headers scribbled over behind their magic",
      [
        [512 + 16, 76],
        [lastSector + 16, 76],
      ],
    ],
    [
      "both copies gone but for the protective first sector",
      [
        [512, 33 * 512],
        [lastSector - 32 * 512, 33 * 512],
      ],
    ],
    [
      "the entries of both",
      [
        [1024, 512],
        [lastSector - 32 * 512, 512],
      ],
    ],
  ])("is refused until overridden: %s", async (_, overwrite) => {
    const { name, path } = await makePartitioned(overwrite);
    const before = await sha256Of(path);
    const { plan, result } = await attempt(name);
    expect(plan.guards.filter(({ ok }) => !ok)).toMatchObject([
      { guard: "table", code: "disk.table-damaged" },
    ]);
    expect(result).toMatchObject({ outcome: "failed", error: { code: "disk.table-damaged" } });
    expect(await sha256Of(path)).toBe(before);
    const overridden = await attempt(name, { overrides: ["table"] });
    expect(overridden.result).toMatchObject({ outcome: "succeeded" });
  });

  test("one whole copy is enough; and so are a wiped disk and one with a plain file system", async () => {
    for (const overwrite of [[[512 + 16, 76]], [[lastSector + 16, 76]], [[0, mib]]] as [number, number][][]) {
      const { name } = await makePartitioned(overwrite);
      expect((await attempt(name)).result).toMatchObject({ outcome: "succeeded" });
    }
    const { name } = await makeDisk("ext4");
    expect((await attempt(name)).result).toMatchObject({ outcome: "succeeded" });
  });
});
