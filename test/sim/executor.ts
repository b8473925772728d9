// The simulated executor process: admits by the product's rules, journals, waits for the lane, runs a made-up piece of work,
// and tells whoever follows. It dies at any moment, and another one goes on from the journal.
import { type BootTime, waitedMs } from "../../agent/executor/lane-wait.ts";
import type { KeptOffer } from "../../agent/link/outbox-rules.ts";
import {
  type Command,
  decodeCommand,
  type Effect,
  effectOf,
  isTerminal,
  type Outcome,
} from "../../protocol/commands.ts";
import type { ErrorReport } from "../../protocol/errors.ts";
import { type CancelAnswer, Followers } from "./followers.ts";
import type { Host } from "./host.ts";
import {
  type JournalledOperation,
  type JournalState,
  type NewEvent,
  otherRunning,
  waitingForLane,
  withEvent,
  withOperation,
} from "./journal.ts";
import type { Program } from "./machine.ts";
import { policyRules } from "./policy.ts";
import type { End, Path, Wire } from "./wire.ts";

export type SimRequest =
  | ({ readonly request: "run"; readonly host: string; readonly onlyKnown: boolean } & KeptOffer)
  | { readonly request: "follow"; readonly command: string };

const pollMs = { lane: 250, takeover: 100, drained: 200, tick: 1000 } as const;
const drainMs = { linger: 2_000, usual: 30_000, reading: 600_000 } as const;
const steps = 4;

export class SimExecutor implements Program {
  readonly name: string;
  alive = true;
  readonly #host: Host;
  readonly #request: SimRequest;
  readonly #id: string;
  readonly #command: Command | undefined;
  readonly #effect: Effect;
  readonly #followers: Followers;
  #stop: ErrorReport | undefined;
  #tooLate: string | undefined;
  #paused = false;
  #linkUpMs = 0;
  #running = false;
  /** Nothing was to begin, and the journal does not know it. */
  #notKnown: JournalledOperation["events"][number] | undefined;
  /** It serves what the journal has, and makes room for one that runs the operation. */
  #replaying = false;

  constructor(host: Host, request: SimRequest) {
    this.#host = host;
    this.#request = request;
    this.#command = request.request === "run" ? decodeCommand(request.document) : undefined;
    this.#id = request.request === "run" ? this.#command!.id : request.command;
    this.#effect = this.#command === undefined ? "read" : effectOf(this.#command);
    this.name = `${host.machine.name}/executor`;
    this.#followers = new Followers({
      world: host.machine.world,
      process: this,
      events: () => (this.#notKnown === undefined ? (this.#known?.events ?? []) : [this.#notKnown]),
      spool: () => host.spool(this.#id),
      cancel: (reason) => this.#cancel(reason),
      pause: (paused) => this.#pause(paused),
    });
    host.machine.runs(this);
    this.#after(host.random.between(40, 400), () => this.#begin());
  }

  died(how: "kill" | "power-cut"): void {
    this.#host.executorDied(this);
    if (how === "kill") this.#followers.closeAll();
  }

  // ---- its socket

  accept(agent: End, path: Path): Wire {
    return this.#followers.accept(agent, path);
  }

  /** The agent has read what this wire brought it. */
  drained(wire: Wire): void {
    this.#followers.drained(wire);
  }

  #cancel(reason: string): CancelAnswer {
    const answer = this.#answer(reason);
    this.#host.note("executor", `answers the cancel: ${answer.answer}`, this.#id);
    return answer;
  }

  #answer(reason: string): CancelAnswer {
    if (!this.#running) return { answer: "too-late", reason: "the operation does not run" };
    if (this.#tooLate !== undefined) return { answer: "too-late", reason: this.#tooLate };
    this.#stop ??= { code: "command.cancelled", message: reason };
    return { answer: "cancelling", reason: "it stops at the next safe point" };
  }

  #pause(paused: boolean): void {
    if (!this.#running || (this.#known!.notes.paused ?? false) === paused) return;
    this.#change({ notes: { ...this.#known!.notes, paused } });
  }

  // ---- its journal

  get #journal(): JournalState {
    return this.#host.journal.state;
  }

  get #known(): JournalledOperation | undefined {
    return this.#journal.operations.get(this.#id);
  }

  /** What the decision is shown of it: nothing, with the bug that forgets at a start. */
  get #remembered(): JournalledOperation | undefined {
    return this.#host.rules.shell.journalIsRemembered ? this.#known : undefined;
  }

  #write(state: JournalState): void {
    this.#host.journal.commitSynced(this, state);
  }

  #change(change: Partial<JournalledOperation>, event?: NewEvent): void {
    let operation = { ...this.#known!, ...change };
    if (event !== undefined) operation = withEvent(operation, event);
    this.#write(withOperation(this.#journal, operation));
    if (event !== undefined) this.#followers.publish(operation.events.at(-1)!);
  }

  // ---- its life

  #after(ms: number, work: () => void): void {
    this.#host.machine.world.after(ms, this, work);
  }

  #exit(): void {
    this.#host.machine.ended(this);
  }

  #listener(): SimExecutor | undefined {
    const other = this.#host.sockets.get(this.#id);
    return other?.alive ? other : undefined;
  }

  #bind(): void {
    this.#host.sockets.set(this.#id, this);
    this.#followers.serve();
  }

  #begin(): void {
    if (this.#request.request === "follow") {
      if (this.#known === undefined || this.#listener() !== undefined) return void this.#exit();
      this.#change({ server: "follow" });
      this.#bind();
      return void this.#replay();
    }
    const asksOnly = this.#request.onlyKnown && this.#known === undefined;
    if (this.#effect !== "read" && !asksOnly && this.#host.lane === undefined) this.#host.lane = this;
    this.#admit();
  }

  /** Operations accepted before this one that have not begun, and whose executors live. */
  #ahead(): readonly string[] {
    const waiting = waitingForLane(this.#journal);
    const mine = waiting.indexOf(this.#id);
    const ahead = this.#known === undefined ? waiting : mine < 0 ? [] : waiting.slice(0, mine);
    return ahead.filter((id) => this.#host.sockets.get(id)?.alive === true);
  }

  #laneFacts() {
    if (this.#effect === "read") return "not-needed" as const;
    const ahead = this.#ahead();
    if (this.#host.lane === this && ahead.length === 0) return "taken" as const;
    return {
      busyWith: this.#host.lane === this ? ahead[0] : otherRunning(this.#journal, this.#id),
      waiting: ahead.length,
    };
  }

  #admit(): void {
    const { machine, rules } = this.#host;
    const request = this.#request as Extract<SimRequest, { request: "run" }>;
    const command = this.#command!;
    const digest = digestOf(request.document);
    const known = this.#remembered;
    const admission = rules.executor.admit({
      nowMs: machine.wall(),
      onlyKnown: request.onlyKnown,
      host: request.host,
      hostname: machine.name,
      chassisSerial: null,
      epoch: request.epoch,
      generation: request.generation,
      fence: this.#journal.fence,
      digest,
      command: { decoded: command, effect: this.#effect },
      known: known && { ...known, sameDocument: known.digest === digest },
      policy: { state: "present", rules: policyRules },
      signatures: { verified: [], refused: [] },
      plan: undefined,
      destructiveToday: 0,
      lane: this.#laneFacts(),
    });
    this.#host.note(
      "executor",
      `decides: ${admission.do}${"error" in admission ? ` ${admission.error.code}` : ""}`,
      this.#id,
    );
    if (admission.do !== "conflict" && this.#listener() !== undefined) {
      const known = this.#known;
      const only = known === undefined || (known.server === "follow" && !isTerminal(known.state));
      if (!only) return void this.#exit();
      if (known !== undefined) this.#change({ server: "run" });
      return void this.#after(pollMs.takeover, () => this.#admit());
    }
    if (admission.do === "conflict") return void this.#exit();
    if (admission.do === "not-known") {
      this.#notKnown = { type: "refused", seq: 1, at: machine.wall(), error: wire(admission.error) };
      this.#releaseLane();
      this.#bind();
      return void this.#stay();
    }
    const at = machine.wall();
    const server = admission.do === "start" || admission.do === "resume" ? "run" : "follow";
    const fresh: JournalledOperation = {
      ...{ id: this.#id, digest, effect: this.#effect, state: "accepted", runs: 0 },
      ...{ server, noReturn: false, events: [], notes: {} },
    };
    switch (admission.do) {
      case "start":
        this.#write(
          withOperation(
            { ...this.#journal, fence: admission.fence ?? this.#journal.fence },
            withEvent(fresh, { type: "accepted", at }),
          ),
        );
        this.#host.observeAccepted(this.#id, request, this.#effect);
        break;
      case "refuse":
        this.#write(
          withOperation(
            this.#journal,
            withEvent({ ...fresh, state: "refused" }, { type: "refused", at, error: wire(admission.error) }),
          ),
        );
        this.#host.observeRefused(this.#id, admission.error.code);
        break;
      case "conclude":
        this.#change(
          { state: admission.outcome, server },
          {
            type: "result",
            at,
            result: { outcome: admission.outcome, startedAt: at, endedAt: at, error: wire(admission.error) },
          },
        );
        break;
      case "resume":
      case "replay":
        this.#change({ server });
    }
    this.#bind();
    if (admission.do !== "start" && admission.do !== "resume") {
      this.#releaseLane();
      return void this.#replay();
    }
    if (admission.lane === "wait") this.#releaseLane();
    this.#running = true;
    this.#linkUpMs = machine.monotonic();
    this.#tick();
    this.#awaitLane();
  }

  #releaseLane(): void {
    if (this.#host.lane === this) this.#host.lane = undefined;
  }

  #replay(): void {
    this.#replaying = true;
    this.#stay();
  }

  /** Until nobody is left to tell. */
  #stay(): void {
    const now = this.#host.machine.monotonic();
    this.#drain(now, now);
  }

  #awaitLane(): void {
    const { machine } = this.#host;
    if (this.#effect === "read" || this.#host.lane === this) return void this.#startRun();
    if (this.#stop !== undefined) return void this.#finishStopped();
    const now: BootTime = { bootId: machine.bootId, uptimeMs: machine.monotonic() };
    const noted = this.#known!.notes.waited;
    if (noted === undefined)
      this.#change({ notes: { ...this.#known!.notes, waited: { ...now, waitedMs: 0 } } });
    if (this.#ahead().length === 0 && this.#host.lane === undefined) {
      this.#host.lane = this;
      return void this.#startRun();
    }
    const { startWithinSeconds } = this.#command!.limits;
    const waited = waitedMs(noted, now);
    if (startWithinSeconds !== undefined && waited > startWithinSeconds * 1000)
      return void this.#finish("timed-out", {
        code: "command.expired",
        message: "the lane was busy for too long",
      });
    if (noted !== undefined && (waited - noted.waitedMs >= 5_000 || now.bootId !== noted.bootId))
      this.#change({ notes: { ...this.#known!.notes, waited: { ...now, waitedMs: waited } } });
    this.#after(pollMs.lane, () => this.#awaitLane());
  }

  #startRun(): void {
    const { machine, rules } = this.#host;
    const known = this.#known!;
    const fault = rules.executor.goingOnFault({
      nowMs: machine.wall(),
      policy: { state: "present", rules: policyRules },
      command: this.#command!,
      effect: this.#effect,
      signatures: { verified: [], refused: [] },
      runs: known.runs,
      noReturn: known.noReturn,
    });
    if (fault !== undefined) return void this.#finish("failed", fault);
    if (this.#stop !== undefined) return void this.#finishStopped();
    const run = known.runs + 1;
    this.#change({ state: "running", runs: run }, { type: "running", at: machine.wall(), run });
    // Between the journal and the deed a process may die too.
    this.#after(this.#host.random.between(0, 5), () => this.#work());
  }

  #work(): void {
    this.#host.observeStart(this.#id, this.#effect);
    if (this.#command!.kind === "host.reboot") return void this.#reboot();
    const { durationMs, outputBytes } = this.#host.planned(this.#id);
    const from = this.#known!.notes.step ?? 0;
    this.#step(from, durationMs / steps, Math.ceil(outputBytes / steps));
  }

  #step(done: number, ms: number, bytes: number): void {
    if (this.#stop !== undefined) return void this.#finishStopped();
    if (this.#paused) return void this.#after(pollMs.tick, () => this.#step(done, ms, bytes));
    if (done === steps) {
      const { fails } = this.#host.planned(this.#id);
      const error = { code: "exec.failed", message: "it failed" } as const;
      return void this.#finish(fails ? "failed" : "succeeded", fails ? error : undefined);
    }
    if (done === steps - 1 && this.#effect === "resumable" && !this.#known!.noReturn) {
      this.#change({ noReturn: true });
    }
    if (this.#known!.noReturn) this.#tooLate ??= "it is past its point of no return";
    this.#after(ms, () => {
      if (bytes > 0) {
        this.#host.print(this.#id, bytes);
        this.#followers.outputGrew();
      }
      if (this.#effect === "resumable") this.#change({ notes: { ...this.#known!.notes, step: done + 1 } });
      this.#step(done + 1, ms, bytes);
    });
  }

  #reboot(): void {
    const { machine } = this.#host;
    const { fromBootId } = this.#known!.notes;
    if (fromBootId !== undefined && fromBootId !== machine.bootId)
      return void this.#finish("succeeded", undefined);
    if (fromBootId === undefined) {
      this.#change({ notes: { ...this.#known!.notes, fromBootId: machine.bootId } });
      this.#after(this.#host.random.between(10, 500), () => machine.restart());
    } else {
      // Noted, and cut off before the restart: it is not asked for twice.
      this.#finish("failed", { code: "reboot.not-seen", message: "it did not restart" });
    }
  }

  #finishStopped(): void {
    const outcome = this.#stop!.code === "command.cancelled" || this.#stop!.code === "command.link-lost";
    this.#finish(outcome ? "cancelled" : "timed-out", this.#stop);
  }

  #finish(outcome: Outcome, error: ErrorReport | undefined): void {
    const at = this.#host.machine.wall();
    this.#tooLate ??= "the operation has ended";
    this.#running = false;
    const result = {
      outcome,
      startedAt: at,
      endedAt: at,
      ...(error === undefined ? {} : { error: wire(error) }),
    };
    this.#change({ state: outcome }, { type: "result", at, result });
    this.#host.note("executor", `ends: ${outcome}`, this.#id);
    this.#host.observeEnd(this.#id);
    this.#releaseLane();
    this.#stay();
  }

  /** Once a second while it runs. */
  #tick(): void {
    if (!this.#running) return;
    const { machine, rules } = this.#host;
    if (this.#followers.linkUp) this.#linkUpMs = machine.monotonic();
    const { onLinkLost } = this.#command!.limits;
    const facts = { nowMs: machine.monotonic(), upAtMs: this.#linkUpMs };
    const duty = this.#tooLate === undefined ? rules.executor.linkDuty(onLinkLost, facts) : "go-on";
    this.#paused = duty === "pause" || (this.#tooLate === undefined && this.#known!.notes.paused === true);
    if (duty === "abort") this.#stop ??= { code: "command.link-lost", message: "the link is lost" };
    this.#after(pollMs.tick, () => this.#tick());
  }

  #drain(began: number, seen: number): void {
    if (this.#replaying && this.#known?.server !== "follow") return void this.#exit();
    const now = this.#host.machine.monotonic();
    const { count, toldAndGone, reading } = this.#followers;
    if (count === 0 && (toldAndGone || now - seen > drainMs.linger)) return void this.#exit();
    if (now - began > (reading ? drainMs.reading : drainMs.usual)) return void this.#exit();
    this.#after(pollMs.drained, () => this.#drain(began, count > 0 ? now : seen));
  }
}

function wire({ code, message }: ErrorReport): { code: string; message: string } {
  return { code, message };
}

/** FNV-1a twice: enough to tell documents apart. */
function digestOf(bytes: Uint8Array): string {
  let a = 0x811c9dc5;
  let b = 0x01000193;
  for (const byte of bytes) {
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte, 0x85ebca6b);
  }
  return (
    (a >>> 0).toString(16).padStart(8, "0").repeat(4) + (b >>> 0).toString(16).padStart(8, "0").repeat(4)
  );
}
