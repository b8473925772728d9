// What plan, apply and verify share: the checked manifest, and the disk that is meant.
import { createGroupKernel, mergeGroups } from "../../assembly/index.ts";
import { equalBytes, hex } from "../../protocol/bytes.ts";
import type { ImageReference } from "../../protocol/commands.ts";
import type { Disk } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { groupBytes, groupCount, type Manifest } from "../../protocol/manifest.ts";
import { type DirectFile, openDisk } from "../devices/direct-file.ts";
import { lazyConnections } from "../devices/lazy-connections.ts";
import { fetchManifest, fetchSignatures } from "../devices/manifest-source.ts";
import type { OpenSources } from "../devices/open-sources.ts";
import { requireSigned } from "../policy/image-signatures.ts";
import type { CommandContext } from "./command.ts";

/** A frame of zstd is a little larger than what it holds when that does not compress (ZSTD_COMPRESSBOUND and headers). */
const frameBytesMax = groupBytes + groupBytes / 128 + 1024;

/**
 * Fetches the manifest and proves it: from here on every digest in it is the image's. Mirrors that this host does not use
 * are named in the log.
 * @param asked "signed": also that the signatures which the host's policy asks for hold over it
 * @throws `image.bad-manifest`, `image.digest-mismatch`, `image.fetch-failed`, `image.unsigned`, `source.refused`
 */
export async function fetchCheckedManifest(
  image: ImageReference,
  { all, passedOver }: Pick<OpenSources, "all" | "passedOver">,
  { ca, host, policy, log }: Pick<CommandContext, "ca" | "host" | "policy" | "log">,
  signal: AbortSignal,
  asked?: "signed",
): Promise<Manifest> {
  for (const sentence of passedOver) log(sentence);
  using connections = lazyConnections(ca);
  return await fetchManifest(connections, {
    sources: all,
    ...{ clock: host.clock, random: host.random, signal },
    async prove(manifest, bytes, source) {
      requireImage(manifest, image);
      if (asked === undefined || policy.imageSignatures === null) return;
      const signatures = await fetchSignatures(connections, source, signal);
      await requireSigned(bytes, signatures, { ...policy, requirement: policy.imageSignatures });
    },
  });
}

/** @throws `image.bad-manifest`, `image.digest-mismatch` */
function requireImage(manifest: Manifest, image: ImageReference): void {
  const count = groupCount(manifest.sizeBytes);
  const root = mergeGroups(manifest.groups, count);
  if (!equalBytes(root, manifest.root)) {
    throw new BedplateError(
      "image.bad-manifest",
      `The manifest's groups add up to ${hex(root)}, not to its root ${hex(manifest.root)}.`,
    );
  }
  if (hex(root) !== image.root || manifest.sizeBytes !== image.sizeBytes) {
    throw new BedplateError(
      "image.digest-mismatch",
      `The source gives another image than the command names: ${hex(root)} of ${manifest.sizeBytes} bytes.`,
      {
        details: {
          expected: { root: image.root, sizeBytes: image.sizeBytes },
          found: { root: hex(root), sizeBytes: manifest.sizeBytes },
        },
      },
    );
  }
  const large = manifest.frameBytes.findIndex((bytes) => bytes > frameBytesMax);
  if (large >= 0) {
    throw new BedplateError(
      "image.bad-manifest",
      `The frame of group ${large} has ${manifest.frameBytes[large]} bytes; at most ${frameBytesMax} are taken.`,
    );
  }
}

/** Opens a disk for reading, beside whoever uses it. */
export async function openForReading(disk: Disk): Promise<{ open: DirectFile; window: Uint8Array }> {
  const { windows } = await createGroupKernel();
  const window = windows[0]!;
  const open = await openDisk({
    path: disk.path,
    kind: disk.type === "file" ? "file" : "block",
    access: "read",
    window,
  });
  return { open, window };
}
