// Two trees of files, compared: kinds, contents, modes, owners, targets of links, numbers of devices.
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync, readlinkSync, type Stats } from "node:fs";
import { join } from "node:path";

/** Path below the root to what is there, in one line. */
export type Tree = ReadonlyMap<string, string>;

/** @param details also mode, owner and links: what not every file system keeps */
export function readTree(root: string, { details = true } = {}): Tree {
  const tree = new Map<string, string>();
  const visit = (path: string): void => {
    for (const name of readdirSync(join(root, path)).sort()) {
      const below = join(path, name);
      // mke2fs makes it.
      if (below === "lost+found") continue;
      const status = lstatSync(join(root, below));
      tree.set(below, describe(join(root, below), status, details));
      if (status.isDirectory()) visit(below);
    }
  };
  visit("");
  return tree;
}

function describe(path: string, status: Stats, details: boolean): string {
  const { mode, uid, gid, nlink, rdev } = status;
  const kept = details ? ` ${(mode & 0o7777).toString(8)} ${uid}:${gid}` : "";
  if (status.isSymbolicLink()) return `link to ${readlinkSync(path)}${details ? ` ${uid}:${gid}` : ""}`;
  if (status.isDirectory()) return `directory${kept}`;
  if (status.isFile()) {
    const bytes = readFileSync(path);
    const digest = createHash("sha256").update(bytes).digest("hex");
    return `file of ${bytes.length} ${digest}${kept}${details ? ` ${nlink} names` : ""}`;
  }
  return `${status.isBlockDevice() ? "block" : status.isCharacterDevice() ? "character" : "other"} ${rdev}${kept}`;
}

/** Each path that is not the same on both sides, with both; none when the trees are alike. */
export function differences(expected: Tree, found: Tree): readonly string[] {
  return [...new Set([...expected.keys(), ...found.keys()])]
    .filter((path) => expected.get(path) !== found.get(path))
    .map((path) => `${path}: ${expected.get(path) ?? "absent"}, found ${found.get(path) ?? "absent"}`);
}
