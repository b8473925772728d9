// What a seed stands for: the hosts, the commands and when they are asked for, and the faults. Everything else of a run
// follows from it and from streams of randomness of the same seed. A finding is made smaller by leaving parts of it out.
import { uuidV7 } from "../../protocol/identifiers.ts";
import { createRandom, type Random } from "./random.ts";

export interface PlannedCommand {
  readonly id: string;
  readonly host: number;
  readonly at: number;
  readonly kind: "agent.ping" | "host.exec" | "host.inventory" | "host.reboot" | "image.deploy";
  readonly durationMs: number;
  readonly outputBytes: number;
  readonly fails: boolean;
  readonly startWithinSeconds: number | undefined;
  readonly notAfterMs: number | undefined;
  readonly onLinkLost: "pause" | "abort" | undefined;
  /** Waits for one signature, which comes so much later. */
  readonly signedAfterMs: number | undefined;
  readonly cancelAfterMs: number | undefined;
  /** Of some that have safe points: when an operator pauses it, and for how long. */
  readonly pause: { readonly afterMs: number; readonly ms: number } | undefined;
}

export type Fault = { readonly at: number } & (
  | { readonly fault: "partition"; readonly host: number; readonly ms: number }
  /** One side loses the connection without a word to the other. */
  | { readonly fault: "half-open"; readonly host: number; readonly forgets: "agent" | "controller" }
  | { readonly fault: "reset"; readonly host: number }
  | { readonly fault: "kill"; readonly host: number; readonly what: "agent" | "executors" }
  | { readonly fault: "power-cut"; readonly host: number }
  | { readonly fault: "clock"; readonly host: number; readonly ms: number }
  | { readonly fault: "copy-state" | "set-state-back" | "lose-state"; readonly host: number }
  /** From its next session on, the agent repeats what the controller says it has. */
  | { readonly fault: "repeat"; readonly host: number }
  | { readonly fault: "kill-controller" | "cut-controller" | "back-up" | "restore" }
  /** Somebody copies an old database into place, or runs the controller again that a restored one replaced. */
  | { readonly fault: "set-controller-back" | "old-controller-returns" }
  /** The process that makes the n-th commit from here on dies right before or after it. */
  | {
      readonly fault: "die-at-write";
      readonly host: number | "controller";
      readonly store: "outbox" | "journal" | "controller";
      readonly writes: number;
      readonly when: "before" | "after";
      readonly how: "kill" | "power-cut";
    }
);

export interface Plan {
  readonly seed: number;
  readonly hosts: number;
  /** `unsound`: somebody does what the contract forbids, so that only harm is looked for, not progress. */
  readonly kind: "sound" | "unsound";
  /** How much more room a record takes in the outbox than it has bytes: a full outbox without megabytes. */
  readonly pressure: number;
  readonly sampleBytesMax: number;
  readonly commands: readonly PlannedCommand[];
  readonly faults: readonly Fault[];
}

/** Faults and requests come in this time; then everything works, and has this long to come to rest. */
export const troubleMs = 480_000;
export const restMs = 5_400_000;
/** When the simulated world begins. */
export const beginsAt = 1_750_000_000_000;

export function planOf(seed: number): Plan {
  const random = createRandom(seed, "plan");
  const hosts = random.between(1, 3);
  const kind = random.chance(0.15) ? "unsound" : "sound";
  // In a storm all comes at once.
  const spanMs = random.chance(0.3) ? random.between(20_000, 90_000) : troubleMs - 60_000;
  const commands = planCommands(random, hosts, spanMs);
  return {
    seed,
    hosts,
    kind,
    pressure: random.chance(0.15) ? 20_000 : 1,
    sampleBytesMax: random.pick([4_000, 20_000, 200_000]),
    commands,
    faults: planFaults(random, hosts, kind, spanMs, commands),
  };
}

function planCommands(random: Random, hosts: number, spanMs: number): PlannedCommand[] {
  const count = random.between(2, 16);
  // Some come in a burst: order and turns matter most then.
  const burstAt = random.between(1_000, spanMs);
  const commands = Array.from({ length: count }, () => {
    const at = random.chance(0.4) ? burstAt + random.between(0, 3_000) : random.between(1_000, spanMs);
    const kind = random.pick([
      ...(["host.exec", "host.exec", "host.exec", "image.deploy", "image.deploy"] as const),
      ...(["host.inventory", "agent.ping", "host.reboot"] as const),
    ]);
    const bytes = Uint8Array.from({ length: 10 }, () => random.between(0, 255));
    const prints = random.chance(0.15) ? random.between(200_000, 900_000) : random.between(0, 5_000);
    return {
      id: uuidV7(beginsAt + at, bytes),
      host: random.between(0, hosts - 1),
      at,
      kind,
      durationMs: random.chance(0.3) ? random.between(100, 2_000) : random.between(2_000, 60_000),
      outputBytes: kind === "host.exec" ? prints : 0,
      fails: random.chance(0.15),
      startWithinSeconds: random.chance(0.5) ? random.between(5, 240) : undefined,
      notAfterMs: random.chance(0.1) ? random.between(1_000, 60_000) : undefined,
      onLinkLost: random.chance(0.2) ? random.pick(["pause", "abort"] as const) : undefined,
      signedAfterMs: random.chance(0.15) ? random.between(1_000, 60_000) : undefined,
      cancelAfterMs: random.chance(0.3) ? random.between(0, random.pick([600, 3_000, 60_000])) : undefined,
      // Out of what was drawn for the id: the other draws of a seed stay what they were.
      pause:
        kind === "image.deploy" && bytes[0]! < 96
          ? { afterMs: bytes[1]! * 60, ms: 1_000 + bytes[2]! * 120 }
          : undefined,
    };
  });
  return commands.sort((a, b) => a.at - b.at);
}

function planFaults(
  random: Random,
  hosts: number,
  kind: Plan["kind"],
  spanMs: number,
  commands: readonly PlannedCommand[],
): Fault[] {
  const faults: Fault[] = [];
  const host = () => random.between(0, hosts - 1);
  const count = random.between(0, 16);
  for (let i = 0; i < count; i++)
    faults.push({ at: random.between(2_000, spanMs), ...oneFault(random, host()) });
  if (random.chance(0.25)) {
    const [from, to] = twoMoments(random, spanMs);
    // A copy is worth most while something has come and not begun.
    const fresh = random.chance(0.6) ? random.pick(commands) : undefined;
    const which = fresh?.host ?? host();
    const copiedAt = fresh === undefined ? from : fresh.at + random.between(20, 800);
    faults.push({ at: copiedAt, fault: "copy-state", host: which });
    faults.push({
      at: Math.max(to, copiedAt + random.between(500, 20_000)),
      fault: "set-state-back",
      host: which,
    });
  }
  if (random.chance(0.25) || kind === "unsound") {
    const [from, to] = twoMoments(random, spanMs);
    const [between, after] = twoMoments(random, spanMs);
    faults.push({ at: from, fault: "back-up" });
    if (kind === "sound" || random.chance(0.5)) faults.push({ at: to, fault: "restore" });
    else faults.push({ at: to, fault: "set-controller-back" });
    if (kind === "unsound")
      faults.push({ at: to + Math.max(between, after), fault: "old-controller-returns" });
  }
  return faults.sort((a, b) => a.at - b.at);
}

function twoMoments(random: Random, spanMs: number): [number, number] {
  const [a, b] = [random.between(2_000, spanMs), random.between(2_000, spanMs)];
  return a < b ? [a, b] : [b, a];
}

type Undated<F> = F extends unknown ? Omit<F, "at"> : never;

function oneFault(random: Random, host: number): Undated<Fault> {
  switch (random.between(0, 12)) {
    case 0:
    case 1:
      return { fault: "partition", host, ms: random.between(500, random.chance(0.5) ? 10_000 : 120_000) };
    case 2:
      return { fault: "half-open", host, forgets: random.pick(["agent", "controller"]) };
    case 3:
      return { fault: "reset", host };
    case 4:
      return { fault: "kill", host, what: random.pick(["agent", "executors"]) };
    case 5:
      return { fault: "power-cut", host };
    case 6:
      return { fault: "clock", host, ms: random.between(-86_400_000, 86_400_000) };
    case 7:
      return { fault: random.pick(["kill-controller", "cut-controller"]) };
    case 8:
      return { fault: random.chance(0.8) ? "repeat" : "lose-state", host };
    default: {
      const store = random.pick(["outbox", "journal", "controller"] as const);
      return {
        fault: "die-at-write",
        host: store === "controller" ? "controller" : host,
        store,
        writes: random.between(1, 12),
        when: random.pick(["before", "after"]),
        how: random.pick(["kill", "power-cut"]),
      };
    }
  }
}
