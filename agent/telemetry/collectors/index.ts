// The collectors, in the order of their series in the dictionary. Names, labels, units and types are node_exporter's.
import type { Collector } from "./collector.ts";
import { cpu } from "./cpu.ts";
import { disks } from "./disks.ts";
import { load } from "./load.ts";
import { memory } from "./memory.ts";
import { network } from "./network.ts";
import { pressures } from "./pressure.ts";
import { uname } from "./uname.ts";
import { vmstat } from "./vmstat.ts";

export const collectors: readonly Collector[] = [
  uname,
  cpu,
  load,
  memory,
  disks,
  network,
  ...pressures,
  vmstat,
];
