import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

// Threads without isolation: thirty files in three seconds instead of fifteen. A test therefore leaves no global state.
// One for each processor, where the default leaves one out: most tests wait for processes that they have started.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/support/build-programs.ts",
    pool: "threads",
    isolate: false,
    maxWorkers: Math.max(2, availableParallelism()),
    // Bounds on waiting: they matter only when something fails, and a busy machine is to keep them.
    expect: { poll: { timeout: 30_000 } },
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
