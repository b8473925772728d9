// Reading small facts from /sys, /proc, /dev, /etc and /run, under any root: a captured tree of a machine is a fixture.
import { errnoOf, type Files } from "../host/files.ts";

/** Paths are those of the machine (`/sys/block`), wherever the tree lies. What cannot be read is noted, never thrown. */
export interface Facts {
  /** The trimmed text, or null. A missing file is noted. */
  text(path: string): string | null;
  /** Like `text`, for what many machines lack: a missing file, or a value the driver does not give, is not noted. */
  optionalText(path: string): string | null;
  /** At most the first `bytesMax`. */
  optionalBytes(path: string, bytesMax?: number): Uint8Array | null;
  /** A whole number, or null when the text is none. */
  number(path: string): number | null;
  optionalNumber(path: string): number | null;
  /** Names; none when the directory is missing. */
  list(path: string): readonly string[];
  /** What a link says, or null. */
  link(path: string): string | null;
  /** Where a path leads in the end, as the machine names it, or null. */
  realPath(path: string): string | null;
  exists(path: string): boolean;
  /** `/sys/class/dmi/id/product_serial: EACCES`, each once, sorted. */
  unreadable(): readonly string[];
}

const factBytesMax = 4 << 20;
/** A missing file, or a driver that has no answer now (the speed of a link that is down). */
const unremarkable = new Set(["ENOENT", "ENOTDIR", "EINVAL", "EOPNOTSUPP", "ENODEV", "ENODATA", "ENXIO"]);

export function createFacts(files: Files, root = ""): Facts {
  const unreadable = new Set<string>();
  const attempt = <T>(path: string, optional: boolean, read: (full: string) => T): T | null => {
    try {
      return read(`${root}${path}`);
    } catch (error) {
      const errno = errnoOf(error);
      if (!optional || !unremarkable.has(errno)) unreadable.add(`${path}: ${errno}`);
      return null;
    }
  };
  const bytes = (path: string, optional: boolean, bytesMax = factBytesMax) =>
    attempt(path, optional, (full) => files.readBytes(full, Math.min(bytesMax, factBytesMax)));
  const text = (path: string, optional: boolean) => {
    const read = bytes(path, optional);
    return read === null ? null : cleanText(read);
  };
  const number = (path: string, optional: boolean) => {
    const read = text(path, optional);
    if (read === null) return null;
    if (/^-?\d{1,15}$/.test(read)) return Number(read);
    if (!optional) unreadable.add(`${path}: not a number`);
    return null;
  };
  return {
    text: (path) => text(path, false),
    optionalText: (path) => text(path, true),
    optionalBytes: (path, bytesMax) => bytes(path, true, bytesMax),
    number: (path) => number(path, false),
    optionalNumber: (path) => number(path, true),
    list: (path) => attempt(path, true, (full) => files.list(full)) ?? [],
    link: (path) => attempt(path, true, (full) => files.readLink(full)),
    realPath: (path) =>
      attempt(path, true, (full) =>
        files.realPath(full).slice(root === "" ? 0 : files.realPath(root).length),
      ),
    exists: (path) => attempt(path, true, (full) => files.status(full)) !== null,
    unreadable: () => [...unreadable].sort(),
  };
}

/** Firmware puts anything into its strings: no control characters but tab and newline, no replacement characters, no blanks around. */
export function cleanText(bytes: Uint8Array): string {
  const text = new TextDecoder().decode(bytes);
  return text.replace(/[^\P{Cc}\t\n]|\ufffd/gu, "").trim();
}

/** One line that is safe to print: neither control nor invisible nor text-direction characters, blanks joined, at most `lengthMax`. */
export function cleanLine(text: string, lengthMax: number): string {
  return text
    .slice(0, 4 * lengthMax)
    .replace(/[\p{C}\p{Z}\ufffd]+/gu, " ")
    .trim()
    .slice(0, lengthMax)
    .trimEnd();
}
