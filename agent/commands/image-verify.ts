// image.verify: reads the disk and compares it with the image. Changes nothing, and so needs no policy.
import { compileKernel } from "../../assembly/index.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { paddedBytes } from "../../protocol/groups.ts";
import { awaitDisk } from "../devices/await-disk.ts";
import { startImageWorkers } from "../devices/image-run.ts";
import { openSources } from "../devices/open-sources.ts";
import { verifyImage } from "../devices/verify-image.ts";
import { describeWrong } from "../devices/wrong-groups.ts";
import type { Command } from "./command.ts";
import { fetchCheckedManifest, openForReading } from "./image-checks.ts";

export const imageVerify: Command<"image.verify"> = {
  async run({ arguments: { image, disk: selector, waitSeconds = 0, limits } }, context, signal) {
    const { host } = context;
    const { disk } = await awaitDisk({
      selector,
      waitSeconds,
      list: () => context.disks(host.facts()),
      clock: host.clock,
      signal,
    });
    // Before they are needed: they take a while to start.
    await using workers = startImageWorkers({ kernel: await compileKernel() });
    using sources = openSources(context.sources, context.policy.imageSources);
    const manifest = await fetchCheckedManifest(image, sources, context, signal);
    const needed = paddedBytes(manifest.sizeBytes, disk.logicalSectorBytes);
    if (needed > disk.sizeBytes) {
      throw new BedplateError(
        "disk.too-small",
        `The image needs ${needed} bytes; ${disk.path} has ${disk.sizeBytes}: it cannot hold it.`,
      );
    }
    const { open } = await openForReading(disk);
    await using _closing = open;
    const output = await verifyImage({
      manifest,
      open,
      sectorBytes: disk.logicalSectorBytes,
      bytesPerSecondMax: limits?.bytesPerSecondMax,
      workers,
      clock: host.clock,
      signal,
      pause: context.pause,
      phase: (name, total, done) => context.phase({ name, total, unit: "bytes", done }),
    });
    if (output.matches) return { output };
    for (const wrong of output.wrong ?? []) context.log(`${disk.path}: ${describeWrong(wrong)}`);
    const named = output.wrong
      ?.slice(0, 8)
      .map(({ lba, group }) => `group ${group} at LBA ${lba}`)
      .join(", ");
    const error = new BedplateError(
      "disk.readback-mismatch",
      `${disk.path} does not hold the image: ${output.wrongGroupCount} of ${output.groups} groups differ (${named}${output.wrongGroupCount > 8 ? ", …" : ""}).`,
      {
        details: {
          root: output.root,
          expectedRoot: output.expectedRoot,
          wrongGroups: output.wrongGroups,
          wrongGroupCount: output.wrongGroupCount,
          wrong: output.wrong,
        },
      },
    );
    return { output, error };
  },
};
