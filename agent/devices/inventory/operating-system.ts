// The installed system, by os-release(5).
import type { OperatingSystem } from "../../../protocol/inventory-machine.ts";
import { cleanLine } from "../facts.ts";
import type { Source } from "./source.ts";

export const operatingSystem: Source<OperatingSystem> = {
  sources: ["/etc/os-release", "/usr/lib/os-release"],
  collect: ({ facts }) =>
    parseOsRelease(facts.optionalText("/etc/os-release") ?? facts.optionalText("/usr/lib/os-release") ?? ""),
  absent: { id: null, version: null, name: null, build: null },
};

/** Each null where the text does not say it. */
export function parseOsRelease(text: string): OperatingSystem {
  const value = (name: string) => {
    const found = new RegExp(`^${name}=(.*)$`, "m").exec(text)?.[1]?.trim() ?? "";
    const bare = found.replace(/^(["'])(.*)\1$/, "$2").replace(/\\(["'$`\\])/g, "$1");
    return cleanLine(bare, 256) || null;
  };
  return {
    id: value("ID"),
    version: value("VERSION_ID"),
    name: value("PRETTY_NAME"),
    build: value("BUILD_ID"),
  };
}
