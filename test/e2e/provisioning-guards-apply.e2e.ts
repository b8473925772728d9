// Guards from the plan to the first write: which disk is meant, what happens before the signature comes, what is overridden
// and by whom; and what the host tells of itself.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, symlinkSync } from "node:fs";
import { readdir, truncate } from "node:fs/promises";
import { basename, join } from "node:path";
import { describe, expect } from "vitest";
import type { CommandView } from "../../protocol/api.ts";
import type { Code } from "../../protocol/codes.ts";
import type { Fingerprint } from "../../protocol/disks.ts";
import type { Inventory, InventoryUnchanged } from "../../protocol/inventory.ts";
import type { Plan } from "../../protocol/plans.ts";
import { builtProgram, node } from "../contract/programs.ts";
import { linuxType, partition, putLayout, putPartition, run } from "../provisioning/guards-contents.ts";
import { type Loop, scribble } from "../provisioning/guards-disks.ts";
import type { GuardsHost } from "../provisioning/guards-host.ts";
import {
  deployWords,
  expectDeployed,
  expectRefused,
  expectRefusedAfter,
  textOf,
} from "../provisioning/guards-refusal.ts";
import { type DiskOptions, diskBytes, makeFileSystem, setGuardStage } from "../provisioning/guards-stage.ts";
import type { Failure } from "../support/command-line.ts";
import type { SparseDisk } from "../support/sparse-disk.ts";

const mib = 1 << 20;
const allOverrides = ["remote", "member", "shared-storage"];
const { guardTest, makeDisk, mount, hold, undo, newPath } = setGuardStage("guards");

describe("one disk and no other", () => {
  const select = async (host: GuardsHost, selector: string, loop: Loop) => {
    const ended = await host.operator.run("--json", ...deployWords(host, { loop, selector }), "--yes");
    const { error } = JSON.parse(ended.stdout) as {
      error: { code: string; message: string; details: Record<string, readonly Record<string, unknown>[]> };
    };
    return { ...error, exitCode: ended.code };
  };

  guardTest(
    "two disks with one serial: both are named, none is touched; what tells them apart selects",
    async (host) => {
      const [one, two] = [await makeDisk(), await makeDisk({ sizeBytes: diskBytes + mib })];
      host.writePolicy({ allow: [one.entry, two.entry] });
      // Loop devices have no serial: the host's udev says that these two have.
      for (const loop of [one, two]) host.writeUdev(loop, { ID_SERIAL_SHORT: "TWIN0001" });
      undo(() => [one, two].forEach((loop) => void host.writeUdev(loop, {})));
      const before = [one.hash(), two.hash()];
      const refused = await select(host, "serial=TWIN0001", one);
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
  guardTest("two disks of one command, one of which a guard refuses: neither is touched", async (host) => {
    const [good, bad] = [await makeDisk(), await makeDisk({ put: putLayout("gfs2") })];
    host.writePolicy({ allow: [good.entry, bad.entry] });
    const before = [good.hash(), bad.hash()];
    const refused = await host.operator.json<Failure>(
      3,
      ...[...deployWords(host, { loop: good }), "--disk", bad.selector, "--yes"],
    );
    expect(refused.error.code).toBe("disk.shared-storage");
    for (const { path, backing } of [good, bad])
      expect(refused.error.message).toContain(`${path} (backing ${backing})`);
    expect([good.hash(), bad.hash()]).toEqual(before);
  });
  guardTest("no disk matches: the candidates say why not", async (host) => {
    const loop = await makeDisk();
    const before = loop.hash();
    for (const selector of ["serial=NONE", `${loop.selector},sizeBytes=4096`, `${loop.selector},type=nvme`]) {
      const refused = await select(host, selector, loop);
      expect(refused).toMatchObject({ code: "disk.not-found", exitCode: 3 });
      const candidate = refused.details.candidates!.find(({ path }) => path === loop.path);
      expect(candidate?.excluded).toMatch(/it has no serial|its size is 16777216|its type is loop/);
    }
    expect(loop.hash()).toBe(before);
  });
});

/** flock(1), until the end of the test. */
async function lock(path: string): Promise<void> {
  const holder = spawn("flock", ["--exclusive", path, "sh", "-c", "echo locked && exec sleep 900"], {
    stdio: ["ignore", "pipe", "ignore"],
    detached: true,
  });
  // The program that it runs holds it, too.
  undo(() => void process.kill(-holder.pid!));
  await once(holder.stdout!, "data");
}

describe("between the plan and its signature", () => {
  const signed = { signed: true } as const;
  const happens = (
    name: string,
    code: Code,
    happening: (loop: Loop, host: GuardsHost) => void | Promise<void>,
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
    guardTest(`${name}: ${code}`, async (host) => {
      const loop = await makeDisk({ ...disk, rules: { ...disk.rules, ...signed } });
      prepare(loop);
      const overrides = disk.rules?.overrides ?? [];
      const view = await expectRefusedAfter(host, { loop, overrides }, () => happening(loop, host));
      expect(view.result?.error?.code, JSON.stringify(view.result)).toBe(code);
      expect(view.result!.error!.message).toMatch(says);
    });

  guardTest("nothing happens: it is written", async (host) => {
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
  happens("it is detached and attached again", "plan.changed", (loop) => loop.reattach(), {
    says: /diskSequence was \d+ and is \d+/,
  });
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
    prepare: (loop) => makeFileSystem(loop.path),
  });
  happens("somebody holds it", "disk.held", (loop) => hold(loop.path));
  happens("somebody has locked it, as udev and its like do", "disk.held", (loop) => lock(loop.path), {
    says: /flock/,
  });
  happens("it is made read-only", "disk.read-only", (loop) => {
    run("blockdev", "--setro", loop.path);
    undo(() => void run("blockdev", "--setrw", loop.path));
  });
  happens("VMFS is made on it, past its first MiB", "disk.shared-storage", (loop) =>
    scribble(loop, mib, "\x0d\xd0\x01\xc0"),
  );
  happens("the policy no longer allows it", "disk.not-allowed", (_, host) =>
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
  const attachRemotely = async (host: GuardsHost, loop: Loop) => {
    const name = basename(loop.path);
    const at = newPath("remote");
    const [blocks, target] = [join(at, "block"), join(at, "session1", name)];
    mkdirSync(blocks, { recursive: true });
    mkdirSync(target, { recursive: true });
    for (const each of await readdir("/sys/block"))
      symlinkSync(each === name ? target : `/sys/devices/virtual/block/${each}`, join(blocks, each));
    host.inside("mount", "--bind", `/sys/devices/virtual/block/${name}`, target);
    undo(() => void host.inside("umount", target));
    host.inside("mount", "--bind", blocks, "/sys/block");
    undo(() => void host.inside("umount", "/sys/block"));
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
    guardTest(
      `${guard}: refused without the policy's leave, done with it, and in the audit`,
      async (host) => {
        const loop = await makeDisk({ put });
        await attached(host, loop);
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
        const { backing, edges, content } = plan.arguments.fingerprint as Fingerprint;
        const disks = [{ disk: loop.selector, guards: [guard], fingerprint: { backing, edges, content } }];
        expect(entries.at(-1)).toMatchObject({ kind: "image.deploy", detail: { guards: [guard], disks } });
      },
    );
  guardTest("each guard needs its own", async (host) => {
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
  guardTest("what is in use is not to be overridden", async (host) => {
    const loop = await makeDisk();
    const before = loop.hash();
    const words = [...deployWords(host, { loop }), "--override", "mounted", "--yes"];
    expect((await host.operator.run(...words)).code).toBe(2);
    expect(loop.hash()).toBe(before);
  });
  guardTest("one disk's plan, with its override, writes to no other disk", async (host) => {
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

describe("what the host tells of itself", () => {
  /** Others of this machine may attach disks meanwhile: what happened then says nothing. */
  const blocks = () =>
    run("lsblk", "--all", "--noheadings", "--output", "MAJ:MIN,SIZE,RO,MOUNTPOINTS") +
    // One that was attached anew has a new number, else all may be as it was.
    run("sh", "-c", "grep -H . /sys/block/*/diskseq /sys/block/*/loop/backing_file || true");
  const inventory = async (host: GuardsHost) => {
    const { inventory: found } = await host.operator.json<{ inventory: Inventory }>(
      0,
      "host",
      "show",
      host.name,
    );
    const [{ id }] = (await host.controller.api.commands({ limit: 1 })) as [CommandView];
    const { result } = await host.controller.api.command(id);
    return { found, told: result!.output as Inventory | InventoryUnchanged };
  };

  /** As nice as executors are: what this machine takes for something small, as busy as it is. */
  const nodeStartMs = () => {
    const began = performance.now();
    run("nice", "-n", "10", node, "--eval", "0");
    return performance.now() - began;
  };

  guardTest(
    "two looks are alike and cost little; a disk more is another machine",
    async (host) => {
      let quiet = false;
      for (let attempt = 0; attempt < 8 && !quiet; attempt++) {
        const before = blocks();
        const first = await inventory(host);
        const second = await inventory(host);
        quiet = before === blocks();
        if (!quiet) continue;
        expect(second.told).toMatchObject({ unchanged: true, contentHash: first.found.contentHash });
        // What may not be opened is told, and is no error of the inventory.
        for (const { errors } of Object.values(second.found.groups!))
          for (const error of errors) expect(error).toMatch(/: (EPERM|EACCES|ENXIO|ENOMEDIUM)$/);
      }
      expect(quiet, "eight times others changed this machine's disks meanwhile").toBe(true);

      const loop = await makeDisk();
      const { found, told } = await inventory(host);
      expect(told).not.toHaveProperty("unchanged");
      expect(found.disks.find(({ path }) => path === loop.path)).toMatchObject({ backing: loop.backing });
      const [costs, starts]: [number[], number[]] = [[], []];
      for (let look = 0; look < 5; look++) {
        costs.push((await inventory(host)).told.collectMs);
        starts.push(nodeStartMs());
      }
      const list = (times: readonly number[]) => times.map(Math.round).join(", ");
      console.log(
        `inventory of ${found.disks.length} disks: ${list(costs)} ms; Node starts in ${list(starts)} ms`,
      );
      expect(Math.min(...costs)).toBeLessThan(3 * Math.min(...starts));
    },
    ["lsblk"],
  );
});

guardTest("the host's audit holds after all that", async (host) => {
  const check = JSON.parse(host.inside(node, builtProgram, "audit", "verify", "--json")) as {
    entries: number;
    faults: readonly unknown[];
  };
  expect(check.entries).toBeGreaterThan(100);
  expect(check.faults).toEqual([]);
});
