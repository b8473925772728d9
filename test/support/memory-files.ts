// A machine's files in memory, from a fixture: for tests that change them a thousand times.
import type { DeviceReader } from "../../agent/devices/inventory/device-reader.ts";
import type { FileStatus, Files } from "../../agent/host/files.ts";
import type { MachineFixture } from "./machine-fixture.ts";

export interface MemoryMachine {
  readonly files: Files;
  readonly devices: DeviceReader;
  /** Paths of regular files, without the first slash. */
  readonly paths: readonly string[];
}

type Node = { readonly bytes: Uint8Array } | { readonly link: string } | { readonly names: Set<string> };

/** `changed` stands in the place of what the fixture has for a file, or for a device's bytes from an offset on. */
export function memoryMachine(
  { tree, devices }: MachineFixture,
  changed: ReadonlyMap<string, Uint8Array> = new Map(),
): MemoryMachine {
  const nodes = new Map<string, Node>([["", { names: new Set() }]]);
  const directory = (path: string): Set<string> => {
    const known = nodes.get(path);
    if (known !== undefined && "names" in known) return known.names;
    const names = new Set<string>();
    nodes.set(path, { names });
    if (path !== "") directory(parentOf(path)).add(path.slice(parentOf(path).length).replace("/", ""));
    return names;
  };
  const put = (path: string, node: Node) => {
    directory(parentOf(path)).add(path.split("/").at(-1)!);
    nodes.set(path, node);
  };
  for (const [path, content] of Object.entries(tree)) {
    if (typeof content !== "string") {
      const names = directory(path.replace(/\/$/, ""));
      for (const name of content) names.add(name);
    } else if (content.startsWith("-> ")) put(path, { link: content.slice(3) });
    else put(path, { bytes: changed.get(path) ?? bytesOf(content) });
  }
  for (const path of Object.keys(devices)) put(path.slice(1), { bytes: new Uint8Array() });

  const resolve = (path: string, followLast = true): string => {
    const left = path.split("/").filter((part) => part !== "");
    let at: string[] = [];
    for (let steps = 0; left.length > 0; steps++) {
      if (steps > 200) throw errno("ELOOP");
      const part = left.shift()!;
      if (part === "..") {
        at = at.slice(0, -1);
        continue;
      }
      const node = nodes.get([...at, part].join("/"));
      if (node !== undefined && "link" in node && (left.length > 0 || followLast))
        left.unshift(...node.link.split("/").filter((each) => each !== "" && each !== "."));
      else at = [...at, part];
    }
    return at.join("/");
  };
  /** A name that was only listed is an empty file. */
  const nodeAt = (path: string, followLast = true): Node => {
    const real = resolve(path, followLast);
    const node = nodes.get(real);
    if (node !== undefined) return node;
    const above = nodes.get(parentOf(real));
    if (above !== undefined && "names" in above && above.names.has(real.split("/").at(-1)!))
      return { bytes: new Uint8Array() };
    throw errno("ENOENT");
  };
  const never = (): never => {
    throw errno("ENOSYS");
  };
  const status = (node: Node): FileStatus => ({
    kind: "names" in node ? "directory" : "link" in node ? "link" : "file",
    sizeBytes: "bytes" in node ? node.bytes.length : 0,
    mode: 0o644,
    uid: 0,
    gid: 0,
    device: "0:1",
    inode: 1n,
    represents: "0:0",
  });
  return {
    paths: [...nodes].flatMap(([path, node]) => ("bytes" in node ? [path] : [])),
    files: {
      readBytes(path, bytesMax) {
        const node = nodeAt(path);
        if ("bytes" in node) return node.bytes.subarray(0, bytesMax);
        throw errno("EISDIR");
      },
      list(path) {
        const node = nodeAt(path);
        if ("names" in node) return [...node.names].sort();
        throw errno("ENOTDIR");
      },
      readLink(path) {
        const node = nodeAt(path, false);
        if ("link" in node) return node.link;
        throw errno("EINVAL");
      },
      realPath(path) {
        nodeAt(path);
        return `/${resolve(path)}`;
      },
      status: (path) => status(nodeAt(path)),
      linkStatus: (path) => status(nodeAt(path, false)),
      makeDirectory: never,
      create: never,
      replace: never,
      changeGroup: never,
      mayExecute: () => false,
      remove: never,
    },
    devices: {
      async open({ path }) {
        const device = devices[path];
        if (device === undefined) throw errno("ENOENT");
        const changes = changed.get(path);
        return {
          async read({ offset, length }) {
            const bytes = new Uint8Array(Math.max(0, Math.min(length, device.sizeBytes - offset)));
            for (const [at, sector] of Object.entries(device.sectors)) {
              const start = Number(at) - offset;
              if (start <= -512 || start >= bytes.length) continue;
              const found = Buffer.from(sector, "base64");
              const from = Math.max(0, -start);
              bytes.set(found.subarray(from, from + bytes.length - Math.max(0, start)), Math.max(0, start));
            }
            if (changes !== undefined) bytes.set(changes.subarray(0, bytes.length));
            return bytes;
          },
          async [Symbol.asyncDispose]() {},
        };
      },
    },
  };
}

function bytesOf(content: string): Uint8Array {
  return content.startsWith("base64:")
    ? Buffer.from(content.slice(7), "base64")
    : Buffer.from(`${content}\n`);
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

function errno(code: string): Error {
  return Object.assign(new Error(code), { code });
}
