// `bedplate audit api|heads`: who called what of the controller, and what it has of a host's audit; `audit show|verify` on the host.
import { type Command, InvalidArgumentError } from "commander";
import type { AuditCheck } from "../../agent/host-tools.ts";
import type { AuditChainView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { headLines } from "../audit-heads.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { countOption, countUpTo, digestOption, example } from "../options.ts";
import { facts, formatTime, plain, table } from "../output.ts";
import { addJournalOption, type HostOptions, noJournal, readingPaths } from "./host-options.ts";

interface ApiOptions {
  readonly limit: number;
  readonly verify?: boolean;
  readonly head?: { readonly seq: number; readonly hash: string };
}

export function addAuditCommand(program: Command, perform: Performer): void {
  const noun = program.command("audit").description("what was done, by whom");
  const api = noun
    .command("api")
    .description("calls to the controller's API that changed something or were to, newest first")
    .option("--limit <n>", "at most so many, up to 1000", countUpTo(1000), 50)
    .option("--verify", "instead: whether its chain of hashes holds; exit code 1 if not")
    .option(
      "--head <seq:hash>",
      "with --verify: a head that was printed before, which it must still have",
      headOption,
    )
    .action(
      perform<ApiOptions>(async ({ terminal, api }, { limit, verify, head }) => {
        if (verify === true || head !== undefined) {
          const chain = await (await api()).verifyAudit(head);
          terminal.document(chain);
          terminal.print(chainText(chain));
          return chain.faults.length === 0 ? exitCodes.ok : exitCodes.failed;
        }
        const entries = await (await api()).audit(limit);
        terminal.document({ entries });
        terminal.print(
          entries.length === 0
            ? "Nothing was changed yet."
            : table(entries, [
                { title: "TIME", of: (entry) => formatTime(entry.at) },
                { title: "TOKEN", of: (entry) => `${entry.token.name} (${entry.token.id})` },
                { title: "FROM", of: (entry) => entry.address },
                { title: "CALL", of: (entry) => `${entry.method} ${entry.route}` },
                { title: "OBJECT", of: (entry) => entry.object },
                {
                  title: "OUTCOME",
                  of: (entry) => (entry.code === null ? `${entry.status}` : `${entry.status} ${entry.code}`),
                },
              ]),
        );
        return exitCodes.ok;
      }),
    );
  example(api, "bedplate audit api --limit 20", "bedplate audit api --verify");

  const show = noun
    .command("show")
    .description("on a host: what its executor was offered and what it did, oldest first")
    .option("--lines <n>", "the newest so many", countOption, 100);
  addJournalOption(show).action(
    perform<HostOptions & { lines: number }>(async ({ terminal }, options) => {
      const { hasJournal, showAudit } = await import("../../agent/host-tools.ts");
      const paths = await readingPaths(options);
      const journal = hasJournal(paths);
      const lines = journal ? showAudit(paths, options.lines) : [];
      const entries = lines.map(({ text, hash }) => ({ ...entryOf(text), hash }));
      terminal.document({ entries });
      if (!journal) terminal.print(noJournal(paths));
      else terminal.print(entries.length === 0 ? "The audit is empty." : entryTable(entries));
      return exitCodes.ok;
    }),
  );
  example(
    show,
    "bedplate audit show --lines 20",
    "bedplate audit show --journal /mnt/old/var/lib/bedplate/executor",
  );

  const verify = noun
    .command("verify")
    .description(
      "on a host: whether its audit is whole, from its hash chain and the heads that were signed; exit code 1 if not",
    )
    .option(
      "--heads <file>",
      "signed heads, one a line, as `bedplate audit heads HOST` prints them; may be repeated (as root: those that the agent keeps)",
      several,
    )
    .option(
      "--key <key>",
      "the controller's audit key, as `bedplate audit heads` tells it (else the one that the file of heads names)",
      several,
    )
    .option(
      "--host <id>",
      "the host's id, 64 hexadecimal digits, where its executor has not published it",
      digestOption,
    )
    .option("--run <directory>", "the executor's run directory (as root: /run/bedplate)");
  addJournalOption(verify).action(
    perform<HostOptions & { heads?: string[]; key?: string[]; host?: string }>(
      async ({ terminal }, options) => {
        const { verifyAudit } = await import("../../agent/host-tools.ts");
        const { headFilesOf, keysInHeads } = await import("../audit-heads.ts");
        const headFiles = headFilesOf(options.heads);
        const keys = options.key ?? keysInHeads(headFiles);
        const check = await verifyAudit(await readingPaths(options), {
          headFiles,
          keys,
          ...(options.host === undefined ? {} : { host: options.host }),
        });
        for (const key of keys) terminal.note(`countersigned by ${key}`);
        terminal.print(checkText(check));
        if (check.faults.length === 0) {
          terminal.document(check);
          return exitCodes.ok;
        }
        terminal.fail(
          new BedplateError(
            "audit.broken",
            `The audit does not hold: ${check.faults.length === 1 ? "1 fault" : `${check.faults.length} faults`}.`,
            {
              hint: "Keep a copy of the journal before anything else; the controller has the heads: bedplate audit heads HOST.",
            },
          ),
          { ...check },
        );
        return exitCodes.failed;
      },
    ),
  );
  example(
    verify,
    "bedplate audit verify",
    "bedplate audit verify --heads web-1.heads --journal ./copy-of-the-executor's-state",
  );

  const heads = noun
    .command("heads")
    .argument("<host>", "name, id or the beginning of an id")
    .description(
      "what the controller has of a host's audit: its signed heads, one a line, for `audit verify --heads`",
    )
    .option("--limit <n>", "only the newest so many (all that are kept, up to 256)", countUpTo(256))
    .action(
      perform<{ limit?: number }>(async ({ terminal, api }, { limit }, [reference]) => {
        const found = await (await api()).auditHeads(reference!, limit);
        terminal.document(found);
        for (const line of headLines(found)) terminal.print(line);
        terminal.note(`countersigned by ${found.auditKey}`);
        return exitCodes.ok;
      }),
    );
  example(heads, "bedplate audit heads web-1 > web-1.heads");
}

const several = (value: string, before: readonly string[] = []) => [...before, value];

interface Entry {
  readonly seq?: number;
  readonly at?: number;
  readonly event?: string;
  readonly command?: string | null;
  readonly kind?: string | null;
  readonly detail?: Readonly<Record<string, unknown>>;
}

/** What is shown may have been edited: whatever fits is shown, `audit verify` says what does not. */
function entryOf(text: string): Entry {
  try {
    return JSON.parse(text) as Entry;
  } catch {
    return { event: `(no entry: ${text.slice(0, 80)})` };
  }
}

function entryTable(entries: readonly Entry[]): string {
  return table(entries, [
    { title: "SEQ", of: ({ seq }) => (seq === undefined ? null : `${seq}`), align: "right" },
    { title: "TIME", of: ({ at }) => (at === undefined ? null : formatTime(at)) },
    { title: "EVENT", of: ({ event }) => event ?? null },
    { title: "KIND", of: ({ kind }) => kind ?? null },
    { title: "COMMAND", of: ({ command }) => command ?? null },
    {
      title: "DETAIL",
      of: ({ detail }) => (detail === undefined ? null : JSON.stringify(detail).slice(0, 160)),
    },
  ]);
}

function checkText({ entries, anchor, head, heads, headsHeld, faults }: AuditCheck): string {
  return [
    facts([
      ["entries", `${entries}${anchor === undefined ? "" : `, after ${anchor.seq} that were pruned`}`],
      ["head", head === undefined ? "none: the audit is empty" : `${head.seq}  ${head.hash}`],
      ["signed heads", `${heads}, ${headsHeld} of them within what is kept`],
      ["chain", faults.length === 0 ? "holds" : "BROKEN"],
    ]),
    ...faults.map(({ fault, finding }) => `  ${fault}: ${plain(finding)}`),
  ].join("\n");
}

function headOption(text: string): { readonly seq: number; readonly hash: string } {
  const match = /^(\d{1,15}):([0-9a-f]{64})$/.exec(text);
  if (match === null) throw new InvalidArgumentError("A head is SEQ:HASH, as --verify prints it.");
  return { seq: Number(match[1]), hash: match[2]! };
}

function chainText({ entries, anchor, head, faults }: AuditChainView): string {
  const kept = `${entries} entries${anchor.seq === 0 ? "" : ` after ${anchor.seq}, older ones are no longer kept`}`;
  const lines = faults.map(({ fault, finding }) => `${fault}: ${finding}`);
  return [
    faults.length === 0
      ? `The controller's audit is whole: ${kept}.`
      : `The controller's audit does not hold: ${kept}.`,
    ...lines,
    `Its head, to be kept elsewhere and asked for later with --head: ${head.seq}:${head.hash}`,
  ].join("\n");
}
