// The sources of the inventory, one for each group: a group without one does not compile.
import { bmc } from "./bmc.ts";
import { boot } from "./boot.ts";
import { cpu } from "./cpu.ts";
import { gpus } from "./gpus.ts";
import { kernel } from "./kernel.ts";
import { memory } from "./memory.ts";
import { moment } from "./moment.ts";
import { nics } from "./nics.ts";
import { numa } from "./numa.ts";
import { operatingSystem } from "./operating-system.ts";
import { pci } from "./pci.ts";
import { smbios } from "./smbios-source.ts";
import type { Groups, Source } from "./source.ts";
import { storage } from "./storage.ts";
import { system } from "./system.ts";
import { tpm } from "./tpm.ts";
import { usb } from "./usb.ts";

export const sources: { readonly [K in keyof Groups]: Source<Groups[K]> } = {
  system,
  cpu,
  memory,
  numa,
  smbios,
  storage,
  nics,
  pci,
  gpus,
  usb,
  boot,
  tpm,
  bmc,
  kernel,
  operatingSystem,
  moment,
};
