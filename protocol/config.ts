// Checking a configuration file against its schema, so that an error names file, line and key. Parsing TOML is the caller's.
import type { Static, TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { BedplateError } from "./errors.ts";

/** Parses TOML; throws an Error that may carry `line`. */
export type TomlParser = (text: string) => unknown;

/**
 * A reader of one kind of configuration file. The schema should forbid unknown members, so that a misspelt key is told.
 * @throws `config.invalid` with file, line and key
 */
export function configReader<T extends TSchema>(
  schema: T,
  parse: TomlParser,
): (text: string, file: string) => Static<T> {
  const compiled = Compile(schema);
  return (text, file) => {
    let value: unknown;
    try {
      value = parse(text);
    } catch (cause) {
      const line = cause instanceof Error && "line" in cause ? Number(cause.line) : undefined;
      const reason = cause instanceof Error ? cause.message.split("\n")[0]! : String(cause);
      throw new BedplateError(
        "config.invalid",
        `${file}${line === undefined ? "" : `, line ${line}`}: ${reason}`,
        {
          details: { file, ...(line === undefined ? {} : { line }) },
          cause,
        },
      );
    }
    if (compiled.Check(value)) return value as Static<T>;
    const errors = compiled.Errors(value);
    // A misspelt key is why another one is missing.
    const first = errors.find(({ keyword }) => keyword === "boolean") ?? errors[0];
    const path = (first?.instancePath ?? "").split("/").slice(1);
    const key = path.join(".");
    const line = lineOfKey(text, key.split("."));
    // A member that the schema forbids is checked against the schema `false`.
    const problem =
      first?.keyword === "boolean"
        ? "is not a known key"
        : first?.keyword === "required"
          ? `lacks ${first.params.requiredProperties.map((name) => `"${name}"`).join(" and ")}`
          : (first?.message ?? "does not match its schema");
    throw new BedplateError(
      "config.invalid",
      `${file}${line === undefined ? "" : `, line ${line}`}: ${key === "" ? "the file" : `"${key}"`} ${problem}.`,
      {
        details: { file, key, ...(line === undefined ? {} : { line }) },
      },
    );
  };
}

/** The 1-based line that sets the key at `path` (tables by header, array elements by number); undefined if none does. */
export function lineOfKey(text: string, path: readonly string[]): number | undefined {
  const wanted = path.filter((part) => !/^\d+$/.test(part));
  const element = path.find((part) => /^\d+$/.test(part));
  let table: string[] = [];
  let elements = -1;
  let header: number | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    const opened = /^\s*\[(\[)?\s*([^\]]+?)\s*\]/.exec(line);
    if (opened !== null) {
      table = opened[2]!.split(".").map(unquoted);
      const here = table.join(".") === wanted.slice(0, table.length).join(".");
      if (here && opened[1] !== undefined) elements++;
      if (here && (opened[1] === undefined || element === undefined || elements === Number(element)))
        header = index + 1;
      continue;
    }
    const assigned = /^\s*([A-Za-z0-9_.\-"']+)\s*=/.exec(line);
    if (assigned === null) continue;
    const key = [...table, ...assigned[1]!.split(".").map(unquoted)];
    const inElement =
      element === undefined || table.length === 0 || elements === -1 || elements === Number(element);
    if (inElement && wanted.length > 0 && key.join(".") === wanted.slice(0, key.length).join("."))
      return index + 1;
  }
  return header;
}

function unquoted(part: string): string {
  return part.trim().replace(/^["']|["']$/g, "");
}
