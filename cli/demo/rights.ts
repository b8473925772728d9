// With which rights the demo's agent runs, and where its host's policy, state and run directories lie.
import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";
import { programArguments } from "./children.ts";
import { openPrivateHost } from "./private-host.ts";

export interface AgentRights extends AsyncDisposable {
  /**
   * private-mounts: root, with directories of the demo over the fixed paths, in a mount namespace of its own.
   * other-user: we are root but may not do that, so the agent is nobody. own-user: we are no root.
   */
  readonly kind: "private-mounts" | "other-user" | "own-user";
  /** Why it is not private-mounts though we are root. */
  readonly reason: string | undefined;
  readonly paths: HostPaths;
  /** The command line that runs `argv` with these rights. */
  wrap(argv: readonly [string, ...string[]]): readonly [string, ...string[]];
}

/** Where the demo makes the directories; with private mounts the agent sees the last three at the fixed paths. */
export interface HostPaths {
  readonly agentState: string;
  readonly policyDirectory: string;
  readonly executorState: string;
  readonly runDirectory: string;
}

export async function chooseRights(home: string): Promise<AgentRights> {
  const paths: HostPaths = {
    agentState: join(home, "agent"),
    policyDirectory: join(home, "etc"),
    executorState: join(home, "var/executor"),
    runDirectory: join(home, "run"),
  };
  const plainly = async (kind: "other-user" | "own-user", reason?: string): Promise<AgentRights> => {
    const run = await shortEnough(paths.runDirectory);
    return {
      kind,
      reason,
      paths: { ...paths, runDirectory: run.path },
      wrap: (argv) => argv,
      [Symbol.asyncDispose]: () => run[Symbol.asyncDispose](),
    };
  };
  if (process.geteuid?.() !== 0) return await plainly("own-user");
  const host = await openPrivateHost([
    { source: paths.policyDirectory, target: "/etc/bedplate" },
    { source: join(home, "var"), target: "/var/lib/bedplate" },
    { source: paths.runDirectory, target: "/run/bedplate" },
  ]);
  if (typeof host === "string") {
    requireReachable();
    return await plainly("other-user", host);
  }
  return {
    kind: "private-mounts",
    reason: undefined,
    paths,
    wrap: host.wrap,
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

/** The user that the agent runs as where root may not give it mounts of its own. */
export const nobody = 65_534;

/** @throws `demo.failed` when that user cannot run this very program */
function requireReachable(): void {
  const [node, program] = programArguments();
  const script = "require('node:fs').accessSync(process.argv[1])";
  const { status } = spawnSync(node, ["-e", script, program], {
    uid: nobody,
    gid: nobody,
    cwd: "/",
    stdio: "ignore",
  });
  if (status === 0) return;
  throw new BedplateError(
    "demo.failed",
    `This root may not mount, so the agent would run as user ${nobody}, who cannot reach ${program}.`,
    {
      hint: "Put the checkout where everyone may read it, such as /opt, or run the demo as an ordinary user.",
    },
  );
}

/** unix(7): 108 bytes with the closing zero. */
const socketPathBytesMax = 107;
const longestSocket = "/operations/01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90.sock";

/** Sockets have short names only: where TMPDIR is deep, their directory lies in /tmp. */
async function shortEnough(path: string): Promise<AsyncDisposable & { readonly path: string }> {
  if (Buffer.byteLength(path + longestSocket) <= socketPathBytesMax)
    return { path, [Symbol.asyncDispose]: async () => {} };
  const short = await mkdtemp("/tmp/bedplate-demo-");
  return { path: short, [Symbol.asyncDispose]: () => rm(short, { recursive: true, force: true }) };
}
