// The audit's chain: what holds, and that each way of tampering is named for what it is.
import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type AuditAnchor, type AuditLine, auditFaults, nextAuditLine } from "../../protocol/audit.ts";

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

function chainOf(length: number): (AuditLine & { seq: number })[] {
  const lines: (AuditLine & { seq: number })[] = [];
  for (let i = 0; i < length; i++) {
    const entry = {
      at: i,
      event: "accepted",
      command: `c${i}`,
      kind: "image.deploy",
      detail: { i },
    } as const;
    lines.push(nextAuditLine(lines.at(-1), entry, sha256));
  }
  return lines;
}

const faultsOf = (
  lines: readonly AuditLine[],
  heads: readonly AuditAnchor[] = [],
  anchor: AuditAnchor | undefined = undefined,
) => auditFaults({ anchor, lines }, heads, sha256).map(({ fault }) => fault);

/** The same entry with another detail, its hash made anew. */
function edited(line: AuditLine): AuditLine {
  const text = JSON.stringify({ ...JSON.parse(line.text), detail: { edited: true } });
  return { text, hash: sha256(text) };
}

describe("a chain", () => {
  const chain: readonly AuditLine[] = chainOf(8);
  const headOf = (seq: number) => ({ seq, hash: chain[seq - 1]!.hash });

  test("holds as it was written, with heads of any moment", () => {
    expect(faultsOf(chain, [headOf(1), headOf(5), headOf(8)])).toEqual([]);
    expect(faultsOf([])).toEqual([]);
  });

  test("holds from its anchor on, after older entries were pruned", () => {
    expect(faultsOf(chain.slice(3), [headOf(3), headOf(8), headOf(1)], headOf(3))).toEqual([]);
    expect(faultsOf([], [headOf(8)], headOf(8))).toEqual([]);
    const line = nextAuditLine(
      headOf(8),
      { at: 9, event: "ended", command: null, kind: null, detail: {} },
      sha256,
    );
    expect(faultsOf([line], [headOf(8)], headOf(8))).toEqual([]);
  });

  test("names an entry whose text was edited", () => {
    const faults = auditFaults(
      { anchor: undefined, lines: chain.with(2, { ...edited(chain[2]!), hash: chain[2]!.hash }) },
      [],
      sha256,
    );
    expect(faults).toEqual([expect.objectContaining({ fault: "edited", seq: 3 })]);
  });

  test("names an entry that was edited and hashed anew, by the one after it", () => {
    const lines = chain.with(2, edited(chain[2]!));
    expect(auditFaults({ anchor: undefined, lines }, [], sha256)).toEqual([
      expect.objectContaining({ fault: "edited", seq: 3 }),
    ]);
  });

  test("names the last one edited and hashed anew only by a head: a fork", () => {
    const lines = chain.with(7, edited(chain[7]!));
    expect(faultsOf(lines)).toEqual([]);
    expect(faultsOf(lines, [headOf(8)])).toEqual(["forked"]);
  });

  test("names entries deleted in the middle and at the start", () => {
    const middle = auditFaults({ anchor: undefined, lines: chain.toSpliced(3, 2) }, [], sha256);
    expect(middle).toEqual([expect.objectContaining({ fault: "deleted", from: 4, to: 5 })]);
    expect(faultsOf(chain.slice(1))).toEqual(["deleted"]);
    expect(faultsOf(chain.slice(4), [], headOf(3))).toEqual(["deleted"]);
  });

  test("names a chain that was cut off, by a head beyond its end", () => {
    expect(faultsOf(chain.slice(0, 6))).toEqual([]);
    expect(faultsOf(chain.slice(0, 6), [headOf(8)])).toEqual(["truncated"]);
    expect(faultsOf([], [headOf(1)])).toEqual(["truncated"]);
  });

  test("names a second chain that was grown from the middle", () => {
    const other = chainOf(4);
    for (let i = 0; i < 6; i++)
      other.push(
        nextAuditLine(
          other.at(-1),
          { at: 100 + i, event: "started", command: null, kind: null, detail: {} },
          sha256,
        ),
      );
    expect(faultsOf(other, [headOf(3)])).toEqual([]);
    expect(faultsOf(other, [headOf(6)])).toEqual(["forked"]);
  });

  test("names an entry that comes twice, and what is no entry at all", () => {
    expect(faultsOf([...chain, chain[7]!])).toEqual(["forked"]);
    expect(faultsOf(chain.with(4, { text: "[]", hash: chain[4]!.hash }))).toContain("edited");
    expect(faultsOf(chain.with(4, { text: "not JSON", hash: "" }))).toContain("edited");
  });

  test("never holds after a change, whatever it is", () => {
    fc.assert(
      fc.property(
        fc.nat({ max: 7 }),
        fc.constantFrom("edit", "delete", "swap", "repeat", "rehash"),
        (at, how) => {
          const lines: AuditLine[] = [...chain];
          if (how === "edit") lines[at] = { ...edited(chain[at]!), hash: chain[at]!.hash };
          if (how === "delete") lines.splice(at, 1);
          if (how === "swap") [lines[at], lines[(at + 1) % 8]] = [lines[(at + 1) % 8]!, lines[at]!];
          if (how === "repeat") lines.splice(at, 0, chain[at]!);
          if (how === "rehash") lines[at] = edited(chain[at]!);
          expect(faultsOf(lines, [headOf(8)])).not.toEqual([]);
        },
      ),
    );
  });
});
