// Where the simulated controller lives: its machine, its lives one after the other, its backups.
import { type ControllerParts, SimController } from "./controller.ts";
import { type ControllerState, restored } from "./controller-store.ts";
import type { ControllerDoor } from "./host.ts";
import { Machine } from "./machine.ts";
import { Store } from "./store.ts";
import type { End, Path, Wire } from "./wire.ts";
import type { World } from "./world.ts";

export class ControllerHouse implements ControllerDoor {
  readonly machine: Machine;
  readonly store: Store<ControllerState>;
  readonly #parts: Omit<ControllerParts, "machine" | "store" | "sessionName" | "died">;
  controller: SimController | undefined;
  #backup: ControllerState | undefined;
  #replaced: ControllerState | undefined;
  #sessions = 0;

  constructor(
    parts: Omit<ControllerParts, "machine" | "store" | "sessionName" | "died"> & {
      readonly world: World;
      readonly first: ControllerState;
    },
  ) {
    this.#parts = parts;
    this.machine = new Machine({ ...parts, name: "controller" });
    this.store = new Store<ControllerState>(this.machine, "controller", parts.first);
    this.machine.holds(this.store);
    this.machine.onBoot = () => this.start();
  }

  reachable(): boolean {
    return this.controller?.alive === true;
  }

  accept(agent: End, path: Path): Wire {
    return this.controller!.accept(agent, path);
  }

  start(): void {
    if (this.controller?.alive || !this.machine.up) return;
    this.controller = new SimController({
      ...this.#parts,
      machine: this.machine,
      store: this.store,
      sessionName: () => `session-${++this.#sessions}`,
      // Its supervisor starts it again.
      died: () =>
        this.machine.world.after(this.machine.random.between(500, 5_000), undefined, () => this.start()),
    });
  }

  kill(): void {
    if (this.controller?.alive) this.machine.kill(this.controller);
  }

  backUp(): void {
    this.#backup = this.store.state;
  }

  /** @param how `raise`: as the program restores; `same`: somebody copies the file back, and the epoch stays */
  restore(how: "raise" | "same"): void {
    if (this.#backup === undefined || !this.machine.up) return;
    this.kill();
    this.#replaced = this.store.state;
    this.store.replace(how === "raise" ? restored(this.#backup) : this.#backup);
    this.#parts.checker.controllerSetBack(this.#replaced, this.store.state);
  }

  /** Nobody stopped the one that was replaced. */
  bringBack(): void {
    if (this.#replaced === undefined || !this.machine.up) return;
    this.kill();
    const before = this.store.state;
    this.store.replace(this.#replaced);
    this.#parts.checker.controllerSetBack(before, this.#replaced);
  }
}
