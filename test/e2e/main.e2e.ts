// The main job as a user runs it, from the built program: as root, as an ordinary user, with clocks that are wrong.
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

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

const leftovers = () => ({
  temporary: readdirSync(tmpdir()).filter((name) => name.startsWith("bedplate-demo")),
  loops: has("losetup")
    ? execFileSync("losetup", ["--list", "--noheadings", "--output", "BACK-FILE"])
        .toString()
        .split("\n")
        .filter((line) => line.includes("bedplate-demo"))
    : [],
  mountPoints: ["/etc/bedplate", "/var/lib/bedplate", "/run/bedplate"].filter((path) => existsSync(path)),
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
  const run = spawnSync(node, [program, "demo", "--once", "--json"], { encoding: "utf8", timeout: 180_000 });
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
        timeout: 180_000,
        env: { PATH: process.env.PATH, HOME: "/nonexistent", TMPDIR: "/tmp" },
      },
    );
    expect(run.status, run.stderr).toBe(0);
    expect(JSON.parse(run.stdout)).toMatchObject(demoActs);
  });
});

describe.runIf(has("faketime"))("a host whose clock is wrong", () => {
  let controller: ChildProcess;
  let client: string;
  const cli = (...argv: string[]) =>
    JSON.parse(
      execFileSync(node, [program, ...argv, "--json"], {
        env: { ...process.env, BEDPLATE_CLIENT: client },
      }).toString(),
    );

  beforeAll(async () => {
    const state = join(directory, "controller");
    client = join(state, "client.json");
    controller = spawn(node, [program, "controller", "--listen", "127.0.0.1:0", "--state-directory", state], {
      stdio: "ignore",
    });
    await vi.waitFor(() => expect(existsSync(client)).toBe(true), { timeout: 20_000 });
  });
  afterAll(() => controller?.kill());

  test.each(["2000-01-01 00:00:00", "2040-06-01 00:00:00"])("joins at %s", async (time) => {
    const name = `clock-${time.slice(0, 4)}`;
    const { token } = cli("join-token", "create") as { token: string };
    const config = join(directory, `${name}.toml`);
    const { url } = JSON.parse(readFileSync(client, "utf8")) as { url: string };
    writeFileSync(
      config,
      `controller = "${url}"\nstateDirectory = "${directory}/${name}"\nname = "${name}"\n[metrics]\nlisten = "off"\n`,
    );
    const agent = spawn(
      "faketime",
      ["-f", `@${time}`, node, program, "agent", "--config", config, "--join", token],
      { stdio: "ignore", detached: true },
    );
    try {
      await expect
        .poll(
          () =>
            (cli("hosts") as { hosts: { name: string; connection: string }[] }).hosts.find(
              (host) => host.name === name,
            )?.connection,
          { timeout: 30_000, interval: 500 },
        )
        .toBe("online");
    } finally {
      process.kill(-agent.pid!, "SIGTERM");
    }
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
