import { defineConfig } from "vitest/config";

// One suite after the other: each owns loop devices, mount points and the machine's clock of its processes.
export default defineConfig({
  test: {
    include: ["test/e2e/*.e2e.ts"],
    pool: "threads",
    fileParallelism: false,
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
