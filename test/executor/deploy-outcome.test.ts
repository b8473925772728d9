// What may mend a failure, and what an override is bound to: decisions that keep a disk from being called right without proof.
import { expect, test } from "vitest";
import type { Notes } from "../../agent/commands/command.ts";
import { deployDisks, endOf } from "../../agent/commands/deploy-disks.ts";
import { mayMend } from "../../agent/commands/deploy-outcome.ts";
import { readFully, syncDisk } from "../../agent/devices/direct-file.ts";
import { contentDigest, requireSameContent } from "../../agent/devices/fingerprint.ts";
import type { DeployArguments } from "../../protocol/commands.ts";
import type { DiskContent } from "../../protocol/disk-content.ts";
import type { Fingerprint } from "../../protocol/disks.ts";
import { BedplateError } from "../../protocol/errors.ts";

const failureOf = (work: Promise<void>) => work.then(() => undefined).catch((error: unknown) => error);

test("a disk that could not be read is tried again, one that could not be synced is not: what it lost reads right", async () => {
  const closed = { path: "/dev/none", fd: 2 ** 20, direct: true };
  const unread = await failureOf(readFully(closed, new Uint8Array(512), 0));
  const unsynced = await failureOf(syncDisk(closed, "data"));
  expect([unread, unsynced]).toMatchObject([{ code: "disk.io" }, { code: "disk.io" }]);
  expect([mayMend(unread), mayMend(unsynced)]).toEqual([true, false]);
});

test("an override holds for what the plan says was found, never for what it does not say", async () => {
  const content = { signatures: [], partitions: [], errors: [] } as unknown as DiskContent;
  const without = {} as Fingerprint;
  const refused = { code: "plan.changed", details: { changed: [{ field: "content" }] } };
  await requireSameContent(without, content, false);
  await expect(requireSameContent(without, content, true)).rejects.toMatchObject(refused);
  const planned = { content: await contentDigest(content) } as Fingerprint;
  await requireSameContent(planned, content, true);
  const other = { ...content, errors: ["other"] } as unknown as DiskContent;
  await expect(requireSameContent(planned, other, false)).rejects.toMatchObject(refused);
});

test.each([
  ["command.cancelled", "cancelled"],
  ["command.timed-out", "timed-out"],
] as const)(
  "%s before a disk that an earlier run had begun was taken up again: it is told as %s",
  (code, outcome) => {
    const disks = [{ disk: { serial: "A" } }, { disk: { serial: "B" } }] as unknown as [
      DeployArguments,
      never,
    ];
    const notes: Notes = { get: (name) => (name === "began" ? new Uint8Array([1]) : undefined), set() {} };
    const stopped = new AbortController();
    stopped.abort(new BedplateError(code, "Stopped."));
    const end = endOf(deployDisks({ ...disks[0], also: [disks[1]] }, notes), stopped.signal);
    expect(end).toMatchObject({ output: { outcome, also: [{ outcome: "untouched" }] }, error: { code } });
  },
);
