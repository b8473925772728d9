// The example configuration that is packaged can be used as it is, and with every commented line switched on.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { loadAgentConfig } from "../../agent/config.ts";
import { executorFlags } from "../../agent/door/executor-process.ts";
import { parsePolicy } from "../../agent/policy/policy.ts";
import { noRules } from "../../agent/policy/rules.ts";
import { checkControllerConfig } from "../../controller/config.ts";

const packaging = fileURLToPath(new URL("../../packaging/", import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "bedplate-packaging-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** With commented settings switched on, but for those of `without`. */
function allOn(name: string, without = /^$/): string {
  const lines = readFileSync(join(packaging, name), "utf8").split("\n");
  const on = lines.map((line) =>
    without.test(line) ? line : line.replace(/^(\s*)# (?=[a-zA-Z]+ = |\[|\]|\s*"(s[sk]|[a-z]+:))/, "$1"),
  );
  const path = join(directory, name);
  writeFileSync(path, on.join("\n"));
  return path;
}

test("agent.toml", () => {
  const plain = loadAgentConfig(join(packaging, "agent.toml"));
  expect(plain.controller.host).toBe("controller.example.org:7443");
  expect(plain.stateDirectory).toBe("/var/lib/bedplate/agent");
  expect(plain.executor.runDirectory).toBe("/run/bedplate");
  // A real token, or a file with one, would be needed.
  const on = loadAgentConfig(allOn("agent.toml", /joinToken/));
  expect(on).toEqual({ ...plain, name: "web-1" });
});

test("controller.toml", () => {
  const plain = checkControllerConfig({ configFile: join(packaging, "controller.toml") });
  expect(plain.listen).toEqual({ host: "127.0.0.1", port: 7443 });
  expect(checkControllerConfig({ configFile: allOn("controller.toml") })).toEqual({
    ...plain,
    names: ["controller.example.org"],
  });
});

test("policy.toml allows nothing until someone says so", () => {
  const plain = parsePolicy(readFileSync(join(packaging, "policy.toml"), "utf8"), "policy.toml");
  const disk = { type: "ssd", serial: "S3Z9NX0M123456", wwn: null } as Parameters<typeof plain.allows>[0];
  expect(plain.allows(disk)).toBe(false);
  expect(plain.fileDisks).toEqual([]);
  const on = parsePolicy(readFileSync(allOn("policy.toml"), "utf8"), "policy.toml");
  expect(on.allows(disk)).toBe(true);
  expect(on.rules.denyKinds).toEqual(["image.deploy"]);
  expect(on.fileDisks).toEqual([{ name: "scratch", path: "/srv/disks/scratch.img", sizeBytes: 1 << 30 }]);
  expect(on.protects({ ...disk, wwn: "0x5000c500ffffffff" })).toBe(true);
  expect(plain.rules).toEqual(noRules);
  expect(on.rules.signers[0]!.signers.map(({ operator }) => operator)).toEqual(["alice", "bob"]);
  expect(on.rules.kinds["image.deploy"]).toMatchObject({
    signatures: { k: 2, from: ["ops"] },
    window: { name: "nightly" },
  });
  expect(on.rules.kinds["host.exec"]?.exec?.argv).toHaveLength(2);
});

test("the executor's unit starts it as the agent does where there is no systemd", () => {
  const unit = readFileSync(join(packaging, "bedplate-executor@.service"), "utf8");
  const flags = /^ExecStart=\S+\/node (.*) \S+\/executor\.js$/m.exec(unit)?.[1];
  expect(flags?.split(" ")).toEqual(executorFlags);
});

describe.runIf(spawnSync("systemd-analyze", ["--version"]).status === 0)("units", () => {
  const units = readdirSync(packaging).filter((name) => /\.(service|socket)$/.test(name));

  test.each(units)("%s has no fault that systemd knows", (name) => {
    const run = spawnSync("systemd-analyze", ["verify", "--man=no", join(packaging, name)], {
      encoding: "utf8",
    });
    // The program is not installed here, and this machine's own units are not ours to judge.
    const faults = run.stderr
      .split("\n")
      .filter((line) => line.includes("bedplate") && !/is not executable: No such file/.test(line));
    expect(faults).toEqual([]);
  });

  test.each([
    ["bedplate-agent.service", 2.5],
    ["bedplate-controller.service", 2],
    ["bedplate-executor@.service", 6.5],
  ])("%s is exposed at most %f", (name, most) => {
    const run = spawnSync(
      "systemd-analyze",
      ["security", "--offline=true", "--no-pager", join(packaging, name)],
      {
        encoding: "utf8",
      },
    );
    expect(Number(/exposure level for .*: ([\d.]+)/.exec(run.stdout)?.[1]), run.stderr).toBeLessThanOrEqual(
      most,
    );
  });
});
