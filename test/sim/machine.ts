// A simulated machine: power, boots, a wall clock that jumps and one that does not, its processes, and when they die.
import type { History } from "./history.ts";
import { beginsAt } from "./plan.ts";
import type { Random } from "./random.ts";
import type { Disk } from "./store.ts";
import { Died, type Process, type World } from "./world.ts";

export interface Program extends Process {
  /** Told when it has died: what the kernel does then, or nothing, without power. */
  died(how: "kill" | "power-cut"): void;
}

interface Trap {
  readonly store: string;
  readonly when: "before" | "after";
  readonly how: "kill" | "power-cut";
  writes: number;
}

export interface MachineParts {
  readonly name: string;
  readonly world: World;
  readonly random: Random;
  readonly history: History;
}

export class Machine implements Disk {
  readonly name: string;
  readonly world: World;
  readonly random: Random;
  readonly history: History;
  readonly #programs = new Set<Program>();
  readonly #stores: { powerCut(random: Random): void }[] = [];
  #traps: Trap[] = [];
  #boots = 0;
  #bootedAt = 0;
  #clockOffsetMs = 0;
  up = true;
  /** Starts what the machine starts by itself. */
  onBoot: () => void = () => {};
  /** What lies in memory is gone; without an order, also what was not yet on the disk. */
  onStop: (how: "in-order" | "power-cut") => void = () => {};

  constructor({ name, world, random, history }: MachineParts) {
    this.name = name;
    this.world = world;
    this.random = random;
    this.history = history;
  }

  get bootId(): string {
    return `${this.name}-boot-${this.#boots}`;
  }

  wall(): number {
    return beginsAt + this.world.now + this.#clockOffsetMs;
  }

  monotonic(): number {
    return this.world.now - this.#bootedAt;
  }

  moveClock(ms: number): void {
    this.#clockOffsetMs += ms;
  }

  /** The clock is set right. */
  setClock(): void {
    this.#clockOffsetMs = 0;
  }

  holds(store: { powerCut(random: Random): void }): void {
    this.#stores.push(store);
  }

  runs(program: Program): void {
    this.#programs.add(program);
  }

  trap(trap: Trap): void {
    this.#traps.push({ ...trap });
  }

  disarm(): void {
    this.#traps = [];
  }

  crashPoint(owner: Process, store: string, when: "before" | "after"): void {
    for (const trap of this.#traps) {
      if (trap.store !== store || trap.when !== when || --trap.writes > 0) continue;
      this.#traps = this.#traps.filter((each) => each !== trap);
      this.history.note("fault", `${trap.how} of ${owner.name} right ${when} a write of the ${store}`);
      if (trap.how === "power-cut") this.cutPower();
      else this.kill(owner as Program);
      throw new Died();
    }
  }

  kill(program: Program): void {
    if (!program.alive) return;
    program.alive = false;
    this.#programs.delete(program);
    program.died("kill");
  }

  /** An orderly end of a process. */
  ended(program: Program): void {
    this.kill(program);
  }

  cutPower(): void {
    if (!this.up) return;
    this.up = false;
    for (const program of this.#programs) {
      program.alive = false;
      program.died("power-cut");
    }
    this.#programs.clear();
    this.onStop("power-cut");
    for (const store of this.#stores) store.powerCut(this.random);
    this.world.after(this.random.between(5_000, 60_000), undefined, () => this.#boot());
  }

  /** In order: what was written is on the disk. */
  restart(): void {
    if (!this.up) return;
    this.history.note(this.name, "restarts");
    for (const program of [...this.#programs]) this.kill(program);
    this.up = false;
    this.onStop("in-order");
    for (const store of this.#stores) store.powerCut({ ...this.random, between: (_low, high) => high });
    this.world.after(this.random.between(5_000, 60_000), undefined, () => this.#boot());
  }

  #boot(): void {
    this.up = true;
    this.#boots += 1;
    this.#bootedAt = this.world.now;
    this.history.note(`${this.name}`, `is up again: boot ${this.#boots}`);
    this.onBoot();
  }
}
