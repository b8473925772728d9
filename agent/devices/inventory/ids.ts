// Names of PCI and USB ids from the machine's own pci.ids and usb.ids, where one is installed.
import { cleanLine, type Facts } from "../facts.ts";

export interface IdNames {
  vendor(id: string | null): string | null;
  device(vendorId: string | null, id: string | null): string | null;
}

const places = ["/usr/share/misc", "/usr/share/hwdata"];

/** The file is read at the first question. */
export function readIdNames(facts: Facts, file: "pci.ids" | "usb.ids"): IdNames {
  let text: string | undefined;
  const sections = new Map<string, string>();
  const section = (vendor: string) => {
    text ??= `\n${places.map((place) => facts.optionalText(`${place}/${file}`)).find((each) => each !== null) ?? ""}\n`;
    const known = sections.get(vendor);
    if (known !== undefined) return known;
    const found = sectionOf(text, vendor);
    sections.set(vendor, found);
    return found;
  };
  return {
    vendor(id) {
      return id === null ? null : nameIn(section(id), "");
    },
    device(vendorId, id) {
      return vendorId === null || id === null ? null : nameIn(section(vendorId), `\t${id}`);
    },
  };
}

/** A vendor's line (its two blanks first), and the lines of its devices, each after a tab. */
export function sectionOf(text: string, vendor: string): string {
  if (!/^[0-9a-f]{4}$/.test(vendor)) return "";
  const start = text.indexOf(`\n${vendor}  `);
  if (start < 0) return "";
  // The vendor's own section ends where the next line begins with neither a tab nor a comment.
  const end = /\n[^\t#\n]/.exec(text.slice(start + 1))?.index ?? text.length;
  return text.slice(start + 5, start + 1 + end);
}

function nameIn(section: string, prefix: string): string | null {
  const line =
    prefix === ""
      ? section.split("\n", 1)[0]!
      : (section.split("\n").find((each) => each.startsWith(`${prefix}  `)) ?? "");
  return cleanLine(line.slice(prefix.length), 256) || null;
}
