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
const entries = ["agent/main.ts", "agent/host-tools.ts", "controller/main.ts", "controller/images/import.ts"];

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
    places: ["agent/host/", "controller/system.ts", "cli/clock.ts"],
  },
  {
    what: /(?<![.\w])(setTimeout|setInterval)\(/,
    places: ["agent/host/", "controller/system.ts", "cli/clock.ts"],
  },
  {
    what: /from "node:fs(\/promises)?"/,
    places: [
      "agent/host/",
      "agent/devices/",
      "agent/telemetry/",
      "controller/store/",
      "controller/images/",
      "controller/files.ts",
      "assembly/",
      "cli/",
    ],
  },
  {
    what: /from "node:child_process"/,
    places: ["agent/host/", "controller/images/", "cli/", "assembly/build.ts"],
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

test("only agent/devices touches block devices", () => {
  const wrong = sources
    .filter(
      ({ path, text }) =>
        /O_DIRECT|O_EXCL/.test(code(text)) && path.startsWith("agent/") && !path.startsWith("agent/devices/"),
    )
    .map(({ path }) => path);
  expect(wrong).toEqual([]);
});

test("no source file grows past 500 lines", () => {
  expect(sources.filter(({ text }) => text.split("\n").length > 500).map(({ path }) => path)).toEqual([]);
});

test("every source file opens with a sentence on what it owns", () => {
  const wrong = sources.filter(({ text }) => !/^(#!.*\n)?(\/\/ |\/\*\*)/.test(text)).map(({ path }) => path);
  expect(wrong).toEqual([]);
});
