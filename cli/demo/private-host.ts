// As root the executor's paths are fixed. This gives a process other directories there, in a mount namespace of its own:
// the machine's own policy and state are neither seen nor touched.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { killAll, processesThatSee } from "./processes.ts";

export interface PrivateMount {
  /** A directory that exists when a wrapped command starts. */
  readonly source: string;
  /** Made on the machine as a mount point if missing, and removed again. */
  readonly target: string;
}

/** Disposed of, it ends whatever still runs there, executors that outlive their agent as well. */
export interface PrivateHost extends AsyncDisposable {
  /** The command line that runs `argv`, keeping its process id, with the sources over the targets. */
  wrap(argv: readonly [string, ...string[]]): readonly [string, ...string[]];
}

type Argv = readonly [string, ...string[]];

/** Mount points that were made and are to be removed. In /run: a reboot forgets them. */
const madeList = "/run/bedplate-private-host.made";

// Removing a directory detaches what is mounted there in other namespaces, and who lives on in one writes to the machine's
// own from then on. So nobody removes while another uses: hosts and their first processes hold a shared lock on /run for
// their life, through descriptor 9, and the remover needs it alone. A first process does not pass it on to its children.
const hold = `
exec 9< /run
flock --shared 9
echo held
read -r _
`;

const enter = `
set -e
exec 9< /run
flock --shared 9
while [ "$1" != -- ]; do
  path=
  IFS=/
  for part in \${2#/}; do
    path="$path/$part"
    if [ ! -d "$path" ] && mkdir -m 755 "$path" 2> /dev/null; then echo "$path" >> ${madeList}; fi
  done
  unset IFS
  mount --bind "$1" "$2"
  shift 2
done
shift
exec "$@"
`;

const leave = `
[ -f ${madeList} ] || exit 0
tac ${madeList} | while IFS= read -r path; do rmdir "$path" 2> /dev/null || true; done
rm -f ${madeList}
`;

/** Undefined tools or rights give the reason as text. Needs root. */
export async function openPrivateHost(mounts: readonly PrivateMount[]): Promise<PrivateHost | string> {
  const wrap = (argv: Argv): Argv => [
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-c",
    enter,
    "sh",
    ...mounts.flatMap(({ source, target }) => [source, target]),
    "--",
    ...argv,
  ];
  try {
    // The lock's tool, the namespace and a bind mount in it: all are needed, and a container may refuse any.
    await run([
      "unshare",
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-c",
      "exec 9< /run && flock --shared 9 && mount --bind /run /run",
    ]);
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string };
    return `private mounts cannot be used here: ${(stderr?.trim() || message).split("\n").at(-1)}`;
  }
  const release = await holdShared();
  return {
    wrap,
    async [Symbol.asyncDispose]() {
      const ended = await endInside(mounts);
      await release();
      if (!ended) return;
      // Fails when another still uses them: the last one removes them.
      await run(["flock", "--exclusive", "--nonblock", "/run", "sh", "-c", leave]).catch(() => {});
    },
  };
}

/** Until it is released, or this process ends. */
async function holdShared(): Promise<() => Promise<void>> {
  const holder = spawn("sh", ["-c", hold], { stdio: ["pipe", "pipe", "ignore"] });
  const closed = once(holder, "close");
  await Promise.race([once(holder.stdout, "data"), closed]);
  return async () => {
    holder.stdin.end();
    await closed;
  };
}

const killMs = 5000;

/** False when something there cannot be killed. */
async function endInside(mounts: readonly PrivateMount[]): Promise<boolean> {
  // One that has begun another may be gone when that one is looked for: twice nobody is nobody.
  for (let [round, nobody] = [0, 0]; round < 10; round++) {
    const found = processesThatSee(mounts);
    nobody = found.length === 0 ? nobody + 1 : 0;
    if (nobody === 2) return true;
    await killAll(found, killMs);
  }
  return false;
}

async function run([program, ...rest]: Argv): Promise<void> {
  await promisify(execFile)(program, rest);
}
