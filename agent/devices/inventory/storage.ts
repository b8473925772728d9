// Disks and the layers over them, with what is written on each, read by us.
import type { DiskContent, Signature } from "../../../protocol/disk-content.ts";
import type { InventoryDisk, Layer } from "../../../protocol/inventory-devices.ts";
import { linksByTarget } from "../disk-uses.ts";
import type { ListedDisk } from "../disks.ts";
import type { Facts } from "../facts.ts";
import { parseSwaps } from "../mounts.ts";
import { findSignatures, probeDisk } from "../signatures/probe.ts";
import { type Spot, spotsOf, stretchesOf } from "../signatures/spots.ts";
import { createPatience, type Patience, reasonOf } from "./device-reader.ts";
import { kernelNameOf, readDetail, readMounts } from "./disk-detail.ts";
import { layerNames, readLayer } from "./layers.ts";
import { bounded, type Groups, type Source, type SourceContext } from "./source.ts";

const disksMax = 256;
const layersMax = 256;
const exclusionsMax = 256;
/** A disk that spins up takes some seconds; one that is broken takes for ever. */
const deviceMs = 4000;
const atOnce = 3;

export const storage: Source<Groups["storage"]> = {
  sources: [
    "/sys/block/*/{dev,size,ro,removable,hidden,diskseq,wwid,queue/*,holders,slaves,integrity,nsid,uuid,nguid,eui}",
    "/sys/block/*/device/{model,vendor,rev,serial,firmware_rev,state,wwid,vpd_pg80,vpd_pg83,vpd_pgb1,subsysnqn}",
    "/sys/block/*/{dm,md,loop}/*",
    "/proc/self/mountinfo",
    "/proc/swaps",
    "/dev/disk/{by-id,by-path}",
    "/run/udev/data/b*",
    "the devices themselves, about 250 KiB of each disk and partition",
  ],
  async collect(context) {
    const { facts, note, signal } = context;
    const listing = context.listDisks(facts);
    const mounts = readMounts(facts);
    const swaps = parseSwaps(facts.optionalText("/proc/swaps") ?? "");
    const byPath = linksByTarget(facts, "/dev/disk/by-path");
    const patience = createPatience(context.clock, deviceMs, signal);
    const listed = bounded(listing.disks, disksMax, "disks", note);
    const disks = await eachAtOnce(listed, async (disk): Promise<InventoryDisk> => {
      const detail = readDetail(facts, disk, { mounts, byPath });
      const content = await readContent(disk, context, patience);
      return { ...disk.disk, detail: { ...detail, ...content } };
    });
    const names = bounded(layerNames(facts), layersMax, "layers", note);
    const layers = await eachAtOnce(names, async (name): Promise<Layer> => {
      const layer = readLayer(facts, name, { mounts, swaps });
      // What lies on a multipath device stands with its disk.
      const signatures =
        layer.kind === "multipath" ? [] : await readSignatures(name, layer, context, patience);
      return { ...layer, signatures };
    });
    const others = listing.excluded.filter(({ reason }) => reason !== "a loop device with no file behind it");
    return {
      disks,
      layers,
      notDisks: bounded(others, exclusionsMax, "devices that are no disks", note).map(
        ({ path, sizeBytes, reason }) => ({
          path,
          sizeBytes,
          reason,
        }),
      ),
    };
  },
  absent: { disks: [], notDisks: [], layers: [] },
};

interface ReadContent {
  readonly content: DiskContent | null;
  readonly contentError: string | null;
}

/** Never throws but for the operation's own end. */
async function readContent(
  { disk, number }: ListedDisk,
  { facts, devices, note, signal }: SourceContext,
  patience: Patience,
): Promise<ReadContent> {
  const asleep = sleeping(facts, kernelNameOf(disk.path));
  if (asleep !== null) return { content: null, contentError: asleep };
  try {
    const content = await patience.within(disk.path, async (within) => {
      await using device = await devices.open({ path: disk.path, number });
      return await probeDisk({
        sizeBytes: disk.sizeBytes,
        sectorBytes: disk.logicalSectorBytes,
        read: (stretch) => device.read(stretch),
        signal: within,
      });
    });
    return { content, contentError: null };
  } catch (error) {
    signal.throwIfAborted();
    note(`${disk.path}: ${reasonOf(error)}`);
    return { content: null, contentError: reasonOf(error) };
  }
}

/** Of the layer as a whole: partitions of it, where it has any, are layers themselves. */
async function readSignatures(
  name: string,
  { path, sizeBytes }: Pick<Layer, "path" | "sizeBytes">,
  { facts, devices, note, signal }: SourceContext,
  patience: Patience,
): Promise<Signature[]> {
  // What is read of a suspended device waits until it is resumed.
  if (sizeBytes === 0 || facts.optionalText(`/sys/block/${name}/dm/suspended`) === "1") return [];
  try {
    return await patience.within(path, async (within) => {
      await using device = await devices.open({ path, number: facts.optionalText(`/sys/block/${name}/dev`) });
      const spots: Spot[] = [];
      for (const { offset, length } of stretchesOf(sizeBytes, "part")) {
        within.throwIfAborted();
        spots.push({ offset, bytes: await device.read({ offset, length }) });
      }
      return findSignatures(spotsOf(sizeBytes, spots), 0);
    });
  } catch (error) {
    signal.throwIfAborted();
    note(`${path}: ${reasonOf(error)}`);
    return [];
  }
}

/** Looking at a disk is no reason to wake it. */
function sleeping(facts: Facts, name: string): string | null {
  const status = facts.optionalText(`/sys/block/${name}/device/power/runtime_status`);
  return status === "suspended" ? "it sleeps and was not woken" : null;
}

/** In order, a few at a time. */
async function eachAtOnce<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async () => {
    for (let index = next++; index < items.length; index = next++) results[index] = await work(items[index]!);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  return results;
}
