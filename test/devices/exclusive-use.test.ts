// Whether somebody has a device for himself: a real loop device, really held.
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isHeldByAnother } from "../../agent/devices/exclusive-use.ts";
import type { Clock } from "../../agent/host/clock.ts";
import { lackForLoops, openLoopDisk } from "../provisioning/loop-disk.ts";

const { signal } = new AbortController();

test.skipIf(lackForLoops() !== undefined)(
  "whoever only asks does not hold it; whoever holds it does, however often one asks",
  async () => {
    const directory = mkdtempSync(join(tmpdir(), "bp-exclusive-"));
    try {
      using loop = openLoopDisk({ backing: join(directory, "loop.img"), sizeBytes: 1 << 20 });
      const hold = () => openSync(loop.path, constants.O_RDONLY | constants.O_EXCL);
      let held = hold();
      let pauses = 0;
      /** Another one who asks gives it back while this one waits. */
      const clock = {
        sleep: async () => {
          if (pauses++ === 0) closeSync(held);
        },
      } as unknown as Clock;
      expect(await isHeldByAnother(loop.path, clock, signal)).toBe(false);
      expect(pauses).toBe(1);
      held = hold();
      expect(await isHeldByAnother(loop.path, clock, signal)).toBe(true);
      closeSync(held);
      expect(await isHeldByAnother(loop.path, clock, signal)).toBe(false);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);
