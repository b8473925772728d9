// The epoch that a host remembers: durable, never lower, and one warning for each controller that was set back.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openStateDirectory } from "../../agent/host/state-directory.ts";
import { createEpochMemory } from "../../agent/link/epoch.ts";

let directory: string;
let warnings: object[];
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "bedplate-epoch-")), "state");
  warnings = [];
});
afterEach(() => rmSync(join(directory, ".."), { recursive: true }));
const open = () =>
  createEpochMemory(openStateDirectory(directory), { warn: (facts) => warnings.push(facts) });

test("a higher epoch is remembered over restarts, a lower one is warned of once", () => {
  const first = open();
  for (const epoch of [1, 1, 3]) first.seen(epoch);
  expect(warnings).toEqual([]);
  const later = open();
  for (const epoch of [2, 2, 2, 3, 2]) later.seen(epoch);
  expect(warnings).toEqual([{ code: "link.stale-epoch", epoch: 2, epochSeen: 3 }]);
  later.seen(1);
  expect(warnings).toHaveLength(2);
  later.seen(4);
  open().seen(3);
  expect(warnings.at(-1)).toMatchObject({ epoch: 3, epochSeen: 4 });
});

test("a file that holds no epoch counts as nothing seen", () => {
  for (const text of ["", "many", "-4", "1e99", "1.5"]) {
    openStateDirectory(directory).write("controller-epoch", Buffer.from(text));
    open().seen(1);
  }
  expect(warnings).toEqual([]);
});
