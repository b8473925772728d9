// For tests that start agents as root: directories of the test's own where the executor's fixed ones are.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { openPrivateHost } from "../../cli/demo/private-host.ts";

export interface PrivateRoot extends AsyncDisposable {
  /** The command line that runs `argv` there, keeping its process id. */
  wrap(argv: readonly [string, ...string[]]): readonly [string, ...string[]];
}

const fixed = { etc: "/etc/bedplate", var: "/var/lib/bedplate", run: "/run/bedplate" } as const;

/** Not as root commands run as they are: the executor's directories are then the agent's. @throws where root may not mount */
export async function openPrivateRoot(directory: string): Promise<PrivateRoot> {
  if (process.geteuid?.() !== 0) return { wrap: (argv) => argv, [Symbol.asyncDispose]: async () => {} };
  const mounts = Object.entries(fixed).map(([part, target]) => {
    const source = join(directory, "root", part);
    mkdirSync(source, { recursive: true, mode: 0o700 });
    return { source, target };
  });
  const host = await openPrivateHost(mounts);
  if (typeof host === "string") throw new Error(`as root these tests need private mounts: ${host}`);
  return host;
}
