// The trusted platform modules, and when asked what they have measured.
import type { Tpm } from "../../../protocol/inventory-machine.ts";
import type { Facts } from "../facts.ts";
import { bounded, lineOf, type Source } from "./source.ts";

const at = "/sys/class/tpm";
const chipsMax = 8;
const registers = 24;
/** A discrete chip takes some 10 ms a register. */
const budgetMs = 1500;

export const tpm: Source<Tpm> = {
  sources: [`${at}/tpm*/{tpm_version_major,device/description}`, `${at}/tpm*/pcr-*/*`],
  collect({ facts, note, slow, clock }) {
    const names = facts.list(at).filter((name) => /^tpm\d+$/.test(name));
    return bounded(names, chipsMax, "TPMs", note).map((name) => {
      const major = lineOf(facts, `${at}/${name}/tpm_version_major`, 16);
      const pcrs: Record<string, string[]> = {};
      const deadlineMs = clock.monotonic() + budgetMs;
      for (const bank of slow ? banksOf(facts, name) : []) {
        const values: string[] = [];
        for (let register = 0; register < registers; register++) {
          if (clock.monotonic() > deadlineMs) {
            note(`${at}/${name}: its registers take longer than ${budgetMs} ms`);
            break;
          }
          const value = lineOf(facts, `${at}/${name}/${bank}/${register}`)?.toLowerCase() ?? "";
          if (!/^[0-9a-f]{40,128}$/.test(value)) break;
          values.push(value);
        }
        if (values.length > 0) pcrs[bank.slice(4)] = values;
      }
      return {
        name,
        version: major === "2" ? "2.0" : major === "1" ? "1.2" : null,
        description: lineOf(facts, `${at}/${name}/device/description`),
        pcrs,
      };
    });
  },
  absent: [],
};

function banksOf(facts: Facts, name: string): readonly string[] {
  return facts.list(`${at}/${name}`).filter((entry) => /^pcr-sha(256|384|512)$/.test(entry));
}
