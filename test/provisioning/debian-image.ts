// A disk image of Debian made of its own packages: GPT, EFI system partition, root on ext4. No boot, no mount, no cache.
import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { hasProgram } from "../contract/programs.ts";

export interface DebianImage {
  readonly path: string;
  readonly sizeBytes: number;
  /** What was put into the root partition, and into the EFI system partition. */
  readonly root: string;
  readonly esp: string;
  readonly partitions: { readonly esp: Partition; readonly root: Partition };
  /** A package that is not in it yet. */
  readonly package: string;
}

export interface Partition {
  readonly startBytes: number;
  readonly sizeBytes: number;
}

const mib = 1 << 20;
/** FAT32 wants 65,525 clusters at least. */
const esp: Partition = { startBytes: mib, sizeBytes: 40 * mib };
const root: Partition = { startBytes: 41 * mib, sizeBytes: 256 * mib };
/** With a MiB for the second copy of the table. */
const sizeBytes = root.startBytes + root.sizeBytes + mib;

const tools = ["mmdebstrap", "apt-get", "dpkg-deb", "tar", "mke2fs", "sgdisk", "mkfs.vfat", "mcopy", "cp"];
const buildMs = 300_000;

/** Why no image can be made here. */
export function lackingForDebian(): string | undefined {
  const missing = tools.filter((tool) => !hasProgram(tool));
  if (missing.length > 0) return `${missing.join(", ")} are not installed`;
  return aptSource() === undefined ? "apt has no source of Debian packages" : undefined;
}

/** The machine's own: whichever mirror it is given. */
function aptSource(): string | undefined {
  return ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"].find((path) => existsSync(path));
}

/** @param directory empty; keeps all that is made. @throws with what mmdebstrap said when the packages cannot be had */
export async function buildDebian(directory: string): Promise<DebianImage> {
  const run = (program: string, ...argv: readonly string[]) =>
    execFileSync(program, argv, { cwd: directory, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const trees = { root: join(directory, "root"), esp: join(directory, "esp") };
  const archive = join(directory, "root.tar");
  const fetch = `cd '${directory}' && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download --quiet tree systemd-boot-efi`;
  const codename = run("sh", "-c", ". /etc/os-release && printf %s $VERSION_CODENAME");
  await promisify(execFile)(
    "mmdebstrap",
    [
      ...["--variant=essential", "--format=tar", `--customize-hook=${fetch}`, ...proxies(run)],
      ...[codename, archive, aptSource()!],
    ],
    { cwd: directory, timeout: buildMs, env: { ...process.env, TMPDIR: directory } },
  );
  mkdirSync(trees.root);
  run(
    "tar",
    "--extract",
    "--numeric-owner",
    "--preserve-permissions",
    "--xattrs",
    "-f",
    archive,
    "-C",
    trees.root,
  );
  writeFileSync(
    join(trees.root, "etc/fstab"),
    "LABEL=root / ext4 defaults 0 1\nLABEL=ESP /boot/efi vfat defaults 0 2\n",
  );
  const [loader, tree] = ["systemd-boot-efi_", "tree_"].map((name) =>
    join(directory, readdirSync(directory).find((file) => file.startsWith(name) && file.endsWith(".deb"))!),
  ) as [string, string];
  run("dpkg-deb", "--extract", loader, trees.root);
  mkdirSync(join(trees.esp, "EFI/BOOT"), { recursive: true });
  mkdirSync(join(trees.esp, "loader"));
  const boot = join(trees.root, "usr/lib/systemd/boot/efi");
  const program = readdirSync(boot).find((name) => /^systemd-boot.*\.efi$/.test(name))!;
  copyFileSync(
    join(boot, program),
    join(trees.esp, "EFI/BOOT", program.replace("systemd-boot", "BOOT").toUpperCase()),
  );
  writeFileSync(join(trees.esp, "loader/loader.conf"), "timeout 0\n");

  const path = join(directory, "debian.raw");
  const [rootFile, espFile] = [join(directory, "root.ext4"), join(directory, "esp.vfat")];
  run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", trees.root, rootFile, `${root.sizeBytes / 1024}k`);
  run("truncate", "--size", `${esp.sizeBytes}`, espFile);
  run("mkfs.vfat", "-F", "32", "-n", "ESP", espFile);
  run("mcopy", "-i", espFile, "-s", join(trees.esp, "EFI"), join(trees.esp, "loader"), "::/");
  run("truncate", "--size", `${sizeBytes}`, path);
  const sectors = ({ startBytes, sizeBytes: length }: Partition) =>
    `${startBytes / 512}:${(startBytes + length) / 512 - 1}`;
  run(
    "sgdisk",
    ...["--clear", `--new=1:${sectors(esp)}`, "--typecode=1:EF00", `--new=2:${sectors(root)}`],
    ...["--typecode=2:8304", path],
  );
  for (const [file, { startBytes }] of [
    [espFile, esp],
    [rootFile, root],
  ] as const)
    run(
      "dd",
      `if=${file}`,
      `of=${path}`,
      "bs=1M",
      `seek=${startBytes / mib}`,
      "conv=notrunc,sparse",
      "status=none",
    );
  return { path, sizeBytes, ...trees, root: trees.root, partitions: { esp, root }, package: tree };
}

/** What apt needs on this machine to reach its mirror. */
function proxies(run: (program: string, ...argv: readonly string[]) => string): string[] {
  return run("apt-config", "dump", "--no-empty", "Acquire::http", "Acquire::https")
    .split("\n")
    .filter((line) => /::proxy/i.test(line))
    .map((line) => `--aptopt=${line}`);
}
