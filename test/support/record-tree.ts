// Recording what the inventory reads of a machine, so that it can be replayed as a fixture: files, links, names, and sectors of devices.
import { lstatSync, readlinkSync } from "node:fs";
import type { DeviceReader } from "../../agent/devices/inventory/device-reader.ts";
import type { Files } from "../../agent/host/files.ts";
import type { MachineFixture } from "./machine-fixture.ts";

export interface Recorder {
  /** Reads through, and keeps what was given. Paths are with the root before them, as facts have it. */
  readonly files: Files;
  readonly devices: (reader: DeviceReader) => DeviceReader;
  readonly fixture: () => MachineFixture;
}

const linksMax = 40;
const sectorBytes = 512;

export function createRecorder(files: Files, root: string): Recorder {
  const tree = new Map<string, string | readonly string[]>();
  const devices = new Map<string, { sizeBytes: number; sectors: Map<number, string> }>();

  /** Where a path leads within the root; each link on the way is kept. Null when it leads nowhere. */
  const resolve = (path: string, followLast = true): string | null => {
    const left = path
      .slice(root.length)
      .split("/")
      .filter((part) => part !== "");
    let at: string[] = [];
    for (let links = 0; left.length > 0; ) {
      const part = left.shift()!;
      if (part === ".") continue;
      if (part === "..") {
        at = at.slice(0, -1);
        continue;
      }
      const here = [...at, part].join("/");
      let link: string | null;
      try {
        // Of whoever records it: replayed under the name that is asked for.
        link =
          here === "proc/self"
            ? null
            : lstatSync(`${root}/${here}`).isSymbolicLink()
              ? readlinkSync(`${root}/${here}`)
              : null;
      } catch {
        return null;
      }
      if (link === null || (left.length === 0 && !followLast)) {
        if (link !== null) keepLink(here, link, at);
        at = [...at, part];
        continue;
      }
      if (++links > linksMax) return null;
      keepLink(here, link, at);
      left.unshift(...link.split("/").filter((each) => each !== ""));
      if (link.startsWith("/")) at = [];
    }
    return at.join("/");
  };
  /** An absolute link would leave the root that it is replayed under. */
  const keepLink = (here: string, link: string, at: readonly string[]) => {
    tree.set(here, `-> ${link.startsWith("/") ? `${"../".repeat(at.length)}${link.slice(1)}` : link}`);
  };
  const keepDirectory = (path: string, names: readonly string[]) => {
    const known = tree.get(`${path}/`) ?? [];
    tree.set(`${path}/`, [...new Set([...known, ...names])].sort());
  };

  return {
    files: {
      ...files,
      readBytes(path, bytesMax) {
        const bytes = files.readBytes(path, bytesMax);
        const real = resolve(path);
        if (real !== null) tree.set(real, textOrBytes(bytes));
        return bytes;
      },
      list(path) {
        const names = files.list(path);
        const real = resolve(path);
        if (real !== null) keepDirectory(real, names);
        return names;
      },
      readLink(path) {
        const link = files.readLink(path);
        resolve(path, false);
        return link;
      },
      realPath(path) {
        const found = files.realPath(path);
        const real = resolve(path);
        if (real !== null) keepDirectory(real, []);
        return found;
      },
      status(path) {
        const status = files.status(path);
        const real = resolve(path);
        if (real !== null && status.kind === "directory") keepDirectory(real, []);
        else if (real !== null && !tree.has(real)) {
          const slash = real.lastIndexOf("/");
          keepDirectory(real.slice(0, slash), [real.slice(slash + 1)]);
        }
        return status;
      },
    },
    devices: (reader) => ({
      async open(device) {
        const opened = await reader.open(device);
        const kept = { sizeBytes: 0, sectors: new Map<number, string>() };
        devices.set(device.path, kept);
        return {
          async read(stretch) {
            const bytes = await opened.read(stretch);
            kept.sizeBytes = Math.max(kept.sizeBytes, stretch.offset + bytes.length);
            for (let at = 0; at < bytes.length; at += sectorBytes) {
              const sector = bytes.subarray(at, at + sectorBytes);
              if (sector.some((byte) => byte !== 0))
                kept.sectors.set(stretch.offset + at, Buffer.from(sector).toString("base64"));
            }
            return bytes;
          },
          [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
        };
      },
    }),
    fixture: () => ({
      tree: Object.fromEntries(
        [...tree].filter(([path]) => path !== "/").sort(([a], [b]) => (a < b ? -1 : 1)),
      ),
      devices: Object.fromEntries(
        [...devices].map(([path, { sizeBytes, sectors }]) => [
          path,
          { sizeBytes, sectors: Object.fromEntries([...sectors].sort(([a], [b]) => a - b)) },
        ]),
      ),
    }),
  };
}

/** Text where it is printable and so stands for itself; else base64. */
function textOrBytes(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString("utf8");
  const plain =
    /^[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}\t\n]*$/u.test(text) &&
    !text.startsWith("-> ") &&
    !text.startsWith("base64:");
  return plain && text.endsWith("\n") ? text.slice(0, -1) : `base64:${Buffer.from(bytes).toString("base64")}`;
}
