// The sources of an image, checked against the host's policy before a disk is touched; those that are files, opened.
import { closeSync, constants, fstatSync, openSync, readlinkSync, realpathSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import { errnoOf } from "../host/files.ts";
import { isListed, refused, requireAllowed } from "./source-rules.ts";

/** A source that may be read. It can be posted to workers: descriptors belong to the process, not to a thread. */
export interface UsableSource extends ImageSource {
  /** The policy lists it: it may be signed by whom the world trusts. Else by the pinned authority alone. */
  readonly listed?: boolean;
  /** Of a file of this host. */
  readonly fd?: number;
}

export interface OpenSources extends Disposable {
  readonly all: readonly UsableSource[];
  /** Mirrors that this host does not use, a sentence each. */
  readonly passedOver: readonly string[];
}

/**
 * @param places the policy's `imageSources`
 * @throws `source.refused` when a single one is not allowed: an offer is taken as a whole. But for mirrors, which are
 * offered to hosts of every policy: one that is not listed is passed over
 */
export function openSources(sources: readonly ImageSource[], places: readonly string[]): OpenSources {
  const all: UsableSource[] = [];
  const passedOver: string[] = [];
  const close = () => {
    for (const { fd } of all) if (fd !== undefined) closeSync(fd);
  };
  try {
    for (const source of sources) {
      try {
        const listed = requireAllowed(source, places);
        all.push({
          ...source,
          listed,
          ...(source.url.startsWith("file:") ? { fd: openFile(source, places) } : {}),
        });
      } catch (error) {
        if (source.mirror !== true || !(error instanceof BedplateError)) throw error;
        passedOver.push(error.message);
      }
    }
  } catch (error) {
    close();
    throw error;
  }
  return { all, passedOver, [Symbol.dispose]: close };
}

/** What was opened is checked, not its name: a link could lead out of what the policy lists. */
function openFile(source: ImageSource, places: readonly string[]): number {
  const path = fileURLToPath(source.url);
  let fd: number;
  try {
    // Without waiting: a named pipe in its place would keep us here.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    throw refused(source, `it cannot be opened (${errnoOf(error)})`, "See that the file is there.");
  }
  try {
    if (!fstatSync(fd).isFile()) throw refused(source, "it is not a regular file", "Offer a raw image.");
    const opened = pathToFileURL(readlinkSync(`/proc/self/fd/${fd}`)).href;
    if (!isListed(opened, realPlaces(places)))
      throw refused(
        source,
        "a link leads out of what the host's policy lists",
        "List where the file really is.",
      );
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The administrator's own directory may be a link. */
function realPlaces(places: readonly string[]): string[] {
  return places
    .filter((place) => place.startsWith("file:"))
    .flatMap((place) => {
      try {
        return [pathToFileURL(realpathSync(fileURLToPath(place))).href];
      } catch {
        return [];
      }
    });
}
