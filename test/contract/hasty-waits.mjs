// Loaded before an agent under test: what it waits by lot, which is how long to stay away, it waits a millisecond only.
import { syncBuiltinESMExports } from "node:module";
import timers from "node:timers/promises";

const wait = timers.setTimeout;
timers.setTimeout = (ms, ...rest) => wait(Number.isInteger(ms) ? ms : 1, ...rest);
syncBuiltinESMExports();
