import { expect, test } from "vitest";
import { coresAllowed, coresOfMax, coresOfQuota } from "../../assembly/cores.ts";

const files = (texts: Record<string, string>) => (path: string) => texts[path];

test.each([
  ["max 100000\n", undefined],
  ["200000 100000\n", 2],
  ["150000 100000\n", 1.5],
  ["50000\t100000", 0.5],
  ["0 100000", undefined],
  ["100000 0", undefined],
  ["-1 100000", undefined],
  ["1e9 1", undefined],
  ["100000", undefined],
  ["", undefined],
  ["\0\xff garbage", undefined],
  [`${"9".repeat(400)} 1`, undefined],
])("cpu.max %j allows %s cores", (text, cores) => expect(coresOfMax(text)).toBe(cores));

test.each([
  ["-1\n", "100000\n", undefined],
  ["400000\n", "100000\n", 4],
  ["25000\n", "50000\n", 0.5],
  ["", "100000", undefined],
])("a quota of %j in a period of %j allows %s cores", (quota, period, cores) =>
  expect(coresOfQuota(quota, period)).toBe(cores),
);

const version2 = {
  "/proc/self/cgroup": "0::/system.slice/bedplate-agent.service\n",
  "/sys/fs/cgroup/system.slice/bedplate-agent.service/cpu.max": "max 100000\n",
};
const version1 = {
  "/proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n",
};

test("affinity alone, where there is no quota and no control group", () => {
  expect(coresAllowed(files({}), 6)).toBe(6);
  expect(coresAllowed(files({ "/proc/self/cgroup": "\n garbage\n1:2\n" }), 6)).toBe(6);
  expect(coresAllowed(files(version2), 6)).toBe(6);
  expect(coresAllowed(files(version1), 6)).toBe(6);
  expect(coresAllowed()).toBeGreaterThanOrEqual(1);
});

test("version 2: the tightest quota from the process's own group up to the root", () => {
  const own = "/sys/fs/cgroup/system.slice/bedplate-agent.service/cpu.max";
  const slice = "/sys/fs/cgroup/system.slice/cpu.max";
  expect(coresAllowed(files({ ...version2, [own]: "300000 100000" }), 8)).toBe(3);
  expect(coresAllowed(files({ ...version2, [slice]: "200000 100000" }), 8)).toBe(2);
  expect(coresAllowed(files({ ...version2, [own]: "300000 100000", [slice]: "200000 100000" }), 8)).toBe(2);
  expect(coresAllowed(files({ ...version2, [own]: "300000 100000" }), 2)).toBe(2);
  // A container's own group, whose name is the host's.
  expect(coresAllowed(files({ ...version2, "/sys/fs/cgroup/cpu.max": "400000 100000" }), 8)).toBe(4);
});

test("version 1: the same, wherever the controller is mounted", () => {
  const quota = (place: string) => ({
    [`${place}/cpu.cfs_quota_us`]: "300000\n",
    [`${place}/cpu.cfs_period_us`]: "100000\n",
  });
  for (const place of [
    "/sys/fs/cgroup/cpu,cpuacct/docker/abc",
    "/sys/fs/cgroup/cpu/docker/abc",
    "/sys/fs/cgroup/cpu/docker",
    "/sys/fs/cgroup/cpu",
  ]) {
    expect(coresAllowed(files({ ...version1, ...quota(place) }), 8), place).toBe(3);
  }
  expect(coresAllowed(files({ ...version1, ...quota("/sys/fs/cgroup/memory/a") }), 8)).toBe(8);
});

test("whole cores, at least one", () => {
  const of = (max: string) =>
    coresAllowed(files({ "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": max }), 8);
  expect(of("150000 100000")).toBe(1);
  expect(of("199999 100000")).toBe(1);
  expect(of("10000 100000")).toBe(1);
});
