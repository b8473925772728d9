// Where tests keep what need not outlive them: in memory where that can be, so that a sync costs nothing.
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";

export const fastDirectory =
  process.env.BEDPLATE_FAST_DIRECTORY ?? (existsSync("/dev/shm") ? "/dev/shm" : tmpdir());
