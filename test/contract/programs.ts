// What the suites of the contract work with: processes of the built program, a directory for them, and its end.
import { spawnSync } from "node:child_process";
import { cpSync, globSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { killAll, processMark } from "../../cli/demo/processes.ts";

export {
  builtExecutor,
  builtProgram,
  eventually,
  memoryOf,
  node,
  type Program,
  type ProgramOptions,
  startProgram,
} from "../../bench/processes.ts";

export interface Directory extends AsyncDisposable {
  readonly path: string;
}

/** A temporary directory. Whatever still runs with something of it mounted is killed before it goes; its logs are kept. */
export async function openDirectory(name: string): Promise<Directory> {
  const path = await mkdtemp(join(tmpdir(), `bedplate-${name}-`));
  return {
    path,
    async [Symbol.asyncDispose]() {
      const left = mountedUnder(path).map(processMark);
      await killAll(
        left.filter((mark) => mark !== undefined),
        5000,
      );
      keepLogs(path);
      await rm(path, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** For whoever started the suite, who shows them when it has failed. */
function keepLogs(directory: string): void {
  const { BEDPLATE_LOGS: kept } = process.env;
  if (kept === undefined) return;
  for (const log of globSync("{*,*/*}.log", { cwd: directory }))
    cpSync(join(directory, log), join(kept, basename(directory), log));
}

/** A host's own agent and executors: they see a directory under `path` in another place, or are told of it. */
export function mountedUnder(path: string): number[] {
  const short = `${path.replace(/^\/tmp/, "")}/`;
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`${path}/`)) return true;
        // proc(5), mountinfo: the fourth word is what of its file system is mounted. Where, others may see too.
        const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n");
        return mounts.some((line) => `${line.split(" ")[3] ?? ""}/`.includes(short));
      } catch {
        return false;
      }
    })
    .map(Number);
}

export function killIfAlive(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended by itself.
  }
}

export function hasProgram(...names: readonly string[]): boolean {
  return names.every((name) => spawnSync("sh", ["-c", `command -v ${name}`]).status === 0);
}
