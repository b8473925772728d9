// Files of sums as sha256sum, sha512sum and BSD's tools write them: pure, and strict about what a line can be.
import { assert, BedplateError } from "../../protocol/errors.ts";

/** What an input's bytes must hash to. */
export interface ExpectedSum {
  readonly algorithm: "sha256" | "sha512";
  /** Lower-case hexadecimal. */
  readonly digest: string;
}

export interface SumEntry extends ExpectedSum {
  readonly name: string;
}

const hexDigits = { sha256: 64, sha512: 128 } as const;
/** Of MD5, SHA-1, SHA-224, SHA-384: known for sums, and not relied on. */
const otherDigits = [32, 40, 56, 96];

/** `HASH  name`, or `HASH *name` of a file read as binary; a backslash before says that the name is escaped. */
const coreutils = /^(\\?)([0-9a-fA-F]{32,128}) [ *](.+)$/;
/** `SHA256 (name) = HASH`. */
const bsd = /^(\\?)([A-Z0-9-]+) \((.+)\) = ([0-9a-fA-F]{32,128})$/;

/**
 * The entries by SHA-256 and SHA-512. Empty lines, comments and lines of other algorithms are passed over.
 * @param where names the file in errors
 * @throws `image.bad-sums` naming the line
 */
export function parseSums(text: string, where: string): SumEntry[] {
  const fail = (index: number, why: string) =>
    new BedplateError("image.bad-sums", `${where}, line ${index + 1}: ${why}.`, {
      hint: "Give a file as sha256sum or sha512sum writes it, in their own form or in that of BSD.",
    });
  const entries: SumEntry[] = [];
  for (const [index, ended] of text.split("\n").entries()) {
    const line = ended.endsWith("\r") ? ended.slice(0, -1) : ended;
    if (line.trim() === "" || line.startsWith("#")) continue;
    const [escaped, digest, written, named] = fieldsOf(line) ?? [];
    if (digest === undefined || written === undefined) throw fail(index, "it is no line of sums");
    const algorithm = algorithmOf(digest);
    if (named !== undefined && named.replace("-", "") !== algorithm?.toUpperCase()) {
      if (/^SHA-?(256|512)$/.test(named)) throw fail(index, `its digest is not one of ${named}`);
      continue;
    }
    if (algorithm === undefined) {
      if (otherDigits.includes(digest.length)) continue;
      throw fail(index, `a digest of ${digest.length} digits is none that is known`);
    }
    const name = escaped === "\\" ? unescaped(written) : written;
    if (name === undefined) throw fail(index, "its name has an escape that is none");
    entries.push({ algorithm, digest: digest.toLowerCase(), name });
  }
  return entries;
}

/**
 * What the file of that name must hash to: by SHA-512 where there is one.
 * @throws `image.bad-sums` when it is not named, or named with two digests of one algorithm
 */
export function sumFor(entries: readonly SumEntry[], name: string, where: string): ExpectedSum {
  const named = entries.filter((entry) => entry.name === name || entry.name === `./${name}`);
  if (named.length === 0) {
    const others = [...new Set(entries.map((entry) => entry.name))];
    throw new BedplateError("image.bad-sums", `${where} has no SHA-256 or SHA-512 of ${name}.`, {
      hint:
        others.length === 0
          ? "Give SHA256SUMS or SHA512SUMS."
          : `It names ${others.slice(0, 8).join(", ")}${others.length > 8 ? " …" : ""}: the input must go by its published name.`,
    });
  }
  const algorithm = named.some((entry) => entry.algorithm === "sha512") ? "sha512" : "sha256";
  const [digest, ...others] = new Set(
    named.flatMap((entry) => (entry.algorithm === algorithm ? entry.digest : [])),
  );
  if (others.length > 0)
    throw new BedplateError("image.bad-sums", `${where} has several digests of ${name} that differ.`);
  assert(digest !== undefined, "an entry has one of the two algorithms");
  return { algorithm, digest };
}

/** Escape, digest, name as written, and the algorithm where the line says it. */
function fieldsOf(line: string): [string, string, string, string?] | undefined {
  const tagged = bsd.exec(line);
  if (tagged !== null) return [tagged[1]!, tagged[4]!, tagged[3]!, tagged[2]!];
  const plain = coreutils.exec(line);
  return plain === null ? undefined : [plain[1]!, plain[2]!, plain[3]!];
}

function algorithmOf(digest: string): ExpectedSum["algorithm"] | undefined {
  return (["sha256", "sha512"] as const).find((algorithm) => hexDigits[algorithm] === digest.length);
}

/** Of coreutils: `\\`, `\n` and `\r`, nothing else. */
function unescaped(written: string): string | undefined {
  if (/\\(?![\\nr])/.test(written.replaceAll("\\\\", ""))) return undefined;
  return written.replace(/\\([\\nr])/g, (_, letter: string) =>
    letter === "n" ? "\n" : letter === "r" ? "\r" : "\\",
  );
}
