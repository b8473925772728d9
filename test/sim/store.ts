// A database file on a simulated disk. States are immutable; a commit is atomic and visible at once, and safe from a power
// cut after the next sync. What a power cut takes back is always the newest: never one commit without those after it.
import type { Random } from "./random.ts";
import type { Process, World } from "./world.ts";

export interface Disk {
  readonly world: World;
  readonly random: Random;
  /** Called before and after each commit: whoever is to die there throws. */
  crashPoint(owner: Process, store: string, when: "before" | "after"): void;
}

export class Store<S> {
  readonly #disk: Disk;
  readonly #name: string;
  /** States since the last sync, the synced one first. */
  #states: S[];
  /** Commits that are durable, counted from the first. */
  #durable = 0;
  /** Raised when states were taken back: what was to be synced then is no more. */
  #life = 0;

  constructor(disk: Disk, name: string, first: S) {
    this.#disk = disk;
    this.#name = name;
    this.#states = [first];
  }

  get state(): S {
    return this.#states.at(-1)!;
  }

  get durable(): S {
    return this.#states[0]!;
  }

  /** How many commits there were; how many of them are durable. */
  get commits(): { readonly made: number; readonly durable: number } {
    return { made: this.#durable + this.#states.length - 1, durable: this.#durable };
  }

  commit(owner: Process, state: S): void {
    this.#disk.crashPoint(owner, this.#name, "before");
    this.#states.push(state);
    this.#disk.crashPoint(owner, this.#name, "after");
  }

  /** The commit waits for the disk: it is durable when this returns. */
  commitSynced(owner: Process, state: S): void {
    this.#disk.crashPoint(owner, this.#name, "before");
    this.#states.push(state);
    this.#syncUpTo(this.commits.made);
    this.#disk.crashPoint(owner, this.#name, "after");
  }

  /** Calls back when all commits so far are durable; not when the owner has died by then. */
  sync(owner: Process, done: () => void): void {
    const { world, random } = this.#disk;
    const upTo = this.commits.made;
    const life = this.#life;
    const ms = random.chance(0.03) ? random.between(50, 800) : random.between(1, 12);
    world.after(ms, undefined, () => {
      // The kernel's work goes on without the process, and not without power.
      if (this.#life === life) this.#syncUpTo(upTo);
      if (owner.alive) done();
    });
  }

  /** The machine loses its power: of what was not synced, the older part may have reached the disk, torn writes have not. */
  powerCut(random: Random): void {
    const kept = random.between(0, this.#states.length - 1);
    this.#states = [this.#states[kept]!];
    this.#durable += kept;
    this.#life += 1;
  }

  /** Another file takes its place: an old copy, a backup. */
  replace(state: S): void {
    this.#durable += this.#states.length;
    this.#states = [state];
    this.#life += 1;
  }

  #syncUpTo(commit: number): void {
    const count = commit - this.#durable;
    if (count <= 0) return;
    this.#states = this.#states.slice(count);
    this.#durable = commit;
  }
}
