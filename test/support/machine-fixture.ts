// A machine in a file: what the inventory reads of it, and how that becomes a tree under a temporary root again.
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type FactTree, makeTree, type TreeFiles } from "./fact-tree.ts";
import { sparseDisk } from "./sparse-disk.ts";

export interface MachineFixture {
  /**
   * Path without the first slash to: the text of a file without its last newline, `base64:…`, `-> TARGET` of a link; or,
   * where the path ends with a slash, the names in a directory.
   */
  readonly tree: { readonly [path: string]: string | readonly string[] };
  /** Path of a block device to its size and the sectors that are not zero, by their offset, in base64. */
  readonly devices: {
    readonly [path: string]: {
      readonly sizeBytes: number;
      readonly sectors: { readonly [offset: string]: string };
    };
  };
}

export async function readFixture(name: string): Promise<MachineFixture> {
  const file = new URL(`../fixtures/machines/${name}.json`, import.meta.url);
  return JSON.parse(await readFile(file, "utf8")) as MachineFixture;
}

export async function restoreMachine({ tree, devices }: MachineFixture): Promise<FactTree> {
  const files: Record<string, string | Uint8Array> = {};
  const directories: string[] = [];
  for (const [path, content] of Object.entries(tree)) {
    if (typeof content !== "string") continue;
    files[path] = content.startsWith("base64:") ? Buffer.from(content.slice(7), "base64") : content;
  }
  const known = new Set(Object.keys(tree).flatMap((path) => prefixesOf(path)));
  for (const [path, names] of Object.entries(tree)) {
    if (typeof names === "string") continue;
    directories.push(path);
    // A name that nothing else is known of is an empty file: it was listed, never read.
    for (const name of names) if (!known.has(`${path}${name}`)) files[`${path}${name}`] = new Uint8Array();
  }
  const restored = await makeTree(files as TreeFiles);
  for (const path of directories) await mkdir(join(restored.root, path), { recursive: true });
  for (const [path, { sizeBytes, sectors }] of Object.entries(devices)) {
    const disk = sparseDisk(sizeBytes);
    for (const [offset, bytes] of Object.entries(sectors))
      disk.put(Number(offset), Buffer.from(bytes, "base64"));
    const full = join(restored.root, path);
    await mkdir(dirname(full), { recursive: true });
    await disk.save(full);
  }
  return restored;
}

/** `a/b/c` and every directory above it. */
function prefixesOf(path: string): readonly string[] {
  const parts = path.replace(/\/$/, "").split("/");
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}
