// Guards as operators meet them: the real command line against real block devices, whose every byte is compared.
import { createHash } from "node:crypto";
import { closeSync, constants, mkdirSync, openSync, renameSync, symlinkSync } from "node:fs";
import { readdir, truncate } from "node:fs/promises";
import { basename, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { CommandView } from "../../protocol/api.ts";
import type { Code } from "../../protocol/codes.ts";
import type { Plan } from "../../protocol/plans.ts";
import { builtProgram, hasProgram, node } from "../contract/programs.ts";
import {
  halves,
  linuxType,
  memberLayouts,
  partition,
  putLayout,
  putPartition,
  putPartitions,
  run,
  sgdiskTypes,
  sharedLayouts,
  sharedTypes,
} from "../provisioning/guards-contents.ts";
import { type Loop, type LoopOptions, makeDiskFile, scribble } from "../provisioning/guards-disks.ts";
import { type GuardsHost, openGuardsHost, type PolicyRules } from "../provisioning/guards-host.ts";
import {
  deployWords,
  expectDeployed,
  expectRefused,
  expectRefusedAfter,
  textOf,
} from "../provisioning/guards-refusal.ts";
import { putGpt, type SparseDisk } from "../support/sparse-disk.ts";

const mib = 1 << 20;
const imageBytes = 8 * mib;
const diskBytes = 16 * mib;
const allOverrides = ["remote", "member", "shared-storage"];

let opened: GuardsHost | string = "not begun";
let host: GuardsHost;
/** Undone after each test, the last first. */
const undo: (() => void)[] = [];

beforeAll(async () => {
  opened = await openGuardsHost("guards", { stateOnDisk: true });
  if (typeof opened === "string") return;
  host = opened;
  for (const [name, sectorBytes] of [
    ["small", 512],
    ["small-4k", 4096],
  ] as const) {
    const file = await makeDiskFile(join(host.directory, `${name}.raw`), imageBytes, (disk) =>
      putGpt(disk, sectorBytes, [{ type: linuxType, ...partition }]),
    );
    await host.operator.json(0, "image", "add", file);
  }
});
afterEach(() => {
  for (const each of undo.splice(0).reverse()) each();
});
afterAll(async () => {
  if (typeof opened === "object") await opened[Symbol.asyncDispose]();
});

/** A test that says why it cannot be done here, if so. */
function guardTest(name: string, body: () => Promise<void>, needs: readonly string[] = []): void {
  test(name, async ({ skip }) => {
    if (typeof opened === "string") return skip(opened);
    const missing = needs.filter((tool) => !hasProgram(tool));
    if (missing.length > 0) return skip(`${missing.join(", ")} are not installed`);
    await body();
  });
}

let made = 0;

interface DiskOptions extends LoopOptions {
  readonly sizeBytes?: number;
  readonly put?: (disk: SparseDisk) => void;
  /** Of the policy, which allows this disk. */
  readonly rules?: PolicyRules;
}

async function makeDisk({ sizeBytes = diskBytes, put, rules = {}, ...options }: DiskOptions = {}) {
  const file = await makeDiskFile(join(host.directory, `disk-${made++}.img`), sizeBytes, put);
  const loop = host.attach(file, options);
  undo.push(() => loop.detach());
  host.writePolicy({ allow: [loop.entry], ...rules });
  return loop;
}

/** On the host, until the end of the test. */
function mount(device: string, ...options: string[]): string {
  const at = join(host.directory, `mounted-${made++}`);
  mkdirSync(at);
  host.inside("mount", ...options, device, at);
  undo.push(() => void host.inside("umount", at));
  host.inside("sync", "--file-system", at);
  return at;
}

/** Opened as programs open what they want for themselves, until the end of the test. */
function hold(path: string): void {
  const held = openSync(path, constants.O_RDWR | constants.O_EXCL);
  undo.push(() => closeSync(held));
}

describe("what no guard stops is written", () => {
  guardTest("a loop device", async () => {
    const loop = await makeDisk();
    const planned = await host.operator.json<{ plan: Plan }>(0, ...deployWords(host, { loop }), "--plan");
    expect(planned.plan.findings.every(({ ok }) => ok)).toBe(true);
    await expectDeployed(host, { loop });
  });
  guardTest("a disk of the image's very size", async () => {
    await expectDeployed(host, { loop: await makeDisk({ sizeBytes: imageBytes }) });
  });
  guardTest("a disk of 4096-byte sectors with an image for them", async () => {
    await expectDeployed(host, { loop: await makeDisk({ sectorBytes: 4096 }), image: "small-4k" });
  });
  guardTest("a disk with a file system that nobody uses, and one with a Linux partition", async () => {
    await expectDeployed(host, { loop: await makeDisk({ put: putLayout("ext4") }) });
    await expectDeployed(host, { loop: await makeDisk({ put: putPartition(linuxType, "xfs") }) });
  });
});

describe("how the disk is, and what the policy says", () => {
  guardTest("an image for 512-byte sectors on a disk of 4096, and the other way round", async () => {
    const refusal = {
      code: "disk.sector-size",
      guards: ["sector-size"],
      says: "it would look blank",
    } as const;
    await expectRefused(host, { loop: await makeDisk({ sectorBytes: 4096 }) }, refusal);
    await expectRefused(host, { loop: await makeDisk(), image: "small-4k" }, refusal);
  });
  guardTest("read-only", async () => {
    const loop = await makeDisk({ readOnly: true });
    await expectRefused(host, { loop }, { code: "disk.read-only", guards: ["read-only"], says: "read-only" });
  });
  guardTest("too small by one sector", async () => {
    const loop = await makeDisk({ sizeBytes: imageBytes - 512 });
    const says = `needs ${imageBytes} bytes; the disk has ${imageBytes - 512}`;
    await expectRefused(host, { loop }, { code: "disk.too-small", guards: ["size"], says });
  });
  guardTest("not in the policy", async () => {
    const loop = await makeDisk({ rules: { allow: ["loop:/another.img", "serial:S3Z9"] } });
    const refusal = { code: "disk.not-allowed", guards: ["allowed"], says: "does not list loop:" } as const;
    await expectRefused(host, { loop }, refusal);
  });
  guardTest("protected by the policy that also allows it", async () => {
    const loop = await makeDisk();
    host.writePolicy({ allow: [loop.entry], protect: [loop.entry] });
    const refusal = {
      code: "disk.protected",
      guards: ["protected", "allowed"],
      says: "protects it",
    } as const;
    await expectRefused(host, { loop }, refusal);
  });
  guardTest("no policy at all", async () => {
    const loop = await makeDisk();
    const policy = join(host.directory, "host/etc/policy.toml");
    renameSync(policy, `${policy}.away`);
    undo.push(() => renameSync(`${policy}.away`, policy));
    const guards = ["allowed", "signatures"];
    await expectRefused(host, { loop }, { code: "policy.missing", guards, says: "There is no " });
  });
});

// Without a journal: what is on the device is what is in its file, once synced.
const mkfs = (path: string) => void run("mke2fs", "-q", "-t", "ext2", path);

describe("who uses it", () => {
  const refusalOf = (code: Code, guard: string, says: string) => ({ code, guards: [guard], says });

  guardTest("held with O_EXCL by another program", async () => {
    const loop = await makeDisk();
    hold(loop.path);
    const says = "The kernel refuses exclusive use of it";
    await expectRefused(host, { loop }, refusalOf("disk.held", "held", says));
  });
  guardTest("a loop device is stacked on it", async () => {
    const loop = await makeDisk();
    const upper = host.attach(loop.path);
    undo.push(() => upper.detach());
    const says = `${basename(upper.path)} is stacked on it`;
    await expectRefused(host, { loop }, refusalOf("disk.held", "held", says));
  });
  guardTest("mounted", async () => {
    const loop = await makeDisk();
    mkfs(loop.path);
    const at = mount(loop.path);
    await expectRefused(host, { loop }, refusalOf("disk.mounted", "mounted", `mounted at ${at}`));
  });
  guardTest("mounted read-only", async () => {
    const loop = await makeDisk();
    mkfs(loop.path);
    const at = mount(loop.path, "-o", "ro");
    await expectRefused(host, { loop }, refusalOf("disk.mounted", "mounted", `mounted at ${at}`));
  });
  guardTest("a partition of it is mounted", async () => {
    const loop = await makeDisk({ put: putPartition(linuxType) });
    run("partx", "--add", loop.path);
    undo.push(() => void run("partx", "--delete", loop.path));
    mkfs(`${loop.path}p1`);
    const at = mount(`${loop.path}p1`);
    await expectRefused(host, { loop }, refusalOf("disk.mounted", "mounted", `mounted at ${at}`));
  }, ["partx"]);
  guardTest("mounted where the host's executor does not see it, as in a container", async () => {
    const loop = await makeDisk();
    mkfs(loop.path);
    const at = join(host.directory, `elsewhere-${made++}`);
    mkdirSync(at);
    run("mount", loop.path, at);
    undo.push(() => void run("umount", at));
    run("sync", "--file-system", at);
    await expectRefused(host, { loop }, refusalOf("disk.held", "held", "does not see it"));
  });
  guardTest("in use as swap", async () => {
    const loop = await makeDisk();
    run("mkswap", loop.path);
    run("swapon", loop.path);
    undo.push(() => void run("swapoff", loop.path));
    await expectRefused(host, { loop }, refusalOf("disk.swap", "swap", "in use as swap"));
  }, ["mkswap", "swapon"]);
  guardTest("it carries the executor's state, itself or with a disk between", async () => {
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
    guardTest(`${layout}: ${code}`, async () => {
      const loop = await makeDisk({ put: putLayout(layout) });
      await expectRefused(host, { loop }, { code, guards: [guard], says: kindOf(layout) });
    });
  for (const [layout, code, guard] of [
    ["LVM2_member", "disk.member", "member"],
    ["linux_raid_member 1.0", "disk.member", "member"],
    ["ceph_bluestore", "disk.shared-storage", "shared-storage"],
    ["gfs2", "disk.shared-storage", "shared-storage"],
  ] as const)
    guardTest(`${layout} in a plain partition: ${code}`, async () => {
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
    guardTest(`every partition type of storage that hosts share, ${how}`, async () => {
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
    }, ["sgdisk"]);
  guardTest("a table whose first copy is lost: the last one's types count", async () => {
    const loop = await makeDisk({ put: putPartition(sharedTypes["Ceph OSD"]!) });
    await scribble(loop, 512, new Uint8Array(512));
    const says = "partition 1 is of type Ceph OSD";
    await expectRefused(host, { loop }, { code: "disk.shared-storage", guards: ["shared-storage"], says });
  });
  guardTest("a physical volume, and one of a volume group, as LVM writes them", async () => {
    const bare = await makeDisk();
    const used = await makeDisk();
    host.writePolicy({ allow: [bare.entry, used.entry] });
    run("pvcreate", "-qq", "-y", bare.path, used.path);
    run("vgcreate", "-qq", `vg-guards-${process.pid}`, used.path);
    const refusal = { code: "disk.member", guards: ["member"] } as const;
    await expectRefused(host, { loop: bare }, { ...refusal, says: "LVM2_member at byte 512" });
    const says = `LVM2_member "vg-guards-${process.pid}"`;
    await expectRefused(host, { loop: used }, { ...refusal, says });
  }, ["pvcreate", "vgcreate"]);
  guardTest("GFS2 as mkfs.gfs2 writes it", async () => {
    const loop = await makeDisk({ sizeBytes: 64 * mib });
    run("mkfs.gfs2", "-q", "-O", "-p", "lock_dlm", "-t", "alpha:web", "-j", "1", "-J", "8", loop.path);
    const says = 'gfs2 "alpha:web"';
    await expectRefused(host, { loop }, { code: "disk.shared-storage", guards: ["shared-storage"], says });
  }, ["mkfs.gfs2"]);
});

describe("one disk and no other", () => {
  const select = async (selector: string, loop: Loop) => {
    const ended = await host.operator.run("--json", ...deployWords(host, { loop, selector }), "--yes");
    const { error } = JSON.parse(ended.stdout) as {
      error: { code: string; message: string; details: Record<string, readonly Record<string, unknown>[]> };
    };
    return { ...error, exitCode: ended.code };
  };

  guardTest(
    "two disks with one serial: both are named, none is touched; what tells them apart selects",
    async () => {
      const [one, two] = [await makeDisk(), await makeDisk({ sizeBytes: diskBytes + mib })];
      host.writePolicy({ allow: [one.entry, two.entry] });
      // Loop devices have no serial: the host's udev says that these two have.
      for (const loop of [one, two]) host.writeUdev(loop, { ID_SERIAL_SHORT: "TWIN0001" });
      undo.push(() => [one, two].forEach((loop) => void host.writeUdev(loop, {})));
      const before = [one.hash(), two.hash()];
      const refused = await select("serial=TWIN0001", one);
      expect(refused).toMatchObject({ code: "disk.ambiguous", exitCode: 3 });
      for (const { path } of [one, two]) expect(refused.message).toContain(path);
      expect(refused.details.matching).toHaveLength(2);
      expect(refused.details.candidates!.length).toBeGreaterThan(2);
      expect([one.hash(), two.hash()]).toEqual(before);

      await expectDeployed(host, { loop: two, selector: `serial=TWIN0001,sizeBytes=${two.sizeBytes}` });
      expect(one.hash()).toBe(before[0]);
      // Its serial is what is named then.
      host.writePolicy({ allow: [two.entry] });
      const refusal = { code: "disk.not-allowed", guards: ["allowed"], says: "does not list" } as const;
      await expectRefused(
        host,
        { loop: one, selector: `serial=TWIN0001,sizeBytes=${one.sizeBytes}` },
        refusal,
      );
    },
  );
  guardTest("no disk matches: the candidates say why not", async () => {
    const loop = await makeDisk();
    const before = loop.hash();
    for (const selector of ["serial=NONE", `${loop.selector},sizeBytes=4096`, `${loop.selector},type=nvme`]) {
      const refused = await select(selector, loop);
      expect(refused).toMatchObject({ code: "disk.not-found", exitCode: 3 });
      const candidate = refused.details.candidates!.find(({ path }) => path === loop.path);
      expect(candidate?.excluded).toMatch(/it has no serial|its size is 16777216|its type is loop/);
    }
    expect(loop.hash()).toBe(before);
  });
});

describe("between the plan and its signature", () => {
  const signed = { signed: true } as const;
  const happens = (
    name: string,
    code: Code,
    happening: (loop: Loop) => void | Promise<void>,
    {
      says = /./,
      disk = {},
      prepare = () => {},
    }: {
      says?: RegExp;
      disk?: DiskOptions;
      prepare?: (loop: Loop) => void;
    } = {},
  ) =>
    guardTest(`${name}: ${code}`, async () => {
      const loop = await makeDisk({ ...disk, rules: { ...disk.rules, ...signed } });
      prepare(loop);
      const overrides = disk.rules?.overrides ?? [];
      const view = await expectRefusedAfter(host, { loop, overrides }, () => happening(loop));
      expect(view.result?.error?.code, JSON.stringify(view.result)).toBe(code);
      expect(view.result!.error!.message).toMatch(says);
    });

  guardTest("nothing happens: it is written", async () => {
    const loop = await makeDisk({ rules: signed });
    const before = loop.hash();
    const words = [...deployWords(host, { loop }), "--yes"];
    const { command } = await host.operator.json<{ command: CommandView }>(9, ...words);
    expect(loop.hash()).toBe(before);
    await host.operator.json(0, "command", "sign", command.id, "--key", host.key, "--yes");
    const shown = await host.operator.run("command", "show", command.id, "--follow");
    expect(shown.code, textOf(shown)).toBe(0);
    expect(loop.hash()).not.toBe(before);
  });
  happens(
    "it is detached and attached again",
    "plan.changed",
    (loop) => {
      run("losetup", "--detach", loop.path);
      run("losetup", loop.path, loop.backing);
    },
    { says: /diskSequence was \d+ and is \d+/ },
  );
  happens("its first MiB is written to", "plan.changed", (loop) => scribble(loop, 4096, "x"), {
    says: /edges was/,
  });
  happens("its last byte is written to", "plan.changed", (loop) => scribble(loop, diskBytes - 1, "x"), {
    says: /edges was/,
  });
  happens(
    "it grows",
    "plan.changed",
    async (loop) => {
      await truncate(loop.backing, diskBytes + mib);
      run("losetup", "--set-capacity", loop.path);
    },
    { says: /sizeBytes was 16777216 and is 17825792/ },
  );
  happens("somebody mounts it", "disk.mounted", (loop) => void mount(loop.path, "-o", "ro"), {
    prepare: (loop) => mkfs(loop.path),
  });
  happens("somebody holds it", "disk.held", (loop) => hold(loop.path));
  happens("it is made read-only", "disk.read-only", (loop) => {
    run("blockdev", "--setro", loop.path);
    undo.push(() => void run("blockdev", "--setrw", loop.path));
  });
  happens("VMFS is made on it, past its first MiB", "disk.shared-storage", (loop) =>
    scribble(loop, mib, "\x0d\xd0\x01\xc0"),
  );
  happens("the policy no longer allows it", "disk.not-allowed", () =>
    host.writePolicy({ allow: [], ...signed }),
  );
  happens(
    "its volume group, which may be overridden, is made anew",
    "plan.changed",
    (loop) => scribble(loop, 512 + 32, "another-volume"),
    { disk: { put: putLayout("LVM2_member"), rules: { overrides: ["member"] } } },
  );
  happens(
    "the one in its partition, which may be overridden, is made anew",
    "plan.changed",
    (loop) => scribble(loop, partition.startBytes + 512 + 32, "another-volume"),
    { disk: { put: putPartition(linuxType, "LVM2_member"), rules: { overrides: ["member"] } } },
  );
});

describe("overrides", () => {
  const both = (disk: SparseDisk) => {
    putLayout("LVM2_member")(disk);
    putLayout("VMFS_volume_member")(disk);
  };

  /** The host's own sysfs says that it is reached by iSCSI: its directory there, in a place whose path says so. */
  const attachRemotely = async (loop: Loop) => {
    const name = basename(loop.path);
    const at = join(host.directory, `session1-${made++}`);
    const [blocks, target] = [join(at, "block"), join(at, "session1", name)];
    mkdirSync(blocks, { recursive: true });
    mkdirSync(target, { recursive: true });
    for (const each of await readdir("/sys/block"))
      symlinkSync(each === name ? target : `/sys/devices/virtual/block/${each}`, join(blocks, each));
    host.inside("mount", "--bind", `/sys/devices/virtual/block/${name}`, target);
    undo.push(() => void host.inside("umount", target));
    host.inside("mount", "--bind", blocks, "/sys/block");
    undo.push(() => void host.inside("umount", "/sys/block"));
  };

  const cases = [
    { guard: "member", code: "disk.member", put: putLayout("LVM2_member"), attached: async () => {} },
    {
      guard: "shared-storage",
      code: "disk.shared-storage",
      put: putLayout("gfs2"),
      attached: async () => {},
    },
    { guard: "remote", code: "disk.remote", put: () => {}, attached: attachRemotely },
  ] as const;
  for (const { guard, code, put, attached } of cases)
    guardTest(`${guard}: refused without the policy's leave, done with it, and in the audit`, async () => {
      const loop = await makeDisk({ put });
      await attached(loop);
      await expectRefused(host, { loop }, { code, guards: [guard], says: /./ });
      const others = allOverrides.filter((each) => each !== guard);
      host.writePolicy({ allow: [loop.entry], overrides: others });
      await expectRefused(
        host,
        { loop, overrides: [guard] },
        { code: "policy.override-denied", guards: [guard], says: "does not let it" },
      );
      host.writePolicy({ allow: [loop.entry], overrides: allOverrides });
      // An override of others is none of this one.
      await expectRefused(host, { loop, overrides: others }, { code, guards: [guard], says: /./ });

      const plan = await expectDeployed(host, { loop, overrides: [guard] });
      const found = plan.findings.find((finding) => finding.guard === guard);
      expect(found).toMatchObject({ ok: true, finding: expect.stringMatching(/^overridden: /) });
      expect(plan.arguments.overrides).toEqual([guard]);
      const entries = host.audit().filter(({ event }) => event === "override");
      expect(entries.at(-1)).toMatchObject({ kind: "image.deploy", detail: { guards: [guard] } });
    });
  guardTest("each guard needs its own", async () => {
    const loop = await makeDisk({ put: both, rules: { overrides: allOverrides } });
    await expectRefused(
      host,
      { loop, overrides: ["member"] },
      { code: "disk.shared-storage", guards: ["shared-storage"], says: "VMFS_volume_member" },
    );
    await expectRefused(
      host,
      { loop, overrides: ["shared-storage"] },
      { code: "disk.member", guards: ["member"], says: "LVM2_member" },
    );
    await expectDeployed(host, { loop, overrides: ["member", "shared-storage"] });
  });
  guardTest("what is in use is not to be overridden", async () => {
    const loop = await makeDisk();
    const before = loop.hash();
    const words = [...deployWords(host, { loop }), "--override", "mounted", "--yes"];
    expect((await host.operator.run(...words)).code).toBe(2);
    expect(loop.hash()).toBe(before);
  });
  guardTest("one disk's plan, with its override, writes to no other disk", async () => {
    const put = putLayout("LVM2_member");
    const [planned, other] = [await makeDisk({ put }), await makeDisk({ put })];
    host.writePolicy({ allow: [planned.entry, other.entry], overrides: ["member"] });
    const words = [...deployWords(host, { loop: planned, overrides: ["member"] }), "--plan"];
    const { plan } = await host.operator.json<{ plan: Plan }>(0, ...words);
    const before = [planned.hash(), other.hash()];
    const { controller } = host;
    const { artefact } = (await controller.api.command(plan.id)).result!.output as {
      artefact: { text: string };
    };
    const quote = {
      ...{ id: plan.id, hostname: plan.hostname, chassisSerial: plan.chassisSerial },
      digest: createHash("sha256").update(artefact.text).digest("hex"),
    };
    const fingerprint = plan.arguments.fingerprint as Record<string, unknown>;
    // Whoever has the controller's API sends what no operator has looked at.
    for (const changed of [
      { disk: { loop: other.backing } },
      { disk: { loop: other.backing }, fingerprint: { ...fingerprint, backing: other.backing } },
      { overrides: ["member", "shared-storage"] },
    ]) {
      const { id } = await controller.submit({
        ...{ host: plan.host, kind: "image.deploy", mode: "apply", plan: quote },
        arguments: { ...plan.arguments, ...changed },
      } as Parameters<typeof controller.submit>[0]);
      const shown = await host.operator.run("--json", "command", "show", id, "--follow");
      expect(shown.code, textOf(shown)).toBe(3);
      const view = JSON.parse(shown.stdout.trim().split("\n").at(-1)!) as CommandView;
      expect(view).toMatchObject({ state: "refused", result: { error: { code: "plan.changed" } } });
    }
    expect([planned.hash(), other.hash()]).toEqual(before);
  });
});

guardTest("the host's audit holds after all that", async () => {
  const check = JSON.parse(host.inside(node, builtProgram, "audit", "verify", "--json")) as {
    entries: number;
    faults: readonly unknown[];
  };
  expect(check.entries).toBeGreaterThan(100);
  expect(check.faults).toEqual([]);
});
