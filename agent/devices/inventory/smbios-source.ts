// The firmware's own list of what is in the machine, from the raw SMBIOS tables.
import type { Smbios } from "../../../protocol/inventory-machine.ts";
import type { Facts } from "../facts.ts";
import { decodeSmbios } from "./smbios/decode.ts";
import { parseEntryPoint, parseTables, type SmbiosTables } from "./smbios/tables.ts";
import type { Source } from "./source.ts";

const tablesAt = "/sys/firmware/dmi/tables";
const tableBytesMax = 1 << 20;

export const smbios: Source<Smbios | null> = {
  sources: [`${tablesAt}/{smbios_entry_point,DMI}`],
  collect({ smbios: tables, facts, note }) {
    // Read for all groups before; here only for what went wrong.
    if (tables === null && facts.exists("/sys/class/dmi/id")) facts.text(`${tablesAt}/DMI`);
    for (const error of tables?.errors ?? []) note(`${tablesAt}/DMI: ${error}`);
    return tables === null ? null : decodeSmbios(tables);
  },
  absent: null,
};

/** Null where there are no tables or they cannot be read (only root may). */
export function readTables(facts: Facts): SmbiosTables | null {
  const table = facts.optionalBytes(`${tablesAt}/DMI`, tableBytesMax);
  if (table === null || table.length === 0) return null;
  const entryBytes = facts.optionalBytes(`${tablesAt}/smbios_entry_point`, 64);
  const entry = entryBytes === null ? null : parseEntryPoint(entryBytes);
  const tables = parseTables(table, entry);
  return entry === null
    ? { ...tables, errors: ["the entry point cannot be used", ...tables.errors] }
    : tables;
}
