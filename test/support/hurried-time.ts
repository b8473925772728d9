// Preloaded into an executor (`hurried` of executor-host.ts): its own time passes ten times as fast, so that nobody waits out
// its limits. The time of the programs that it starts, of the network and of disks is what it was.
import { syncBuiltinESMExports } from "node:module";
import { performance } from "node:perf_hooks";
import timers from "node:timers/promises";

const factor = 10;
const now = performance.now.bind(performance);
const began = now();
performance.now = () => began + (now() - began) * factor;
const sleep = timers.setTimeout;
timers.setTimeout = (ms = 0, ...rest) => sleep(ms / factor, ...rest);
syncBuiltinESMExports();
