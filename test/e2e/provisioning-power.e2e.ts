// Power cuts at every moment of a deploy over another system that boots: what is left boots nothing, or the whole image.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createLots } from "../contract/mutations.ts";
import { hasProgram } from "../contract/programs.ts";
import { deployed, faultsOfFinished, onLoop, openHost } from "../provisioning/deploys.ts";
import { mirrorAuthority, openMirror } from "../provisioning/mirror.ts";
import { cutPower } from "../provisioning/power-cut.ts";
import { lackForRecording, openRecordingDisk } from "../provisioning/recording-disk.ts";
import { makeSystem } from "../provisioning/systems.ts";
import { seed } from "../support/budget.ts";

const mib = 1 << 20;

const recordingLack = lackForRecording();
if (recordingLack !== undefined) console.warn(`skipped: ${recordingLack}`);

describe.skipIf(recordingLack !== undefined)("every write and flush known", () => {
  test.each([
    ["an image smaller than the disk", 12 * mib, 16 * mib],
    ["an image as large as the disk, its backup table at the disk's end", 12 * mib, 12 * mib],
    ["an image that ends within the disk's last MiB", 12 * mib - 8192, 12 * mib],
  ])("%s", async (_, imageBytes, diskBytes) => {
    console.log(`BEDPLATE_SEED=${seed}`);
    await using host = await openHost();
    const ca = await mirrorAuthority();
    const image = await makeSystem({ sizeBytes: imageBytes, zeroGroups: [3] });
    await using from = await openMirror(image, { layout: "frames", scheme: "https" });
    const directory = join(host.directory, "recording");
    mkdirSync(directory);
    await using recording = await openRecordingDisk(directory, { sizeBytes: diskBytes });
    const { disk } = recording;
    await host.allow(disk);
    const { result } = await deployed(host, {
      image,
      disk: onLoop(disk),
      offer: { ca, sources: [from.source] },
    });
    expect(result).toMatchObject({ outcome: "succeeded" });
    expect(faultsOfFinished(disk.bytes(), image.bytes, disk.old)).toEqual([]);
    const file = join(host.directory, "state.img");
    let looked = 0;
    let seen = 0;
    const { states, faults } = cutPower(await recording.log(), {
      ...{ old: disk.old, image: image.bytes, lots: createLots(seed), drawn: 48 },
      onState(state, verdict) {
        seen++;
        if (verdict !== "boots nothing" || seen % 29 !== 0) return;
        expect(foundByOthers(file, state)).toEqual([]);
        looked++;
      },
    });
    console.log(`power cuts: ${JSON.stringify(states)}, ${looked} looked at by other programs`);
    expect(faults).toEqual([]);
    expect(states["boots nothing"]).toBeGreaterThan(100);
    expect(states["new, whole"]).toBeGreaterThan(0);
  });
});

/** What it says where it finds no table of either kind, and where the entries of the one it found are not what its header says. */
const noTable =
  /^(Creating new GPT entries in memory\.|Caution! After loading partitions, the CRC doesn't check out!)/;

/** What programs that are not ours take the state for. */
function foundByOthers(file: string, state: Buffer): string[] {
  const found: string[] = [];
  // Of two torn copies sgdisk shows one: it is asked about each without the other.
  for (const header of hasProgram("sgdisk") ? [512, state.length - 512] : []) {
    const alone = Buffer.from(state);
    alone.fill(0, header, header + 512);
    writeFileSync(file, alone);
    const { stdout } = spawnSync("sgdisk", ["-v", file], { encoding: "utf8" });
    if (!noTable.test(stdout)) found.push(stdout);
  }
  writeFileSync(file, state);
  if (hasProgram("blkid")) {
    const { stdout } = spawnSync("blkid", ["-p", "-o", "export", file], { encoding: "utf8" });
    if (/^(PT)?TYPE=/m.test(stdout)) found.push(stdout);
  }
  return found;
}
