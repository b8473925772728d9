// The demo's disks: loop devices where root may make them, else files that the host's policy declares as disks.
import { execFile } from "node:child_process";
import { chown, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { DiskSelector } from "../../protocol/disks.ts";
import { findProgram } from "../doctor/tools.ts";

export interface DemoDisk {
  readonly name: string;
  /** The file that holds its bytes. */
  readonly backing: string;
  /** What is written to: the loop device, or the file itself. */
  readonly path: string;
  readonly selector: DiskSelector;
  /** How the policy names it. */
  readonly entry: string;
  readonly sizeBytes: number;
}

export interface DemoDisks extends AsyncDisposable {
  readonly kind: "loop" | "file";
  readonly disks: readonly DemoDisk[];
  /** Why there are no loop devices, when root could have had them. */
  readonly reason: string | undefined;
}

const names = ["first", "second", "third"] as const;
const run = promisify(execFile);

export async function makeDisks({
  directory,
  sizeBytes,
  loop,
  owner,
}: {
  directory: string;
  sizeBytes: number;
  loop: boolean;
  owner: number | undefined;
}): Promise<DemoDisks> {
  await mkdir(directory, { mode: 0o700 });
  await using cleanup = new AsyncDisposableStack();
  const files = names.map((name) => ({ name, backing: join(directory, `${name}.img`) }));
  for (const { backing } of files) {
    await using file = await open(backing, "wx", 0o600);
    await file.truncate(sizeBytes);
    if (owner !== undefined) await chown(backing, owner, owner);
  }
  if (owner !== undefined) await chown(directory, owner, owner);
  const attached = loop ? await attach(files, sizeBytes, cleanup) : "";
  if (typeof attached !== "string") {
    const kept = cleanup.move();
    return {
      kind: "loop",
      disks: attached,
      reason: undefined,
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  }
  const disks = files.map(({ name, backing }) => ({
    name,
    backing,
    path: backing,
    selector: { file: name },
    entry: `file:${name}`,
    sizeBytes,
  }));
  return {
    kind: "file",
    disks,
    reason: attached === "" ? undefined : attached,
    [Symbol.asyncDispose]: async () => {},
  };
}

/** All of them or none: the reason why none. */
async function attach(
  files: readonly { readonly name: string; readonly backing: string }[],
  sizeBytes: number,
  cleanup: AsyncDisposableStack,
): Promise<DemoDisk[] | string> {
  const losetup = findProgram("losetup");
  if (losetup === undefined) return "losetup is not here";
  const disks: DemoDisk[] = [];
  try {
    for (const { name, backing } of files) {
      const { stdout } = await run(losetup, ["--find", "--show", backing]);
      const path = stdout.trim();
      cleanup.defer(async () => void (await run(losetup, ["--detach", path])));
      // Attaching may succeed where opening is not allowed: a container's device rules.
      await using _opens = await open(path, "r+");
      disks.push({ name, backing, path, selector: { loop: backing }, entry: `loop:${backing}`, sizeBytes });
    }
    return disks;
  } catch (error) {
    await cleanup.disposeAsync();
    return `loop devices cannot be used here: ${(error as Error).message.trim().split("\n").at(-1)}`;
  }
}

/** Kinds that the demo's host takes without an operator's signature: a lab's policy, never one of a host that matters. */
export const labUnsigned = ["image.deploy"] as const;

const labRules = `# A lab's: anyone with the controller's API may have these done. Elsewhere operators sign.
unsigned = ${JSON.stringify(labUnsigned)}`;

/** The host's policy: these disks and no others, and what `rules` say (top-level keys without tables). */
export function policyText({ kind, disks }: Pick<DemoDisks, "kind" | "disks">, rules = labRules): string {
  const lines = [
    "# The demo's policy: its own disks and no others.",
    `allowDisks = ${JSON.stringify(disks.map((disk) => disk.entry))}`,
    rules,
  ];
  if (kind === "file") {
    for (const { name, backing, sizeBytes } of disks) {
      lines.push(
        "",
        "[[fileDisks]]",
        `name = ${JSON.stringify(name)}`,
        `path = ${JSON.stringify(backing)}`,
        `sizeBytes = ${sizeBytes}`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}

/** `length` bytes of the disk from `offset`, as the backing file has them. */
export async function readDisk(disk: DemoDisk, offset: number, length: number): Promise<Uint8Array> {
  await using file = await open(disk.backing, "r");
  const bytes = new Uint8Array(length);
  await file.read(bytes, 0, length, offset);
  return bytes;
}

/** The same bytes at each offset, through the device, and onto the medium. */
export async function writeDisk(
  disk: DemoDisk,
  offsets: readonly number[],
  bytes: Uint8Array,
): Promise<void> {
  await using file = await open(disk.path, "r+");
  for (const offset of offsets) await file.write(bytes, 0, bytes.length, offset);
  await file.sync();
}
