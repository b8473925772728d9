// The controller's log: JSON lines on stderr, one object a line. Never a token, a secret or a private key.

import { destination, type Logger, pino } from "pino";
import type { Clock } from "./system.ts";

/** What the parts log with: facts first, then a sentence. */
export type Log = Pick<Logger, "debug" | "info" | "warn" | "error">;

export const logLevels = ["debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

export function openLog(level: LogLevel, clock: Clock): Log {
  return pino(
    {
      level,
      base: { part: "controller" },
      timestamp: () => `,"at":"${new Date(clock.now()).toISOString()}"`,
    },
    destination({ dest: 2, sync: true }),
  );
}

export const silentLog: Log = pino({ level: "silent" });
