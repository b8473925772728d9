import { defineConfig } from "vitest/config";

// Threads without isolation: thirty files in three seconds instead of fifteen. A test therefore leaves no global state.
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/support/build-programs.ts",
    pool: "threads",
    isolate: false,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
