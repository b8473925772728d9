// The file of known hosts: where it lies, that nobody else can write it, and that a change to it is whole or not at all.
import { constants } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";
import { sleep } from "../clock.ts";
import { type KnownHosts, knownHostsBytesMax, parseKnownHosts } from "./known-hosts.ts";

/** A change takes milliseconds; whoever holds the lock longer has died. */
const lockTriesMax = 50;
const lockPauseMs = 100;

export function knownHostsPath(
  given: string | undefined,
  environment: NodeJS.ProcessEnv = process.env,
): string {
  if (given !== undefined) return given;
  const configuration = environment.XDG_CONFIG_HOME || `${environment.HOME || homedir()}/.config`;
  return `${configuration}/bedplate/known_hosts`;
}

/**
 * A file that is not there knows no host.
 * @throws `state.unsafe` when others could change it, `config.unreadable`, `config.invalid`
 */
export async function readKnownHosts(path: string): Promise<KnownHosts> {
  return { path, hosts: parseKnownHosts(await textOfFile(path), path) };
}

/**
 * Replaces the file by what `change` makes of its text. Two at once follow each other.
 * @throws as `readKnownHosts`, and what `change` throws; the file is then as it was
 */
export async function changeKnownHosts(
  path: string,
  change: (text: string) => string | Promise<string>,
  signal: AbortSignal,
): Promise<void> {
  const next = `${path}.new`;
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await using file = await openAlone(next, signal);
    try {
      const text = await change(await textOfFile(path));
      parseKnownHosts(text, path);
      await file.writeFile(text);
      await file.sync();
      await rename(next, path);
    } catch (error) {
      await rm(next, { force: true });
      throw error;
    }
  } catch (cause) {
    if (cause instanceof BedplateError || signal.aborted) throw cause;
    throw new BedplateError(
      "file.unreadable",
      `${path} cannot be written: ${(cause as NodeJS.ErrnoException).code ?? String(cause)}.`,
      { cause },
    );
  }
}

/** The new file is the lock too: only one can make it. */
async function openAlone(path: string, signal: AbortSignal) {
  for (let tries = 0; ; tries++) {
    try {
      return await open(path, "wx", 0o600);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
      if (tries >= lockTriesMax) {
        throw new BedplateError(
          "state.in-use",
          `${path} is there: another change is under way, or was cut off.`,
          {
            hint: `If no other bedplate runs: rm ${path}`,
            cause,
          },
        );
      }
      await sleep(lockPauseMs, signal);
    }
  }
}

async function textOfFile(path: string): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY);
    const { mode, uid, size } = await file.stat();
    await requireOwn(path, { mode, uid });
    await requireOwn(dirname(path), await stat(dirname(path)));
    if (size > knownHostsBytesMax)
      throw new BedplateError("config.invalid", `${path} is larger than ${knownHostsBytesMax} bytes.`);
    return await file.readFile("utf8");
  } catch (cause) {
    if (cause instanceof BedplateError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT") return "";
    throw new BedplateError("config.unreadable", `${path} cannot be read: ${code ?? String(cause)}.`, {
      cause,
    });
  }
}

// Whoever can write here decides which plans are believed.
async function requireOwn(path: string, { mode, uid }: { mode: number; uid: number }): Promise<void> {
  const user = process.geteuid!();
  const sticky = (mode & 0o1000) !== 0;
  if ((uid === user || uid === 0) && ((mode & 0o022) === 0 || sticky)) return;
  throw new BedplateError(
    "state.unsafe",
    `${path} could be changed by others (user ${uid}, mode ${(mode & 0o7777).toString(8)}), so what it says of hosts is not trusted.`,
    { hint: `It must be yours and writable by you alone: chmod go-w ${path}` },
  );
}
