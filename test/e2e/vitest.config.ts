import { defineConfig } from "vitest/config";

// One suite after the other: each owns loop devices, mount points and the machine's clock of its processes.
export default defineConfig({
  test: {
    include: ["test/e2e/*.e2e.ts"],
    pool: "threads",
    fileParallelism: false,
    // Nothing takes that long; but whoever shares the processors with others is not to be hurried.
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
