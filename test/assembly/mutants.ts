// `npm run mutants`: breaks the kernels on purpose, one break at a time in a copy, and shows that the tests turn red for each.
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

interface Mutant {
  readonly what: string;
  readonly file: string;
  /** Must occur once. */
  readonly from: string;
  readonly to: string;
}

const generator = "assembly/kernel-sources.ts";
const blake3 = "assembly/kernels/blake3.ts";
const compare = "assembly/kernels/compare.ts";
const meter = "assembly/kernels/meter.ts";
const histogram = "assembly/kernels/histogram.ts";

const mutants: readonly Mutant[] = [
  {
    what: "a rotate by one bit too few (vectors)",
    file: generator,
    from: "32 - bits",
    to: "31 - bits",
  },
  {
    what: "a rotate by another amount (scalar)",
    file: generator,
    from: "{bits})`,\n};",
    to: "{bits === 7 ? 8 : bits})`,\n};",
  },
  {
    what: "a byte rotate's mask with two bytes exchanged",
    file: generator,
    from: "memory.data<u8>([2, 3, 0, 1,",
    to: "memory.data<u8>([3, 2, 0, 1,",
  },
  {
    what: "two message words exchanged in the permutation",
    file: generator,
    from: "[2, 6, 3, 10, 7, 0,",
    to: "[2, 6, 3, 10, 0, 7,",
  },
  {
    what: "the chunk counter's carry dropped in a lane",
    file: generator,
    from: "2, <i32>(c2 >> 32)",
    to: "2, <i32>(counter >> 32)",
  },
  {
    what: "the chunk counter's carry dropped in the fifth strand",
    file: generator,
    from: "s13 = <u32>(c4 >> 32)",
    to: "s13 = <u32>(counter >> 32)",
  },
  {
    what: "the start flag kept for all blocks (lanes)",
    file: generator,
    from: "flags &= ~startFlags;",
    to: "",
  },
  {
    what: "the end flag one block early (lanes)",
    file: generator,
    from: "block == blocks - 1",
    to: "block >= blocks - 2",
  },
  {
    what: "no root flag at the last chunk",
    file: blake3,
    from: "flags | chunkEnd | last, out)",
    to: "flags | chunkEnd, out)",
  },
  {
    what: "a short last block padded with what was there",
    file: blake3,
    from: "memory.fill(blockOffset, 0, blockBytes);",
    to: "",
  },
  {
    what: "the odd chaining value of a level dropped",
    file: blake3,
    from: "if (count & 1) memory.copy(values + pairs * digestBytes,",
    to: "if (false) memory.copy(values + pairs * digestBytes,",
  },
  {
    what: "a stream's complete subtrees merged once only",
    file: blake3,
    from: "for (; index & 1; index >>= 1) {",
    to: "for (; index & 1; index = 0) {",
  },
  {
    what: "the group pass always content with the digest",
    file: blake3,
    from: "equalBytes(digestOffset, expectedOffset, digestBytes)",
    to: "equalBytes(digestOffset, digestOffset, digestBytes)",
  },
  {
    // One past their end is caught by the memory's own: the windows are the last that is in it.
    what: "one byte before the windows allowed",
    file: blake3,
    from: "address < <usize>windowsOffset",
    to: "address < <usize>windowsOffset - 1",
  },
  {
    what: "the zero test blind to a last odd byte",
    file: compare,
    from: "for (; address < end; address++) if (load<u8>(address)) return false;",
    to: "",
  },
  {
    what: "equality blind to a quarter of a stretch",
    file: compare,
    from: "if (v128.any_true(v128.or(low, high)))",
    to: "if (v128.any_true(low))",
  },
  {
    what: "numbers beyond 64 bits wrap around",
    file: meter,
    from: "value > 1844674407370955161 ||",
    to: "value > 18446744073709551614 ||",
  },
  {
    what: "an unchanged counter taken for a reset",
    file: meter,
    from: "if (value >= previous) delta",
    to: "if (value > previous) delta",
  },
  {
    what: "zigzag without its sign",
    file: meter,
    from: "^ <u64>(difference >> 63)",
    to: "",
  },
  {
    what: "a histogram's upper bounds left out",
    file: histogram,
    from: "mantissa > load<u64>(",
    to: "mantissa >= load<u64>(",
  },
];

const root = fileURLToPath(new URL("../..", import.meta.url));
const suite = ["blake3", "group-kernel", "meter", "histogram"].map((name) => `test/assembly/${name}.test.ts`);

const copy = await mkdtemp(join(tmpdir(), "bedplate-mutants-"));
try {
  await prepareCopy();
  process.exitCode = (await runMutants()) ? 0 : 1;
} finally {
  await rm(copy, { recursive: true });
}

async function runMutants(): Promise<boolean> {
  const intact = await runSuite();
  console.log(`${"nothing broken".padEnd(60)} ${intact === undefined ? "green" : `RED: ${intact}`}`);
  if (intact !== undefined) return false;
  let allRed = true;
  for (const { what, file, from, to } of mutants) {
    const text = await readFile(join(root, file), "utf8");
    if (text.split(from).length !== 2) throw new Error(`"${from}" does not stand once in ${file}`);
    await writeFile(
      join(copy, file),
      text.replace(from, () => to),
    );
    const found = await runSuite();
    console.log(`${what.padEnd(60)} ${found === undefined ? "GREEN: not found" : `red: ${found}`}`);
    allRed &&= found !== undefined;
    await writeFile(join(copy, file), text);
  }
  return allRed;
}

/** All that the suite needs; packages by links, but with a cache for the compiler's output of its own. */
async function prepareCopy(): Promise<void> {
  for (const path of [
    "assembly",
    "protocol",
    "test/assembly",
    "vitest.config.ts",
    "tsconfig.base.json",
    "package.json",
  ]) {
    await mkdir(dirname(join(copy, path)), { recursive: true });
    await cp(join(root, path), join(copy, path), { recursive: true });
  }
  const modules = join(copy, "node_modules");
  await mkdir(modules);
  for (const name of await readdir(join(root, "node_modules"))) {
    if (!name.startsWith(".")) await symlink(join(root, "node_modules", name), join(modules, name));
  }
  await writeFile(
    join(copy, "build.ts"),
    'import { buildKernels } from "./assembly/build.ts";\nawait buildKernels(new URL("./dist", import.meta.url).pathname);\n',
  );
}

/** Builds and tests the copy: which tests fail, undefined when none does. */
async function runSuite(): Promise<string | undefined> {
  const run = promisify(execFile);
  const options = { cwd: copy, timeout: 180_000, maxBuffer: 1 << 26 };
  try {
    await run(process.execPath, ["build.ts"], options);
  } catch (cause) {
    throw new Error("A break must compile: else no test has seen it.", { cause });
  }
  const reportFile = join(copy, "report.json");
  await rm(reportFile, { force: true });
  const vitest = join(root, "node_modules/vitest/vitest.mjs");
  try {
    await run(
      process.execPath,
      [
        vitest,
        "run",
        "--root",
        copy,

        "--reporter",
        "json",
        "--outputFile",
        reportFile,
        ...suite,
      ],
      options,
    );
    return undefined;
  } catch (cause) {
    const report = await readFile(reportFile, "utf8").catch(() => {
      throw new Error("vitest did not run", { cause });
    });
    return failures(JSON.parse(report) as Report);
  }
}

interface Report {
  readonly testResults: readonly {
    readonly message: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

function failures(report: Report): string {
  const failed = report.testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ status }) => status === "failed");
  if (failed[0] === undefined) return report.testResults.map(({ message }) => message).join(" ");
  return `${failed.length} tests, as "${failed[0].fullName}"`;
}
