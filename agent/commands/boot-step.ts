// Leaving a boot as a journalled step: asked for once, never again, and over when the kernel's boot id is another one.
import type { RebootOutput } from "../../protocol/commands.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { Facts } from "../devices/facts.ts";
import { bootIdOf } from "../devices/system.ts";
import type { CommandContext, Notes } from "./command.ts";

/** Durable before the program that restarts or stops the host is run. */
export interface BootStep {
  readonly fromBootId: string;
  /** Of that boot: its clock goes on when an executor dies, and ends with it. */
  readonly askedUptimeSeconds: number;
  readonly deadlineSeconds: number;
  /** By the wall clock; a label. */
  readonly askedAt: number;
  /** Runs that have seen this step, the first one included. */
  readonly count: number;
}

export interface BootNow {
  readonly bootId: string;
  readonly uptimeSeconds: number;
}

/** What is to be done. A step that was noted is never asked for again, however often it is taken up. */
export function bootDuty(step: BootStep | undefined, now: BootNow): "ask" | "wait" | "left" | "late" {
  if (step === undefined) return "ask";
  if (now.bootId !== "" && now.bootId !== step.fromBootId) return "left";
  return now.uptimeSeconds - step.askedUptimeSeconds > step.deadlineSeconds ? "late" : "wait";
}

export interface Leaving {
  readonly to: "reboot" | "poweroff";
  readonly deadlineSeconds: number;
  readonly reason: string | undefined;
}

/** Until then a cancel is taken, and the agent can tell that it begins. */
const graceMs = 1000;
const pollMs = 500;
const programMs = 60_000;
const noteName = "boot";
const wordings = { reboot: "restarting", poweroff: "powering off" } as const;

export function planLeaving({ to, deadlineSeconds }: Leaving, { host }: CommandContext): object {
  const facts = host.facts();
  return { programs: programsFor(to, facts), ...requireBoot(facts), deadlineSeconds };
}

/** @throws `reboot.unavailable`, `reboot.not-seen` */
export async function leaveBoot(
  leaving: Leaving,
  context: CommandContext,
  signal: AbortSignal,
): Promise<RebootOutput> {
  const { host, notes } = context;
  const { to } = leaving;
  context.phase({ name: to, total: 0, unit: "items", done: () => 0 });
  let step = readStep(notes);
  if (step !== undefined) {
    step = { ...step, count: step.count + 1 };
    notes.set(noteOf(step));
    context.pointOfNoReturn(`the host was told before that it is ${wordings[to]}`);
  } else {
    requireBoot(host.facts());
    context.log(`${to}${leaving.reason === undefined ? "" : `: ${leaving.reason}`}`);
    await host.clock.sleep(graceMs, signal);
    await context.pause.safePoint();
    const { bootId, uptimeSeconds } = requireBoot(host.facts());
    step = {
      fromBootId: bootId,
      askedUptimeSeconds: uptimeSeconds,
      deadlineSeconds: leaving.deadlineSeconds,
      askedAt: host.clock.now(),
      count: 1,
    };
    // Together: a later run is past the point of no return, where no policy is asked any more, only if it asks no more either.
    context.pointOfNoReturn(`the host is ${wordings[to]}`, noteOf(step));
    await ask(to, context);
  }
  return waitForBoot(step, context, signal);
}

async function waitForBoot(
  step: BootStep,
  { host }: CommandContext,
  signal: AbortSignal,
): Promise<RebootOutput> {
  for (;;) {
    const now = bootNow(host.facts());
    switch (bootDuty(step, now)) {
      case "left": {
        const seconds = Math.max(0, (host.clock.now() - step.askedAt) / 1000);
        return { fromBootId: step.fromBootId, bootId: now.bootId, seconds };
      }
      case "late":
        throw new BedplateError(
          "reboot.not-seen",
          `${step.deadlineSeconds} s after the host was told to go down it is still in the same boot. It is not told again.`,
          {
            hint: "Look for what holds it: systemctl list-jobs, journalctl -b.",
            details: { fromBootId: step.fromBootId, deadlineSeconds: step.deadlineSeconds, runs: step.count },
          },
        );
      case "wait":
      case "ask":
        await host.clock.sleep(pollMs, signal);
    }
  }
}

/** Past the point of no return: the program is not ended when the executor is told to stop, which it may itself cause. */
async function ask(to: Leaving["to"], { host, log }: CommandContext): Promise<void> {
  const late = new BedplateError(
    "reboot.unavailable",
    `The program did not end within ${programMs / 1000} s.`,
  );
  using deadline = host.clock.deadline(programMs, new AbortController().signal, late);
  for (const argv of programsFor(to, host.facts())) {
    const end = await host.processes.run(argv, { signal: deadline });
    if (end === "missing") continue;
    // Ended by a signal: the host is going down, and the program with it.
    if (end.exitCode === 0 || end.exitCode === null) return log(`${argv.join(" ")}: asked`);
    const said = `${end.errors.trim()} ${end.output.trim()}`.trim().slice(0, 500);
    throw new BedplateError("reboot.unavailable", `${argv.join(" ")} ended with ${end.exitCode}: ${said}`, {
      details: { argv, exitCode: end.exitCode },
    });
  }
  throw new BedplateError("reboot.unavailable", `The host has no program to ${to} with.`, {
    hint: "systemd, or a package with the program, is needed.",
  });
}

/** The first that is there is run. */
function programsFor(to: Leaving["to"], facts: Facts): readonly (readonly [string, ...string[]])[] {
  return facts.optionalText("/proc/1/comm") === "systemd" ? [["systemctl", to], [to]] : [[to]];
}

function bootNow(facts: Facts): BootNow {
  const uptime = facts.text("/proc/uptime") ?? "";
  return { bootId: bootIdOf(facts), uptimeSeconds: Number.parseFloat(uptime.split(" ")[0]!) };
}

/** @throws `reboot.unavailable` */
function requireBoot(facts: Facts): BootNow {
  const now = bootNow(facts);
  if (now.bootId !== "" && Number.isFinite(now.uptimeSeconds)) return now;
  throw new BedplateError(
    "reboot.unavailable",
    "The kernel does not tell its boot id or uptime, so nobody could say afterwards whether the host went down.",
    { details: { unreadable: facts.unreadable() } },
  );
}

function readStep(notes: Notes): BootStep | undefined {
  const note = notes.get(noteName);
  return note && (JSON.parse(new TextDecoder().decode(note)) as BootStep);
}

function noteOf(step: BootStep): { readonly [name: string]: Uint8Array } {
  return { [noteName]: new TextEncoder().encode(JSON.stringify(step)) };
}
