// The demo with less than root has elsewhere: in a container whose root may neither mount nor attach loop devices.
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const isRoot = process.geteuid?.() === 0;
const has = (tool: string) => spawnSync("sh", ["-c", `command -v ${tool}`]).status === 0;

describe.runIf(isRoot && has("setpriv") && has("unshare"))("a root that may not mount", () => {
  test("sees the demo run its agent as nobody, and every act hold", () => {
    // Bound to a place that nobody can reach, whatever the checkout's parents allow.
    const script =
      'mount --bind "$1" /mnt && exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$2" /mnt/dist/bedplate.js demo --once --json --size 64M';
    const run = spawnSync(
      "unshare",
      [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        root,
        process.execPath.replace(root, "/mnt/"),
      ],
      {
        encoding: "utf8",
        timeout: 600_000,
        env: { PATH: process.env.PATH, HOME: "/nonexistent", TMPDIR: tmpdir() },
      },
    );
    expect(run.status, `${run.stderr}${run.stdout}`).toBe(0);
    expect(JSON.parse(run.stdout)).toMatchObject({
      ok: true,
      host: { agentRuns: "other-user" },
      deploy: { state: "succeeded" },
      corrupt: { code: "image.corrupt", bytesWrittenOfBadGroup: 0 },
      resume: { state: "succeeded" },
    });
  });
});
