// Directories of a host's own over the machine's: whatever writes there never writes to the machine's.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { openPrivateHost, type PrivateHost } from "../../cli/demo/private-host.ts";

const target = "/run/bedplate";
const isRoot = process.geteuid?.() === 0;
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-mounts-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function openHost(name: string): Promise<{ host: PrivateHost; source: string }> {
  const source = join(directory, name);
  mkdirSync(source);
  const host = await openPrivateHost([{ source, target }]);
  if (typeof host === "string") throw new Error(host);
  return { host, source };
}

/** Like an executor it is in a session of its own, and has let go of what its parent had open; it makes the file all the time. */
function startWriter(host: PrivateHost, name: string): void {
  const script =
    'exec 9<&-; setsid sh -c "while :; do mkdir -p $0; : > $0/$1; sleep 0.01; done" "$0" "$1" & exit 0';
  const [program, ...rest] = host.wrap(["sh", "-c", script, target, name]);
  spawn(program, rest, { stdio: "ignore", env: { PATH: process.env.PATH } });
}

describe.runIf(isRoot)("a private host", () => {
  test("ends what still writes there before its mounts are taken away", async () => {
    const { host, source } = await openHost("first");
    const name = `${basename(directory)}-first`;
    startWriter(host, name);
    await vi.waitFor(() => expect(existsSync(join(source, name))).toBe(true), { timeout: 30_000 });
    await host[Symbol.asyncDispose]();
    rmSync(join(source, name));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(existsSync(join(source, name))).toBe(false);
    expect(existsSync(join(target, name))).toBe(false);
  });

  test("keeps its mounts for whoever still runs there when another one closes", async () => {
    const { host, source } = await openHost("second");
    const name = `${basename(directory)}-second`;
    startWriter(host, name);
    await vi.waitFor(() => expect(existsSync(join(source, name))).toBe(true), { timeout: 30_000 });
    await (await openHost("other")).host[Symbol.asyncDispose]();
    rmSync(join(source, name));
    await vi.waitFor(() => expect(existsSync(join(source, name))).toBe(true), { timeout: 30_000 });
    expect(existsSync(join(target, name))).toBe(false);
    await host[Symbol.asyncDispose]();
  });
});
