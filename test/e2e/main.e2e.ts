// The main job as a user runs it, from the built program: as root, as an ordinary user, with clocks that are wrong.
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { HostView } from "../../protocol/api.ts";
import { startControllerProcess } from "../contract/controller-process.ts";
import { eventually, openDirectory, startProgram } from "../contract/programs.ts";
import { clockFrom, clocksCanBeWrong } from "../contract/wrong-clock.ts";
import { commandLine } from "../support/command-line.ts";
import { openPrivateRoot } from "../support/private-root.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const program = join(root, "dist/bedplate.js");
const isRoot = process.geteuid?.() === 0;
const has = (tool: string) => spawnSync("sh", ["-c", `command -v ${tool}`]).status === 0;
const node = process.execPath;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "bedplate-e2e-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** The machine's own directories are looked at when the suite has ended: others may have mounted something there now. */
const leftovers = () => ({
  temporary: readdirSync(tmpdir()).filter((name) => name.startsWith("bedplate-demo")),
  loops: has("losetup")
    ? execFileSync("losetup", ["--list", "--noheadings", "--output", "BACK-FILE"])
        .toString()
        .split("\n")
        .filter((line) => line.startsWith(join(tmpdir(), "bedplate-demo")))
    : [],
});

const demoActs = {
  ok: true,
  telemetry: { gaps: 0 },
  deploy: { state: "succeeded" },
  corrupt: { state: "failed", code: "image.corrupt", bytesWrittenOfBadGroup: 0 },
  resume: { state: "succeeded" },
};

test("the demo as this user does every act and leaves nothing behind", () => {
  const before = leftovers();
  const run = spawnSync(node, [program, "demo", "--once", "--json"], { encoding: "utf8", timeout: 600_000 });
  expect(run.stderr === "" || run.status === 0, run.stderr).toBe(true);
  expect(JSON.parse(run.stdout)).toMatchObject(demoActs);
  expect(leftovers()).toEqual(before);
});

describe.runIf(isRoot && has("setpriv") && has("unshare"))("as an ordinary user", () => {
  test("the demo does every act without root", () => {
    // Bound to a place that the user can reach, whatever the checkout's parents allow.
    const script =
      'mount --bind "$1" /mnt && exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs "$2" /mnt/dist/bedplate.js demo --once --json';
    const run = spawnSync(
      "unshare",
      ["--mount", "--propagation", "private", "sh", "-c", script, "sh", root, node.replace(root, "/mnt/")],
      {
        encoding: "utf8",
        timeout: 600_000,
        env: { PATH: process.env.PATH, HOME: "/nonexistent", TMPDIR: tmpdir() },
      },
    );
    expect(run.status, run.stderr).toBe(0);
    expect(JSON.parse(run.stdout)).toMatchObject(demoActs);
  });
});

describe.runIf(clocksCanBeWrong)("a host whose clock is wrong", () => {
  test.each(["2000-01-01 00:00:00", "2040-06-01 00:00:00"])("joins at %s", async (time) => {
    await using hosts = await openDirectory("clock");
    await using controller = await startControllerProcess(hosts.path);
    const { json } = commandLine(
      { HOME: hosts.path, TMPDIR: hosts.path, BEDPLATE_CLIENT: controller.clientFile },
      program,
    );
    const { token } = await json<{ token: string }>(0, "join-token", "create");
    const [config, clock] = [join(hosts.path, "agent.toml"), join(hosts.path, "time")];
    writeFileSync(clock, `@${time}`);
    const state = join(hosts.path, "agent");
    writeFileSync(
      config,
      `controller = "${controller.url}"\nstateDirectory = "${state}"\nname = "clock"\n[metrics]\nlisten = "off"\n`,
    );
    await using root = await openPrivateRoot(hosts.path);
    const argv = [...clockFrom(clock), node, program, "agent", "--config", config, "--join", token];
    await using agent = startProgram({
      argv: root.wrap(argv as [string, ...string[]]),
      logFile: join(hosts.path, "agent.log"),
    });
    await eventually(
      180_000,
      async () => {
        const { hosts: known } = await json<{ hosts: HostView[] }>(0, "hosts");
        return known.some(({ name, connection }) => name === "clock" && connection === "online");
      },
      () => agent.log().slice(-1500),
    );
    expect(agent.log()).toContain(`"time":${new Date(`${time}`).getTime()}`.slice(0, 12));
  });
});

describe("bedplate hash", () => {
  test.runIf(has("b3sum"))("prints what b3sum and sha256sum print, over a thousand random files", () => {
    const names = Array.from({ length: 1000 }, (_, i) => {
      const name = join(directory, i === 7 ? "back\\slash" : i === 8 ? "new\nline" : `file ${i}`);
      writeFileSync(name, randomBytes(i < 900 ? (i * 37) % 5000 : i * 3001));
      return name;
    });
    const out = (tool: string, ...argv: string[]) =>
      spawnSync(tool, [...argv, ...names], { maxBuffer: 1 << 26 }).stdout.toString();
    expect(out(node, program, "hash")).toBe(out("b3sum"));
    expect(out(node, program, "hash", "--algorithm", "sha256")).toBe(out("sha256sum"));
    const piped = spawnSync(node, [program, "hash", "-"], {
      input: readFileSync(names[999]!),
    }).stdout.toString();
    expect(piped).toBe(spawnSync("b3sum", ["-"], { input: readFileSync(names[999]!) }).stdout.toString());
  });

  test.runIf(has("qemu-img") && has("b3sum"))(
    "an imported qcow2 has the root that b3sum prints for its raw form",
    () => {
      const raw = join(directory, "disk.raw");
      writeFileSync(
        raw,
        Buffer.concat([randomBytes(2_999_808), Buffer.alloc(5 << 20), randomBytes(123_392)]),
      );
      const qcow2 = join(directory, "disk.qcow2");
      execFileSync("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, qcow2]);
      const view = JSON.parse(
        execFileSync(node, [
          program,
          "image",
          "import",
          qcow2,
          "--store",
          join(directory, "images"),
          "--json",
        ]).toString(),
      ) as { root: string; importedFrom: string };
      expect(view.importedFrom).toBe("qcow2");
      expect(`${view.root}  ${raw}\n`).toBe(execFileSync("b3sum", [raw]).toString());
    },
  );
});

describe.runIf(has("systemd-analyze"))("systemd units", () => {
  const units = readdirSync(join(root, "packaging")).filter((name) => /\.(service|socket)$/.test(name));

  test("are valid", () => {
    expect(units.length).toBeGreaterThanOrEqual(4);
    // Only complaints about our own units count; the program is not installed on this machine.
    const run = spawnSync(
      "systemd-analyze",
      ["verify", ...units.map((name) => join(root, "packaging", name))],
      { encoding: "utf8" },
    );
    const complaints = run.stderr
      .split("\n")
      .filter((line) => /bedplate/.test(line) && !/is not executable|No such file|not found/.test(line));
    expect(complaints).toEqual([]);
  });

  test("the agent's exposure is low", () => {
    const run = spawnSync(
      "systemd-analyze",
      ["security", "--offline=true", "--no-pager", join(root, "packaging/bedplate-agent.service")],
      { encoding: "utf8" },
    );
    const level = Number(/Overall exposure level for .*: ([\d.]+)/.exec(run.stdout)?.[1]);
    expect(level, run.stdout.slice(-300)).toBeLessThan(3);
  });
});

test("the built program says its version and a wrong word is a usage error", () => {
  expect(execFileSync(node, [program, "--version"]).toString().trim()).toBe(
    JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version,
  );
  expect(spawnSync(node, [program, "no-such-noun"]).status).toBe(2);
});
