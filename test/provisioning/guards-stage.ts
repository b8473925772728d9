// What a suite of guards plays on: one host for all its tests, and for each test disks that are gone after it.
import { closeSync, constants, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, test } from "vitest";
import { hasProgram } from "../contract/programs.ts";
import { putGpt, type SparseDisk } from "../support/sparse-disk.ts";
import { linuxType, partition, run } from "./guards-contents.ts";
import { type Loop, type LoopOptions, makeDiskFile } from "./guards-disks.ts";
import { type GuardsHost, openGuardsHost, type PolicyRules } from "./guards-host.ts";

const mib = 1 << 20;
export const imageBytes = 8 * mib;
export const diskBytes = 16 * mib;

export interface DiskOptions extends LoopOptions {
  readonly sizeBytes?: number;
  readonly put?: (disk: SparseDisk) => void;
  /** Of the policy, which allows this disk. */
  readonly rules?: PolicyRules;
}

export interface GuardStage {
  /** A test that says why it cannot be done here, if so. */
  guardTest(name: string, body: (host: GuardsHost) => Promise<void>, needs?: readonly string[]): void;
  /** What is to be undone after the test, the last first. */
  undo(step: () => void): void;
  /** A path in the host's directory that no other has. */
  newPath(name: string): string;
  makeDisk(options?: DiskOptions): Promise<Loop>;
  /** On the host, until the end of the test. @returns where */
  mount(device: string, ...options: string[]): string;
  /** Opened as programs open what they want for themselves, until the end of the test. */
  hold(path: string): void;
}

/** The host has two images: `small` for sectors of 512 bytes, and `small-4k`. */
export function setGuardStage(name: string, options: { readonly stateOnDisk?: boolean } = {}): GuardStage {
  let opened: GuardsHost | string = "it has not begun";
  const undone: (() => void)[] = [];
  let made = 0;
  const host = () => {
    if (typeof opened === "string") throw new Error(opened);
    return opened;
  };
  const undo: GuardStage["undo"] = (step) => void undone.push(step);
  const newPath: GuardStage["newPath"] = (kind) => join(host().directory, `${kind}-${made++}`);

  beforeAll(async () => {
    opened = await openGuardsHost(name, options);
    if (typeof opened === "string") return console.warn(`the guards of ${name} are not tested: ${opened}`);
    for (const [image, sectorBytes] of [
      ["small", 512],
      ["small-4k", 4096],
    ] as const) {
      const file = await makeDiskFile(join(opened.directory, `${image}.raw`), imageBytes, (disk) =>
        putGpt(disk, sectorBytes, [{ type: linuxType, ...partition }]),
      );
      await opened.operator.json(0, "image", "add", file);
    }
  });
  afterEach(() => {
    // One that fails keeps none of the others from being done.
    using steps = new DisposableStack();
    for (const step of undone.splice(0)) steps.defer(step);
  });
  afterAll(async () => {
    if (typeof opened === "object") await opened[Symbol.asyncDispose]();
  });

  return {
    undo,
    newPath,
    guardTest: (title, body, needs = []) =>
      test(title, async ({ skip }) => {
        if (typeof opened === "string") return skip(opened);
        const missing = needs.filter((tool) => !hasProgram(tool));
        if (missing.length > 0) return skip(`not installed: ${missing.join(", ")}`);
        await body(opened);
      }),
    async makeDisk({ sizeBytes = diskBytes, put, rules = {}, ...loopOptions } = {}) {
      const file = await makeDiskFile(newPath("disk"), sizeBytes, put);
      const loop = host().attach(file, loopOptions);
      undo(() => loop.detach());
      host().writePolicy({ allow: [loop.entry], ...rules });
      return loop;
    },
    mount(device, ...mountOptions) {
      const at = newPath("mounted");
      mkdirSync(at);
      host().inside("mount", ...mountOptions, device, at);
      undo(() => void host().inside("umount", at));
      host().inside("sync", "--file-system", at);
      return at;
    },
    hold(path) {
      const held = openSync(path, constants.O_RDWR | constants.O_EXCL);
      undo(() => closeSync(held));
    },
  };
}

/** Without a journal, and with nothing that the kernel would do later: what is on the device stays as it is, once synced. */
export function makeFileSystem(path: string): void {
  run("mke2fs", "-q", "-t", "ext2", "-E", "lazy_itable_init=0", path);
}
