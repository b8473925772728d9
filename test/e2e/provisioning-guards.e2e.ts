// Guards as operators meet them: the real command line against real block devices, whose every byte is compared.
import { mkdirSync, renameSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { describe, expect } from "vitest";
import type { Code } from "../../protocol/codes.ts";
import type { Plan } from "../../protocol/plans.ts";
import {
  halves,
  linuxType,
  memberLayouts,
  putLayout,
  putPartition,
  putPartitions,
  run,
  sgdiskTypes,
  sharedLayouts,
  sharedTypes,
} from "../provisioning/guards-contents.ts";
import { makeDiskFile, scribble } from "../provisioning/guards-disks.ts";
import { deployWords, expectDeployed, expectRefused } from "../provisioning/guards-refusal.ts";
import { diskBytes, imageBytes, makeFileSystem, setGuardStage } from "../provisioning/guards-stage.ts";
import type { Failure } from "../support/command-line.ts";

const mib = 1 << 20;
const { guardTest, makeDisk, mount, hold, undo, newPath } = setGuardStage("guards", { stateOnDisk: true });

describe("what no guard stops is written", () => {
  guardTest("a loop device", async (host) => {
    const loop = await makeDisk();
    const planned = await host.operator.json<{ plan: Plan }>(0, ...deployWords(host, { loop }), "--plan");
    expect(planned.plan.findings.every(({ ok }) => ok)).toBe(true);
    await expectDeployed(host, { loop });
  });
  guardTest("a disk of the image's very size", async (host) => {
    await expectDeployed(host, { loop: await makeDisk({ sizeBytes: imageBytes }) });
  });
  guardTest("a disk of 4096-byte sectors with an image for them", async (host) => {
    await expectDeployed(host, { loop: await makeDisk({ sectorBytes: 4096 }), image: "small-4k" });
  });
  guardTest("a disk with a file system that nobody uses, and one with a Linux partition", async (host) => {
    await expectDeployed(host, { loop: await makeDisk({ put: putLayout("ext4") }) });
    await expectDeployed(host, { loop: await makeDisk({ put: putPartition(linuxType, "xfs") }) });
  });
});

describe("how the disk is, and what the policy says", () => {
  guardTest("an image for 512-byte sectors on a disk of 4096, and the other way round", async (host) => {
    const refusal = {
      code: "disk.sector-size",
      guards: ["sector-size"],
      says: "it would look blank",
    } as const;
    await expectRefused(host, { loop: await makeDisk({ sectorBytes: 4096 }) }, refusal);
    await expectRefused(host, { loop: await makeDisk(), image: "small-4k" }, refusal);
  });
  guardTest("read-only", async (host) => {
    const loop = await makeDisk({ readOnly: true });
    await expectRefused(host, { loop }, { code: "disk.read-only", guards: ["read-only"], says: "read-only" });
  });
  guardTest("too small by one sector", async (host) => {
    const loop = await makeDisk({ sizeBytes: imageBytes - 512 });
    const says = `needs ${imageBytes} bytes; the disk has ${imageBytes - 512}`;
    await expectRefused(host, { loop }, { code: "disk.too-small", guards: ["size"], says });
  });
  guardTest("not in the policy", async (host) => {
    const loop = await makeDisk({ rules: { allow: ["loop:/another.img", "serial:S3Z9"] } });
    const refusal = { code: "disk.not-allowed", guards: ["allowed"], says: "does not list loop:" } as const;
    await expectRefused(host, { loop }, refusal);
  });
  guardTest("protected by the policy that also allows it", async (host) => {
    const loop = await makeDisk();
    host.writePolicy({ allow: [loop.entry], protect: [loop.entry] });
    const refusal = {
      code: "disk.protected",
      guards: ["protected", "allowed"],
      says: "protects it",
    } as const;
    await expectRefused(host, { loop }, refusal);
  });
  guardTest("no policy at all", async (host) => {
    const loop = await makeDisk();
    const policy = join(host.directory, "host/etc/policy.toml");
    renameSync(policy, `${policy}.away`);
    undo(() => renameSync(`${policy}.away`, policy));
    const guards = ["allowed", "signatures"];
    await expectRefused(host, { loop }, { code: "policy.missing", guards, says: "There is no " });
  });
});

describe("who uses it", () => {
  const refusalOf = (code: Code, guard: string, says: string) => ({ code, guards: [guard], says });

  guardTest("held with O_EXCL by another program", async (host) => {
    const loop = await makeDisk();
    hold(loop.path);
    const says = "The kernel refuses exclusive use of it";
    await expectRefused(host, { loop }, refusalOf("disk.held", "held", says));
  });
  guardTest("a loop device is stacked on it", async (host) => {
    const loop = await makeDisk();
    const upper = host.attach(loop.path);
    undo(() => upper.detach());
    const says = `${basename(upper.path)} is stacked on it`;
    await expectRefused(host, { loop }, refusalOf("disk.held", "held", says));
    // And it is no way around what guards the one below.
    host.writePolicy({ allow: [loop.entry, upper.entry] });
    const refused = await host.operator.json<Failure>(3, ...deployWords(host, { loop: upper }), "--yes");
    expect(refused.error.code).toBe("disk.not-found");
    const { candidates } = refused.error.details as { candidates: { path: string; excluded: string }[] };
    expect(candidates.find(({ path }) => path === upper.path)?.excluded).toContain(`over ${loop.path}`);
  });
  guardTest("mounted", async (host) => {
    const loop = await makeDisk();
    makeFileSystem(loop.path);
    const at = mount(loop.path);
    await expectRefused(host, { loop }, refusalOf("disk.mounted", "mounted", `mounted at ${at}`));
  });
  guardTest("mounted read-only", async (host) => {
    const loop = await makeDisk();
    makeFileSystem(loop.path);
    const at = mount(loop.path, "-o", "ro");
    await expectRefused(host, { loop }, refusalOf("disk.mounted", "mounted", `mounted at ${at}`));
  });
  guardTest(
    "a partition of it is mounted",
    async (host) => {
      const loop = await makeDisk({ put: putPartition(linuxType) });
      run("partx", "--add", loop.path);
      undo(() => void run("partx", "--delete", loop.path));
      makeFileSystem(`${loop.path}p1`);
      const at = mount(`${loop.path}p1`);
      await expectRefused(host, { loop }, refusalOf("disk.mounted", "mounted", `mounted at ${at}`));
    },
    ["partx"],
  );
  guardTest("mounted where the host's executor does not see it, as in a container", async (host) => {
    const loop = await makeDisk();
    makeFileSystem(loop.path);
    const at = newPath("elsewhere");
    mkdirSync(at);
    run("mount", loop.path, at);
    undo(() => void run("umount", at));
    run("sync", "--file-system", at);
    await expectRefused(host, { loop }, refusalOf("disk.held", "held", "does not see it"));
  });
  guardTest(
    "in use as swap",
    async (host) => {
      const loop = await makeDisk();
      // As small as swap can be: the machine uses it.
      const without = { from: 4096, to: 10 * 4096 };
      run("mkswap", loop.path, `${without.to / 1024}`);
      run("swapon", loop.path);
      undo(() => void run("swapoff", loop.path));
      await expectRefused(host, { loop, without }, refusalOf("disk.swap", "swap", "in use as swap"));
    },
    ["mkswap", "swapon"],
  );
  guardTest("it carries the executor's state, itself or with a disk between", async (host) => {
    const [outer, inner] = host.stateDisks!;
    host.writePolicy({ allow: [outer.entry, inner.entry] });
    // Its bytes change with every step of the journal: what was written to it by others is what counts.
    for (const loop of [outer, inner]) {
      const refused = await host.operator.json<{ error: { code: string; message: string } }>(
        3,
        ...deployWords(host, { loop }),
        "--yes",
      );
      expect(refused.error.code).toBe("disk.own-root");
      expect(refused.error.message).toContain("It carries /var/lib/bedplate/executor of this host");
      run("blockdev", "--flushbufs", loop.path);
    }
    const [journal] = (await readdir(join(host.directory, "host/var/executor"))).filter((name) =>
      name.endsWith(".db"),
    );
    expect(journal, "the file systems are whole").toBeDefined();
  });
});

describe("what lies on it", () => {
  const kindOf = (layout: string) => layout.split(" ")[0]!;
  const cases = [
    ...memberLayouts.map((layout) => ({ layout, code: "disk.member", guard: "member" }) as const),
    ...sharedLayouts.map(
      (layout) => ({ layout, code: "disk.shared-storage", guard: "shared-storage" }) as const,
    ),
  ];
  for (const { layout, code, guard } of cases)
    guardTest(`${layout}: ${code}`, async (host) => {
      const loop = await makeDisk({ put: putLayout(layout) });
      await expectRefused(host, { loop }, { code, guards: [guard], says: kindOf(layout) });
    });
  for (const [layout, code, guard] of [
    ["LVM2_member", "disk.member", "member"],
    ["linux_raid_member 1.0", "disk.member", "member"],
    ["ceph_bluestore", "disk.shared-storage", "shared-storage"],
    ["gfs2", "disk.shared-storage", "shared-storage"],
  ] as const)
    guardTest(`${layout} in a plain partition: ${code}`, async (host) => {
      const loop = await makeDisk({ put: putPartition(linuxType, layout) });
      await expectRefused(host, { loop }, { code, guards: [guard], says: kindOf(layout) });
    });
  for (const [how, write] of [
    ["in upper case by sgdisk", sgdiskTypes((type) => type.toUpperCase())],
    ["in lower case by sgdisk", sgdiskTypes((type) => type.toLowerCase())],
    [
      "as bytes",
      async (path: string, types: readonly string[]) => {
        await makeDiskFile(path, diskBytes, putPartitions(types));
      },
    ],
  ] as const)
    guardTest(
      `every partition type of storage that hosts share, ${how}`,
      async (host) => {
        // At most eight are named in a finding.
        for (const names of halves(Object.keys(sharedTypes))) {
          const loop = await makeDisk();
          await write(
            loop.backing,
            names.map((name) => sharedTypes[name]!),
          );
          run("blockdev", "--flushbufs", loop.path);
          const says = names.map((name, at) => `partition ${at + 1} is of type ${name}`).join(", ");
          const refusal = { code: "disk.shared-storage", guards: ["shared-storage"], says } as const;
          await expectRefused(host, { loop }, refusal);
        }
      },
      ["sgdisk"],
    );
  guardTest("a table whose first copy is lost: the last one's types count", async (host) => {
    const loop = await makeDisk({ put: putPartition(sharedTypes["Ceph OSD"]!) });
    await scribble(loop, 512, new Uint8Array(512));
    const says = "partition 1 is of type Ceph OSD";
    await expectRefused(host, { loop }, { code: "disk.shared-storage", guards: ["shared-storage"], says });
  });
  guardTest(
    "a table of which both copies are lost: what lay in its partitions is not known",
    async (host) => {
      const loop = await makeDisk({ put: putPartition(linuxType, "LVM2_member") });
      await scribble(loop, 512, new Uint8Array(512));
      await scribble(loop, diskBytes - 512, new Uint8Array(512));
      const says = "neither copy of that is there";
      await expectRefused(host, { loop }, { code: "disk.table-damaged", guards: ["table"], says });
    },
  );
  guardTest(
    "a physical volume, and one of a volume group, as LVM writes them",
    async (host) => {
      const bare = await makeDisk();
      const used = await makeDisk();
      host.writePolicy({ allow: [bare.entry, used.entry] });
      run("pvcreate", "-qq", "-y", bare.path, used.path);
      // Without the copies of its description that it keeps in /etc/lvm.
      run("vgcreate", "-qq", "--autobackup", "n", `vg-guards-${process.pid}`, used.path);
      const refusal = { code: "disk.member", guards: ["member"] } as const;
      await expectRefused(host, { loop: bare }, { ...refusal, says: "LVM2_member at byte 512" });
      const says = `LVM2_member "vg-guards-${process.pid}"`;
      await expectRefused(host, { loop: used }, { ...refusal, says });
    },
    ["pvcreate", "vgcreate"],
  );
  guardTest(
    "GFS2 as mkfs.gfs2 writes it",
    async (host) => {
      const loop = await makeDisk({ sizeBytes: 64 * mib });
      run("mkfs.gfs2", "-q", "-O", "-p", "lock_dlm", "-t", "alpha:web", "-j", "1", "-J", "8", loop.path);
      const says = 'gfs2 "alpha:web"';
      await expectRefused(host, { loop }, { code: "disk.shared-storage", guards: ["shared-storage"], says });
    },
    ["mkfs.gfs2"],
  );
});
