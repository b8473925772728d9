// Loaded before an agent under test: what it waits by lot, or because it was sent away for long, is a millisecond only.
import { syncBuiltinESMExports } from "node:module";
import timers from "node:timers/promises";

const wait = timers.setTimeout;
const away = (ms) => !Number.isInteger(ms) || ms === 60_000 || ms === 3_600_000;
timers.setTimeout = (ms, ...rest) => wait(away(ms) ? 1 : ms, ...rest);
syncBuiltinESMExports();
