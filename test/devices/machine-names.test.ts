// The names that a plan binds a command to, as firmware and kernel give them.
import { expect, test } from "vitest";
import { createFacts } from "../../agent/devices/facts.ts";
import { readMachineNames } from "../../agent/devices/machine-names.ts";
import type { Files } from "../../agent/host/files.ts";

const namesOf = (files: Record<string, string>) =>
  readMachineNames(
    createFacts({
      readBytes(path: string) {
        const text = files[path.split("/").at(-1)!];
        if (text === undefined) throw Object.assign(new Error(), { code: "ENOENT" });
        return Buffer.from(text);
      },
    } as unknown as Files),
  );

test.each<[Record<string, string>, string | null]>([
  [{ chassis_serial: "CN7016\n", product_serial: "P1" }, "CN7016"],
  [{ chassis_serial: "To Be Filled By O.E.M.\n", product_serial: "P1\n" }, "P1"],
  [{ chassis_serial: "Default string", product_serial: "0000000000" }, null],
  [{ chassis_serial: " ", product_serial: "Not Specified" }, null],
  [{ product_serial: "System Serial Number" }, null],
  [{ product_serial: "y".repeat(300) }, "y".repeat(255)],
  [{}, null],
])("%j: %j", (files, serial) => {
  expect(namesOf({ ...files, hostname: "web-1\n" })).toEqual({ hostname: "web-1", chassisSerial: serial });
});
