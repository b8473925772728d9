// Groups that a disk gives back wrong: noted by the workers as they find them, told with where they lie on the disk.
import { hex } from "../../protocol/bytes.ts";
import type { WrongGroup } from "../../protocol/commands.ts";
import { digestBytes, groupBytes, wrongGroupsMax } from "../../protocol/groups.ts";
import { digestOf, extentOf, type ImageJob, type SharedImage, slots } from "./image-job.ts";

type Image = Pick<ImageJob, "shared" | "sizeBytes" | "sectorBytes">;

/** @param found its digest, read twice */
export function noteWrong(
  { control, wrong, wrongFound }: SharedImage,
  group: number,
  found: Uint8Array,
): void {
  const at = Atomics.add(control, slots.wrong, 1);
  if (at >= wrongGroupsMax) return;
  Atomics.store(wrong, at, group);
  wrongFound.set(found, at * digestBytes);
}

export function wrongCount({ control }: SharedImage): number {
  return Atomics.load(control, slots.wrong);
}

/** Those that are noted, in the order of the disk. Only when no worker runs. */
export function wrongGroups({ shared, ...image }: Image): WrongGroup[] {
  const count = Math.min(wrongCount(shared), wrongGroupsMax);
  return Array.from({ length: count }, (_, at) => {
    const group = shared.wrong[at]!;
    const found = shared.wrongFound.slice(at * digestBytes, (at + 1) * digestBytes);
    return wrongGroup({ shared, ...image }, group, found);
  }).sort((a, b) => a.group - b.group);
}

export function wrongGroup(image: Image, group: number, found: Uint8Array): WrongGroup {
  const { padded } = extentOf(image, group);
  const offset = group * groupBytes;
  return {
    group,
    offset,
    lba: offset / image.sectorBytes,
    blocks: padded / image.sectorBytes,
    expected: hex(digestOf(image.shared, group)),
    found: hex(found),
  };
}

/** Of logs and errors: the place as every tool for disks counts it first. */
export function describeWrong({ group, offset, lba, blocks, expected, found }: WrongGroup): string {
  return `LBA ${lba} to ${lba + blocks - 1} (group ${group}, from byte ${offset}) reads as ${found}, not ${expected}`;
}
