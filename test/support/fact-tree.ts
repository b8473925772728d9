// A tree of /sys, /proc and others for tests: a text that lists files, or an object, becomes real files under a temporary root.
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export interface FactTree extends AsyncDisposable {
  readonly root: string;
}

/** Path to content; a content of `-> TARGET` is a link. Bytes stand for themselves. */
export type TreeFiles = { readonly [path: string]: string | Uint8Array };

export async function makeTree(files: TreeFiles): Promise<FactTree> {
  const root = await mkdtemp(join(tmpdir(), "bp-tree-"));
  for (const [path, content] of Object.entries(files)) {
    const full = join(root, path);
    await mkdir(dirname(full), { recursive: true });
    if (typeof content === "string" && content.startsWith("-> ")) await symlink(content.slice(3), full);
    else await writeFile(full, typeof content === "string" ? `${content}\n` : content);
  }
  return { root, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

export interface FakeDisk {
  readonly number: string;
  /** Where it hangs: `pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0`. */
  readonly device: string;
  readonly sizeBytes: number;
  readonly serial?: string;
  readonly wwid?: string;
  readonly model?: string;
  readonly partitions?: readonly {
    readonly number: string;
    readonly startBytes: number;
    readonly sizeBytes: number;
  }[];
  readonly files?: TreeFiles;
}

/** The files of a SCSI disk as Linux shows them, serial number page and all. */
export function scsiDisk(name: string, disk: FakeDisk): TreeFiles {
  const device = `sys/devices/${disk.device}`;
  const at = `${device}/block/${name}`;
  const files: Record<string, string | Uint8Array> = {
    [`sys/block/${name}`]: `-> ../${at.slice(4)}`,
    [`sys/class/block/${name}`]: `-> ../../${at.slice(4)}`,
    [`${at}/device`]: `-> ../../../${device.split("/").at(-1)}`,
    [`${at}/dev`]: disk.number,
    [`${at}/size`]: `${disk.sizeBytes / 512}`,
    [`${at}/ro`]: "0",
    [`${at}/removable`]: "0",
    [`${at}/hidden`]: "0",
    [`${at}/diskseq`]: "9",
    [`${at}/queue/logical_block_size`]: "512",
    [`${at}/queue/physical_block_size`]: "4096",
    [`${at}/queue/rotational`]: "1",
    [`${device}/model`]: `${disk.model ?? "ST4000NM0035"}    `,
    [`${device}/vendor`]: "ATA     ",
    [`${device}/rev`]: "TN02",
  };
  if (disk.serial !== undefined) files[`${device}/vpd_pg80`] = serialPage(disk.serial);
  if (disk.wwid !== undefined) files[`${device}/wwid`] = disk.wwid;
  for (const [index, { number, startBytes, sizeBytes }] of (disk.partitions ?? []).entries()) {
    const partition = `${name}${index + 1}`;
    files[`${at}/${partition}/partition`] = `${index + 1}`;
    files[`${at}/${partition}/dev`] = number;
    files[`${at}/${partition}/start`] = `${startBytes / 512}`;
    files[`${at}/${partition}/size`] = `${sizeBytes / 512}`;
    files[`sys/class/block/${partition}`] = `-> ../../${at.slice(4)}/${partition}`;
  }
  for (const [path, content] of Object.entries(disk.files ?? {})) files[`${at}/${path}`] = content;
  return files;
}

/** SPC's page 80h as a drive gives it, padded with blanks. */
export function serialPage(serial: string): Uint8Array {
  const text = Buffer.from(serial.padStart(20));
  return Buffer.concat([Buffer.from([0x00, 0x80, 0x00, text.length]), text]);
}
