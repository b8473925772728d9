// Where everything lies in the memory of a kernel module: compiled into both sides, AssemblyScript and the host.
//
// Only constant expressions may stand here (AssemblyScript reads them as i32). Each module exports these values again
// and the host compares them at load, so a stale module is refused. Memories have a fixed size: growing one would
// detach the host's views. Windows are aligned to 4096 bytes, so that O_DIRECT can read and write them.

export const pageBytes = 65536;
export const windowAlignBytes = 4096;

// Static data of a module (masks, initial values) lies in [staticOffset, scratchOffset).
export const staticOffset = 1024;
export const scratchOffset = 4096;

// ---- The BLAKE3 modules ----
export const groupBytes = 1048576;
export const chunkBytes = 1024;
export const digestBytes = 32;
export const zeroBlockBytes = 4096;
export const windowCount = 4;

/** A finished digest or chaining value. */
export const digestOffset = 4096;
/** One bit for each 4 KiB block of a group, least significant bit first: 256 bits. */
export const zeroMapOffset = 4160;
export const zeroMapBytes = 32;
/** The digest that a group pass compares its own with. */
export const expectedOffset = 4192;
/** The last block of a chunk, padded. */
export const blockOffset = 4224;
export const blockBytes = 64;
/** The chaining values of complete subtrees of a stream, one for each bit of its length in groups. */
export const stackOffset = 8192;
export const stackDepth = 54;
/** The chaining values of one group's chunks. */
export const chunkValuesOffset = 16384;
export const chunkValuesBytes = 32768;
export const windowsOffset = 65536;
export const windowsEnd = 4259840;
/** A window of zeroes: no kernel and no host ever writes here. */
export const zeroesOffset = 4259840;
export const blake3Pages = 81;

// ---- The meter module ----
export const meterSeriesMax = 8192;

/** u64 shape of the last scan, then u32 1 if a number of it was saturated. */
export const scanResultOffset = 4096;
/** Which number of the last scan goes into each slot: u32. */
export const indexOffset = 8192;
export const indexBytes = 32768;
export const resetMaskOffset = 40960;
export const resetMaskBytes = 1024;
export const inputOffset = 65536;
export const inputBytes = 262144;
/** Behind the input: the kernel ends it with a newline of its own. */
export const inputGuardBytes = 64;
/** u64 numbers of the last scan. Each takes at least one digit and one separator of the input, so this cannot overflow. */
export const numbersOffset = 327744;
export const numbersMax = 131072;
export const valuesOffset = 1376320;
export const encodePreviousOffset = 1441856;
export const deltaPreviousOffset = 1507392;
export const deltasOffset = 1572928;
export const encodedOffset = 1638464;
export const encodedBytes = 98304;
/** Exponential histograms of scale 5: u32 buckets, of zeroes, then of each (2^((k-1)/32), 2^(k/32)] that u64 has. */
export const histogramsOffset = 1736768;
export const histogramCount = 16;
export const histogramBuckets = 2050;
/** Two unused buckets round it up to whole vectors. */
export const histogramBytes = 8208;
export const meterPages = 29;
