// Files of a host's signed audit heads, in the form that its agent keeps: each head by the host, then by the controller.
import { existsSync, readFileSync } from "node:fs";
import type { AuditHeadList } from "../protocol/api.ts";

/** Where root's agent keeps its own. */
const keptByAgent = "/var/lib/bedplate/agent/audit-heads.jsonl";

/** The files given, else what this host's agent keeps. */
export function headFilesOf(given: readonly string[] | undefined): readonly string[] {
  if (given !== undefined) return given;
  return process.geteuid?.() === 0 && existsSync(keptByAgent) ? [keptByAgent] : [];
}

/**
 * The controller's keys that the files name. They only ever add heads that the chain must agree with: a false one can
 * raise an alarm, never hide what is wrong.
 */
export function keysInHeads(files: readonly string[]): readonly string[] {
  const keys = new Set<string>();
  for (const file of files) {
    for (const line of textOf(file).split("\n")) {
      const key = keyOf(line);
      if (key !== undefined) keys.add(key);
    }
  }
  return [...keys];
}

/** The newest last, as they came to be. */
export function headLines({ auditKey, heads }: AuditHeadList): string[] {
  return heads
    .toReversed()
    .flatMap(({ seq, hash, signature, countersignature }) => [
      JSON.stringify({ seq, hash, signature, by: "host" }),
      JSON.stringify({ seq, hash, signature: countersignature, by: "controller", auditKey }),
    ]);
}

// A file that cannot be read is told by whoever verifies.
function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function keyOf(line: string): string | undefined {
  try {
    const { auditKey } = JSON.parse(line) as { auditKey?: unknown };
    return typeof auditKey === "string" ? auditKey : undefined;
  } catch {
    return undefined;
  }
}
