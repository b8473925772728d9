// The whole inventory: every source in turn, each with its own errors and time, and the hash that tells whether anything changed.
import { createHash } from "node:crypto";
import type { GroupReport, Inventory } from "../../../protocol/inventory.ts";
import type { Facts } from "../facts.ts";
import { fitted } from "./fit.ts";
import { sources } from "./index.ts";
import { readTables } from "./smbios-source.ts";
import type { Groups, SourceContext } from "./source.ts";

export interface CollectOptions extends Omit<SourceContext, "facts" | "note" | "smbios"> {
  /** Fresh facts for each group: what was unreadable is noted for each anew. */
  readonly facts: () => Facts;
}

export type Collected = Omit<Inventory, "collectMs" | "tools"> &
  Required<Pick<Inventory, "moment" | "groups" | "bmc" | "pci">>;

const errorsMax = 64;

/** @throws the signal's reason, nothing else */
export async function collectInventory(options: CollectOptions): Promise<Collected> {
  const { clock, signal } = options;
  const groups: Record<string, GroupReport> = {};
  const smbios = readTables(options.facts());
  const collect = async <K extends keyof Groups>(name: K): Promise<Groups[K]> => {
    signal.throwIfAborted();
    const facts = options.facts();
    const notes: string[] = [];
    const started = clock.monotonic();
    const source = sources[name];
    let group: Groups[K];
    try {
      group = await source.collect({ ...options, facts, smbios, note: (error) => notes.push(error) });
    } catch (error) {
      signal.throwIfAborted();
      notes.push(`${name} could not be collected: ${error instanceof Error ? error.message : String(error)}`);
      group = source.absent;
    }
    const errors = [...facts.unreadable(), ...notes];
    groups[name] = {
      sources: [...source.sources],
      errors:
        errors.length <= errorsMax
          ? errors
          : [...errors.slice(0, errorsMax), `and ${errors.length - errorsMax} more`],
      ms: rounded(clock.monotonic() - started),
    };
    return group;
  };
  const system = await collect("system");
  const cpu = await collect("cpu");
  const memory = await collect("memory");
  const { disks, notDisks, layers } = await collect("storage");
  const content = fitted(
    {
      system,
      cpu,
      memory,
      disks,
      nics: await collect("nics"),
      numa: await collect("numa"),
      smbios: await collect("smbios"),
      notDisks,
      layers,
      pci: await collect("pci"),
      gpus: await collect("gpus"),
      usb: await collect("usb"),
      boot: await collect("boot"),
      tpm: await collect("tpm"),
      bmc: await collect("bmc"),
      kernel: await collect("kernel"),
      operatingSystem: await collect("operatingSystem"),
    },
    (group, error) => groups[group]!.errors.push(error),
  );
  const moment = await collect("moment");
  return sealed({ ...content, unreadable: [] }, groups, moment);
}

export function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}

type Content = Omit<Inventory, "contentHash" | "collectMs" | "moment" | "groups" | "tools">;

/** With what was unreadable, in one list, and the hash over it all: anew whenever something is added. */
export function sealed(
  content: Content,
  groups: Record<string, GroupReport>,
  moment: Groups["moment"],
): Collected {
  const unreadable = [...new Set(Object.values(groups).flatMap(({ errors }) => errors))].sort();
  const hashed = { ...content, unreadable };
  // Members stand in a fixed order, so the same host gives the same text.
  const contentHash = createHash("sha256").update(JSON.stringify(hashed)).digest("hex");
  return { ...hashed, contentHash, moment, groups } as Collected;
}
