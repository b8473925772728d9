// Directories that an executor makes: those above them too, with the mode that was asked for, and never in vain for ever.
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { systemFiles } from "../../agent/host/files.ts";

const directory = mkdtempSync(join(tmpdir(), "bp-files-"));
afterAll(() => rmSync(directory, { recursive: true }));

test("directories are made with all that is missing above them; those that are there stay as they are", () => {
  const path = join(directory, "a/b/c");
  systemFiles.makeDirectory(path, 0o750);
  expect(statSync(path).mode & 0o777).toBe(0o750);
  systemFiles.makeDirectory(path, 0o700);
  expect(statSync(path).mode & 0o777).toBe(0o750);
});

test("below a file or a name that leads nowhere it fails at once", () => {
  writeFileSync(join(directory, "file"), "");
  expect(() => systemFiles.makeDirectory(join(directory, "file"), 0o700)).toThrow("EEXIST");
  expect(() => systemFiles.makeDirectory(join(directory, "file/in"), 0o700)).toThrow("ENOTDIR");
  expect(() => systemFiles.makeDirectory("/proc/self/none/in", 0o700)).toThrow("ENOENT");
});
