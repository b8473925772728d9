// The names that people know a machine by: what its operator calls it, and the number on its chassis.
import type { Facts } from "./facts.ts";

export interface MachineNames {
  readonly hostname: string;
  readonly chassisSerial: string | null;
}

const namesMax = 255;
/** What firmware has where nobody filled in a serial number. */
const placeholder =
  /^(to be filled by o\.?e\.?m\.?|default string|(system|chassis) serial number|not (specified|available|applicable)|none|n\/a|[0.x-]*|0?123456789)$/i;

/** Where the chassis has no number of its own the machine's is taken. Only root can read them. */
export function readMachineNames(facts: Facts): MachineNames {
  const serials = ["chassis_serial", "product_serial"].map(
    (name) => facts.optionalText(`/sys/class/dmi/id/${name}`)?.trim() ?? "",
  );
  const serial = serials.find((text) => !placeholder.test(text));
  return {
    hostname: (facts.text("/proc/sys/kernel/hostname") ?? "").slice(0, namesMax),
    chassisSerial: serial?.slice(0, namesMax) ?? null,
  };
}
