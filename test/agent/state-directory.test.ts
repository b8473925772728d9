// The agent's own directory: a file in it is the old one or the new one, never a part.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openStateDirectory } from "../../agent/host/state-directory.ts";

const usable = spawnSync("prlimit", ["--version"]).status === 0;

test.skipIf(!usable)("a disk that takes a part of a file and then no more leaves the old file", () => {
  const base = mkdtempSync(join(tmpdir(), "bedplate-state-"));
  try {
    const directory = join(base, "state");
    const state = openStateDirectory(directory);
    state.write("pins", Buffer.from("old"));
    const module = new URL("../../agent/host/state-directory.ts", import.meta.url).href;
    const program = `
      const { openStateDirectory } = await import(${JSON.stringify(module)});
      openStateDirectory(${JSON.stringify(directory)}).write("pins", new Uint8Array(8192));`;
    // Writes up to the limit are cut short; the next one is refused, or ends the process.
    const argv = ["--fsize=5000", process.execPath, "--input-type=module", "--eval", program];
    expect(spawnSync("prlimit", argv).status).not.toBe(0);
    expect(Buffer.from(state.read("pins")!).toString()).toBe("old");
  } finally {
    rmSync(base, { recursive: true });
  }
});
