// A Debian of its own packages: imported, deployed to a block device, checked by its own tools, file by file; changed, and
// deployed again; verified, and found wrong when a byte is.
import { mkdirSync, mkdtempSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CommandView, ImageView } from "../../protocol/api.ts";
import type { DeployOutput } from "../../protocol/commands.ts";
import { buildDebian, type DebianImage, lackingForDebian } from "../provisioning/debian-image.ts";
import { differences, readTree } from "../provisioning/file-trees.ts";
import { run } from "../provisioning/guards-contents.ts";
import { type Loop, makeDiskFile, scribble } from "../provisioning/guards-disks.ts";
import { type GuardsHost, openGuardsHost } from "../provisioning/guards-host.ts";

const mib = 1 << 20;
const buildMs = 400_000;

let host: GuardsHost;
let debian: DebianImage;
let disk: Loop;
let cannot: string | undefined;

beforeAll(async () => {
  cannot = lackingForDebian();
  if (cannot !== undefined) return;
  const opened = await openGuardsHost("debian");
  if (typeof opened === "string") {
    cannot = opened;
    return;
  }
  host = opened;
  const directory = join(host.directory, "build");
  mkdirSync(directory);
  try {
    debian = await buildDebian(directory);
  } catch (error) {
    cannot = `Debian's packages cannot be had: ${(error as Error).message.slice(-1500)}`;
    return;
  }
  // It held something else before.
  const file = await makeDiskFile(join(host.directory, "disk.img"), debian.sizeBytes + 64 * mib);
  disk = host.attach(file);
  host.writePolicy({ allow: [disk.entry] });
}, buildMs);
afterAll(async () => {
  await host?.[Symbol.asyncDispose]();
});

function debianTest(name: string, body: () => Promise<void>): void {
  test(name, async ({ skip }) => {
    if (cannot !== undefined) {
      console.warn(`provisioning-debian did nothing: ${cannot}`);
      return skip(cannot);
    }
    await body();
  });
}

const deploy = (image: string) =>
  host.operator.json<{ deploy: DeployOutput }>(
    0,
    ...["deploy", host.name, "--image", image, "--disk", disk.selector, "--yes"],
  );
const verify = (code: number, image: string) =>
  host.operator.json<{ command: CommandView; error?: { code: string; message: string } }>(
    code,
    ...["verify", host.name, "--image", image, "--disk", disk.selector],
  );

/** The disk's partitions as the kernel finds them in its table, for as long as it takes. */
async function withPartitions(use: (esp: string, root: string) => void | Promise<void>): Promise<void> {
  run("partx", "--add", disk.path);
  try {
    await use(`${disk.path}p1`, `${disk.path}p2`);
  } finally {
    run("partx", "--delete", disk.path);
  }
}

/** Whoever keeps images adds to the newest one; `debian.root` has the same then. */
function installInto(image: string): void {
  const { startBytes, sizeBytes } = debian.partitions.root;
  host.withMounted(["-o", `loop,offset=${startBytes},sizelimit=${sizeBytes}`, image], (path) => {
    for (const root of [path, debian.root]) run("dpkg-deb", "--extract", debian.package, root);
  });
}

/** Everything on the disk is as it was built. */
async function expectBuilt(): Promise<number> {
  let files = 0;
  await withPartitions((esp, root) => {
    run("fsck.ext4", "-f", "-n", root);
    run("fsck.vfat", "-n", esp);
    const expected = readTree(debian.root);
    const found = host.withMounted(["-o", "ro,noload", root], (path) => readTree(path));
    expect(differences(expected, found).slice(0, 20)).toEqual([]);
    files = expected.size;
    const copied = mkdtempSync(join(host.directory, "esp-"));
    run("mcopy", "-i", esp, "-s", "-n", "::/EFI", "::/loader", copied);
    const plain = { details: false };
    expect(differences(readTree(debian.esp, plain), readTree(copied, plain))).toEqual([]);
  });
  return files;
}

describe("a Debian", () => {
  debianTest("is imported from zstd with the root of its raw form", async () => {
    const compressed = `${debian.path}.zst`;
    run("zstd", "-q", "-1", debian.path, "-o", compressed);
    const image = await host.operator.json<ImageView>(0, "image", "add", compressed, "--name", "debian");
    expect(image).toMatchObject({ sizeBytes: debian.sizeBytes, importedFrom: "zstd", sectorBytes: 512 });
    const hashed = await host.operator.run("hash", debian.path);
    expect(hashed.stdout).toContain(image.root);
    expect(image.zeroGroups).toBeGreaterThan(0);
  });

  debianTest("is deployed: fsck is content, every file is as it was built", async () => {
    const { deploy: output } = await deploy("debian");
    expect(output.readback.root).toBe(output.root);
    expect(output.bytesWritten + output.bytesZeroed + output.bytesSkipped).toBe(debian.sizeBytes);
    const files = await expectBuilt();
    expect(files).toBeGreaterThan(1000);
    const { bytesFetched, bytesWritten, bytesZeroed, seconds } = output;
    console.log(`${files} files; ${JSON.stringify({ bytesFetched, bytesWritten, bytesZeroed, seconds })}`);
  });

  debianTest("with one package more is deployed again: what changed is fetched and written", async () => {
    const changed = join(host.directory, "build/changed.raw");
    run("cp", "--sparse=always", debian.path, changed);
    installInto(changed);
    const qcow2 = changed.replace(".raw", ".qcow2");
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", changed, qcow2);
    await host.operator.json(0, "image", "add", qcow2, "--name", "debian-2");
    const { deploy: output } = await deploy("debian-2");
    const { bytesFetched, bytesWritten, bytesSkipped, bytesZeroed, seconds } = output;
    console.log(
      JSON.stringify({
        sizeBytes: debian.sizeBytes,
        bytesFetched,
        bytesWritten,
        bytesSkipped,
        bytesZeroed,
        seconds,
      }),
    );
    expect(bytesWritten).toBeLessThan(debian.sizeBytes / 20);
    expect(bytesFetched).toBeLessThan(debian.sizeBytes / 50);
    expect(bytesWritten).toBeGreaterThan(mib);
    await expectBuilt();
  });

  debianTest("is verified; a byte that changed is found, and its group named", async () => {
    await verify(0, "debian-2");
    await verify(1, "debian");
    const at = debian.partitions.root.startBytes + 100 * mib + 4321;
    await using file = await open(disk.backing, "r");
    const { buffer: before } = await file.read(Buffer.alloc(1), 0, 1, at);
    await scribble(disk, at, Uint8Array.of(before[0]! ^ 1));
    const found = await verify(1, "debian-2");
    expect(found.error).toMatchObject({ code: "disk.readback-mismatch" });
    expect(found.error!.message).toContain(`group ${Math.floor(at / mib)} `);
    expect(found.command.result!.error!.details).toMatchObject({
      wrongGroups: [Math.floor(at / mib)],
      wrongGroupCount: 1,
    });
    await scribble(disk, at, before);
    await verify(0, "debian-2");
  });
});
