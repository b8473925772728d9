// Prints the milliseconds from nothing to the digest of one group, in a process of its own: V8 shares compiled modules
// within one, so that only the first is cold.
const input = new Uint8Array(1 << 20).fill(7);
const before = performance.now();
const { groupKernelOf } = await import("../assembly/group-kernel.ts");
const { loadBlake3 } = await import("../assembly/load.ts");
const imported = performance.now();
const kernel = groupKernelOf(loadBlake3());
kernel.windows[0]!.set(input);
kernel.chainingValue(0, input.length, 0);
console.log(JSON.stringify({ importMs: imported - before, firstGroupMs: performance.now() - imported }));
