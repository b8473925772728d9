// The repository's own rules: who may import whom, where the outside world is touched, how long a file may grow.
import { globSync, readFileSync } from "node:fs";
import { dirname, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const sources = globSync("{protocol,assembly,agent,controller,cli}/**/*.ts", { cwd: root })
  .filter((path) => !path.startsWith(`assembly${sep}kernels`))
  .map((path) => ({ path, text: readFileSync(`${root}${path}`, "utf8") }));
const code = (text: string) => text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
const importsOf = (text: string) =>
  [...code(text).matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map((match) => match[1]!);
const inside = (path: string, places: readonly string[]) => places.some((place) => path.startsWith(place));

test("there are sources to check", () => {
  expect(sources.length).toBeGreaterThan(50);
});

/** What each folder may import of the others. */
const arrows: Record<string, readonly string[]> = {
  protocol: ["protocol"],
  assembly: ["assembly", "protocol"],
  agent: ["agent", "assembly", "protocol"],
  controller: ["controller", "assembly", "protocol"],
  cli: ["cli", "agent", "controller", "assembly", "protocol"],
};

/** Of agent and controller the cli may import these entries, nothing behind them. */
const entries = [
  "agent/main.ts",
  "agent/host-tools.ts",
  "controller/main.ts",
  "controller/images/import.ts",
  "controller/images/verify.ts",
];

test("imports follow the arrows", () => {
  const wrong: string[] = [];
  for (const { path, text } of sources) {
    const folder = path.split("/")[0]!;
    for (const target of importsOf(text).filter((name) => name.startsWith("."))) {
      const resolved = normalize(`${dirname(path)}/${target}`);
      if (!arrows[folder]!.includes(resolved.split("/")[0]!)) wrong.push(`${path} imports ${resolved}`);
      if (folder === "cli" && /^(agent|controller)\//.test(resolved) && !entries.includes(resolved))
        wrong.push(`${path} imports ${resolved}, which is no entry`);
    }
  }
  expect(wrong).toEqual([]);
});

/**
 * The floors of agent and controller, from the ground up: what each folder may import of those before it. The files beside
 * the folders are the roof: they build and connect the rest, and nothing imports them but the roof.
 */
const floors: Record<string, Record<string, readonly string[]>> = {
  agent: {
    host: [],
    door: ["host"],
    telemetry: ["host"],
    link: ["door", "host"],
    operations: ["link", "door", "host"],
    devices: ["host"],
    policy: ["devices", "host"],
    commands: ["policy", "devices", "host"],
    executor: ["commands", "policy", "devices", "door", "host"],
  },
  controller: {
    machine: [],
    rules: [],
    store: ["rules"],
    authority: ["store", "machine"],
    telemetry: ["store", "machine"],
    images: ["store", "machine"],
    link: ["telemetry", "authority", "store", "rules", "machine"],
    hosts: ["link", "store", "rules", "machine"],
    commands: ["hosts", "link", "images", "store", "rules", "machine"],
    api: ["commands", "hosts", "link", "images", "telemetry", "authority", "store", "rules", "machine"],
  },
};

/** Which file imports which of ours, types too. */
const imports = new Map(
  globSync("{protocol,assembly,agent,controller,cli}/**/*.ts", { cwd: root }).map((path) => {
    const targets = importsOf(readFileSync(`${root}${path}`, "utf8")).filter((name) => name.startsWith("."));
    // AssemblyScript names its files without the extension.
    return [path, targets.map((name) => normalize(`${dirname(path)}/${name.replace(/(\.ts)?$/, ".ts")}`))];
  }),
);

test.each(Object.keys(floors))("in %s every folder imports only from the floors below it", (place) => {
  const folders = floors[place]!;
  const names = Object.keys(folders);
  const folderOf = (path: string) => path.split("/").slice(1, -1)[0];
  const arrows = [...imports]
    .filter(([path]) => path.startsWith(`${place}/`) && folderOf(path) !== undefined)
    .flatMap(([path, targets]) =>
      targets
        .filter((target) => target.startsWith(`${place}/`) && folderOf(target) !== folderOf(path))
        .map((target) => ({ path, target, from: folderOf(path)!, to: folderOf(target) ?? "the roof" })),
    );
  expect(
    arrows
      .filter(({ from, to }) => !folders[from]?.includes(to))
      .map(({ path, target }) => `${path} imports ${target}`),
  ).toEqual([]);
  // And the list is what it says: a floor stands on those before it, and on each of them.
  const stated = names.flatMap((from, at) => folders[from]!.map((to) => ({ from, to, at })));
  expect(stated.filter(({ to, at }) => !names.slice(0, at).includes(to))).toEqual([]);
  expect(
    stated
      .filter(({ from, to }) => !arrows.some((arrow) => arrow.from === from && arrow.to === to))
      .map(({ from, to }) => `${from} no longer imports ${to}`),
  ).toEqual([]);
});

/** Of files that import each other in circles, and those between two circles: what each imports of the others. */
function circlesIn(imports: ReadonlyMap<string, readonly string[]>): string[] {
  let rest = imports;
  for (;;) {
    const imported = new Set([...rest.values()].flat());
    const kept = new Map(
      [...rest]
        .map(([file, targets]) => [file, targets.filter((target) => rest.has(target))] as const)
        .filter(([file, targets]) => targets.length > 0 && imported.has(file)),
    );
    if (kept.size === rest.size)
      return [...kept].map(([file, targets]) => `${file} imports ${targets.join(", ")}`);
    rest = kept;
  }
}

test("no files import each other in a circle, not even types", () => {
  expect(imports.size).toBeGreaterThan(sources.length);
  expect(circlesIn(imports)).toEqual([]);
});

test("a planted circle is found", () => {
  const planted = { above: ["one"], one: ["two", "below"], two: ["three"], three: ["one"], below: [] };
  expect(circlesIn(new Map(Object.entries(planted)))).toEqual([
    "one imports two",
    "two imports three",
    "three imports one",
  ]);
});

test("protocol is pure: msgpackr, the schema library and the web's own globals", () => {
  const packages = sources
    .filter(({ path }) => path.startsWith("protocol/"))
    .flatMap(({ text }) => importsOf(text).filter((name) => !name.startsWith(".")));
  expect([...new Set(packages)].sort()).toEqual(["msgpackr", "typebox", "typebox/compile"]);
});

/** What reaches outside the program, and the only places that may. */
const outside: readonly { what: RegExp; places: readonly string[] }[] = [
  {
    what: /\bDate\.now\(|\bnew Date\(\)|\bMath\.random\(/,
    places: ["agent/host/", "controller/machine/", "cli/clock.ts"],
  },
  {
    what: /(?<![.\w])(setTimeout|setInterval)\(/,
    places: ["agent/host/", "controller/machine/", "cli/clock.ts"],
  },
  {
    what: /from "node:fs(\/promises)?"/,
    places: [
      "agent/host/",
      "agent/door/",
      "agent/devices/",
      "agent/telemetry/",
      "controller/store/",
      "controller/images/",
      "controller/machine/",
      "assembly/",
      "cli/",
    ],
  },
  {
    what: /from "node:child_process"/,
    places: ["agent/host/", "agent/door/", "controller/images/", "cli/", "assembly/build.ts"],
  },
];

test("clocks, randomness, files and processes are touched in their own places only", () => {
  const wrong = sources.flatMap(({ path, text }) =>
    outside
      .filter(({ what, places }) => what.test(code(text)) && !inside(path, places))
      .map(({ what }) => `${path} has ${what.exec(code(text))![0]}`),
  );
  expect(wrong).toEqual([]);
});

test("the workers of an image operation load no schemas: those cost each of them some MiB", () => {
  const seen = new Set<string>();
  const reach = (path: string): string[] => {
    if (seen.has(path)) return [];
    seen.add(path);
    const { text } = sources.find((source) => source.path === path)!;
    return importsOf(text.replace(/^import type [\s\S]*?;$/gm, "")).flatMap((target) =>
      target.startsWith(".") ? reach(normalize(`${dirname(path)}/${target}`)) : [target],
    );
  };
  const packages = reach("agent/devices/image-worker.ts").filter((name) => !name.startsWith("node:"));
  expect(seen.size).toBeGreaterThan(10);
  expect(packages).toEqual([]);
});

test("nobody imports node:http by name: that calls its getters, of which one loads all of fetch, 12 MB and 25 ms", () => {
  const wrong = sources.filter(({ text }) =>
    importsOf(code(text).replace(/^import type [^;]*;$/gm, "")).includes("node:http"),
  );
  expect(wrong.map(({ path }) => path)).toEqual([]);
});

test("only agent/devices touches block devices", () => {
  const wrong = sources
    .filter(
      ({ path, text }) =>
        /O_DIRECT|O_EXCL/.test(code(text)) && path.startsWith("agent/") && !path.startsWith("agent/devices/"),
    )
    .map(({ path }) => path);
  expect(wrong).toEqual([]);
});

/**
 * Where it is decided what becomes of operations, offers, records and readings: pure, so that the simulator drives the very
 * same code. A file in this list imports nothing but others of it, protocol/ and types.
 */
const decisions = [
  "agent/executor/admit.ts",
  "agent/executor/fence.ts",
  "agent/executor/link-duty.ts",
  "agent/executor/plans.ts",
  "agent/link/backoff.ts",
  "agent/link/credit.ts",
  "agent/link/outbox-rules.ts",
  "agent/link/redial.ts",
  "agent/link/sample-queue.ts",
  "agent/operations/endings.ts",
  "agent/operations/following.ts",
  "agent/operations/here.ts",
  "agent/operations/reduce.ts",
  "agent/operations/state.ts",
  "agent/operations/steps.ts",
  "agent/policy/exec-rules.ts",
  "agent/policy/rules.ts",
  "agent/policy/windows.ts",
  "controller/commands/explain.ts",
  "controller/hosts/explain.ts",
  "controller/link/contest.ts",
  "controller/rules/generation.ts",
  "controller/rules/holding.ts",
  "controller/rules/offering.ts",
  "controller/rules/output-rule.ts",
  "controller/rules/record-rule.ts",
  "controller/rules/reduce.ts",
  "controller/rules/retention.ts",
  "controller/rules/signatures.ts",
  "controller/rules/standing.ts",
];

test("decisions are pure: they import each other, protocol and types, and wait for nothing", () => {
  const wrong = sources
    .filter(({ path }) => decisions.includes(path))
    .flatMap(({ path, text }) => {
      const values = code(text).replace(/^import type [\s\S]*?;$/gm, "");
      const foreign = importsOf(values)
        .map((target) => (target.startsWith(".") ? normalize(`${dirname(path)}/${target}`) : target))
        .filter((target) => !target.startsWith("protocol/") && !decisions.includes(target));
      return [
        ...foreign.map((target) => `${path} imports ${target}`),
        ...(/\b(await|async)\b/.test(values) ? [`${path} waits for something`] : []),
      ];
    });
  expect(wrong).toEqual([]);
  expect(decisions.filter((path) => !sources.some((source) => source.path === path))).toEqual([]);
});

const states =
  "waiting|offered|received|accepted|running|refused|succeeded|failed|cancelled|timed-out|indeterminate";
const compares = "(?:[<>]=?|[=!]==)";
const number =
  "[\\w.!?()]*\\b(?:generation|epoch|seq|mark|lastSeq|eventSeq|endingSeq|acknowledged|highest)\\b(?!:)";

/** Forms in which something is decided by an operation's state, a generation, an epoch, or how far records have come. */
const deciding: readonly RegExp[] = [
  new RegExp(`\\b[sS]tate\\b[!?]?\\s*[=!]==?\\s*"(?:${states})"`),
  new RegExp(`"(?:${states})"\\s*[=!]==?\\s*[\\w.!?]*\\b[sS]tate\\b`),
  /\bswitch \((?:[\w!?]+\.)*state\)/,
  /\b(?:if|while) \(.*\bisTerminal\(/,
  /\bisTerminal\([^()]*\) *(?:\?(?! [01] : [01])|&&|\|\|)/,
  new RegExp(`${number}[)!]*\\s*${compares}\\s*(?!undefined|null)[\\w(-]`),
  new RegExp(`[\\w)\\]]\\s*${compares}\\s*${number}`),
];

function decisionsIn(text: string): string[] {
  const source = code(text);
  // What stands in quotes is SQL or a sentence; but the states that something is compared with are in quotes too.
  const bare = source.replace(/`[^`]*`|"(?:[^"\\\n]|\\.)*"/g, (quoted) =>
    new RegExp(`^"(?:${states})"$`).test(quoted) ? quoted : `""${"\n".repeat(quoted.split("\n").length - 1)}`,
  );
  const lines = source.split("\n");
  return bare
    .split("\n")
    .flatMap((line, index) => (deciding.some((form) => form.test(line)) ? [lines[index]!.trim()] : []));
}

/** Where operations, offers, records and readings go. */
const flows = [
  "agent/executor/",
  "agent/link/",
  "agent/operations/",
  "agent/policy/",
  "controller/commands/",
  "controller/link/",
  "controller/rules/",
  "controller/store/",
];

/** What looks like a decision elsewhere, and why it is none that a simulator could miss. */
const noDecisions: Readonly<Record<string, readonly string[]>> = {
  // What is written down or told, not what is done.
  "agent/executor/run.ts": ['return isTerminal(state) ? "ended" : "open";'],
  "controller/link/handshake.ts": ["if ((hello.epochSeen ?? 0) > epoch) {"],
  "agent/link/epoch.ts": [
    "if (epoch > highest) {",
    "if (epoch >= highest || epoch === warnedOf) return;",
    "return Number.isSafeInteger(epoch) && epoch > 0 ? epoch : 0;",
  ],
  // The answer to a caller that asks too late; the reducer would change nothing.
  "controller/commands/service.ts": ["if (isTerminal(before.state)) {"],
  // Old entries are forgotten, those that have ended alone.
  "agent/executor/journal.ts": [
    'if (isTerminal(state as OperationState)) sql("DELETE FROM operations WHERE id = ?").run(id!);',
  ],
  // A program that a dead executor left is ended before anything is decided.
  "agent/executor/leftovers.ts": [
    'if (known?.effect !== "once" || known.state !== "running") return undefined;',
  ],
  // Each connection hears and stores everything once; the numbers are those of `judgeRecord` and of the journal.
  "agent/executor/follower.ts": ["if (event.seq <= lastSeq) return;"],
  "controller/link/session.ts": ["if (message.seq <= this.#batchesTaken) return this.#acknowledgeSoon();"],
  // Another chain: the audit's, whose rules are in protocol/.
  "controller/store/audit-chain.ts": [
    "const heads = head === undefined || head.seq < anchor.seq ? [] : [head];",
    "lines.length === 0 ? seq >= last.seq : seq >= last.seq && seq < end.seq,",
  ],
  "agent/executor/audit-check.ts": ["headsHeld: good.filter(({ seq }) => seq >= first).length,"],
  "agent/link/audit-heads.ts": ["if (newest === undefined || seq > newest.seq) newest = { seq, hash };"],
};

test("nothing is decided about operations, generations and records outside the files that decide", () => {
  const found = sources
    .filter(({ path }) => inside(path, flows) && !decisions.includes(path))
    .flatMap(({ path, text }) => decisionsIn(text).map((line) => ({ path, line })));
  const excused = ({ path, line }: { path: string; line: string }) => noDecisions[path]?.includes(line);
  expect(found.filter((each) => !excused(each)).map(({ path, line }) => `${path}: ${line}`)).toEqual([]);
  // And what is excused is still there.
  const all = Object.entries(noDecisions).flatMap(([path, lines]) => lines.map((line) => ({ path, line })));
  expect(
    all.filter(({ path, line }) => !found.some((each) => each.path === path && each.line === line)),
  ).toEqual([]);
});

test.each([
  'if (operation.state === "received") start(operation);',
  'const open = "running" !== known.state;',
  "switch (command.state) {",
  "if (!isTerminal(known.state)) return offer(known);",
  'const next = isTerminal(state) ? "replay" : "start";',
  "return isTerminal(state) || offered;",
  "if (offer.generation <= fence.generation) refuse(offer);",
  "const stale = seen > offer.generation;",
  "while (epoch < message.epoch) wait();",
  "if (record.seq <= stored) return;",
  "const known = mark >= record.seq;",
])("a planted decision is found: %s", (line) => {
  expect(decisionsIn(`${line}\n`)).toEqual([line]);
});

test.each([
  "put({ state, generation, epoch, seq });",
  "ended: isTerminal(after.state) ? 1 : 0,",
  'database.run("delete from records where seq <= ?", seq);',
  "type Generation = Map<string, number>;",
  "const step = (seq: number) => list.all(seq);",
])("what only passes on is not: %s", (line) => {
  expect(decisionsIn(`${line}\n`)).toEqual([]);
});

test("no source file grows past 500 lines", () => {
  expect(sources.filter(({ text }) => text.split("\n").length > 500).map(({ path }) => path)).toEqual([]);
});

test("every source file opens with a sentence on what it owns", () => {
  const wrong = sources.filter(({ text }) => !/^(#!.*\n)?(\/\/ |\/\*\*)/.test(text)).map(({ path }) => path);
  expect(wrong).toEqual([]);
});
