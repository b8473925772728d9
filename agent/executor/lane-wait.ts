// Waiting for the lane: how long an operation has waited, across executors and reboots, and whose turn it is.
import { assert, BedplateError } from "../../protocol/errors.ts";
import type { Notes } from "../commands/command.ts";
import type { Facts } from "../devices/facts.ts";
import { bootIdOf } from "../devices/system.ts";
import type { Clock } from "../host/clock.ts";
import { takeLane } from "./lane.ts";

/** The machine's own time: it counts from boot, also asleep, and no clock that is set moves it. */
export interface BootTime {
  readonly bootId: string;
  readonly uptimeMs: number;
}

/** What an operation remembers of its waiting. */
export interface WaitNote extends BootTime {
  /** Waited by then. */
  readonly waitedMs: number;
}

export function waitedMs(note: WaitNote | undefined, now: BootTime): number {
  if (note === undefined) return 0;
  // After a reboot: at least since it. What went between the last note and the reboot was at most a note's interval.
  const since = note.bootId === now.bootId ? now.uptimeMs - note.uptimeMs : now.uptimeMs;
  return note.waitedMs + Math.max(0, since);
}

export function bootTimeOf(facts: Facts): BootTime {
  const uptime = /^\d+(\.\d+)?/.exec(facts.text("/proc/uptime") ?? "")?.[0] ?? "0";
  return { bootId: bootIdOf(facts), uptimeMs: Math.round(Number(uptime) * 1000) };
}

export interface LaneWait {
  readonly directory: string;
  /** Of this operation. */
  readonly notes: Notes;
  readonly startWithinSeconds: number | undefined;
  readonly clock: Clock;
  readonly now: () => BootTime;
  /** Whether an operation that was accepted earlier still waits. */
  readonly othersFirst: () => Promise<boolean>;
}

const pollMs = 250;
const noteEveryMs = 5000;
const noteName = "lane-wait";

/**
 * Takes the lane when it is free and nobody else's turn.
 * @throws `command.expired` when that took longer than the command allows; the signal's reason
 */
export async function awaitLane(wait: LaneWait, signal: AbortSignal): Promise<Disposable> {
  const { directory, notes, startWithinSeconds, clock, now } = wait;
  let noted = readNote(notes);
  if (noted === undefined) {
    noted = { ...now(), waitedMs: 0 };
    writeNote(notes, noted);
  }
  for (;;) {
    signal.throwIfAborted();
    if (!(await wait.othersFirst())) {
      const lane = takeLane(directory);
      if (lane !== "busy") return lane;
    }
    const at = now();
    const waited = waitedMs(noted, at);
    if (startWithinSeconds !== undefined && waited > startWithinSeconds * 1000) {
      throw new BedplateError(
        "command.expired",
        `Another operation was changing this host's state for longer than the ${startWithinSeconds} s within which the command was to start.`,
        { details: { waitedSeconds: Math.round(waited / 1000), startWithinSeconds } },
      );
    }
    if (waited - noted.waitedMs >= noteEveryMs || at.bootId !== noted.bootId) {
      noted = { ...at, waitedMs: waited };
      writeNote(notes, noted);
    }
    await clock.sleep(pollMs, signal);
  }
}

function readNote(notes: Notes): WaitNote | undefined {
  const bytes = notes.get(noteName);
  if (bytes === undefined) return undefined;
  const note = JSON.parse(Buffer.from(bytes).toString("utf8")) as WaitNote;
  assert(typeof note.waitedMs === "number" && typeof note.bootId === "string", "a note is what was noted");
  return note;
}

function writeNote(notes: Notes, note: WaitNote): void {
  notes.set({ [noteName]: Buffer.from(JSON.stringify(note)) });
}
