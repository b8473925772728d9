export declare const pageBytes = 65536;
export declare const windowAlignBytes = 4096;
export declare const staticOffset = 1024;
export declare const scratchOffset = 4096;
export declare const groupBytes = 1048576;
export declare const chunkBytes = 1024;
export declare const digestBytes = 32;
export declare const zeroBlockBytes = 4096;
export declare const windowCount = 4;
/** A finished digest or chaining value. */
export declare const digestOffset = 4096;
/** One bit for each 4 KiB block of a group, least significant bit first: 256 bits. */
export declare const zeroMapOffset = 4160;
export declare const zeroMapBytes = 32;
/** The chaining values of complete subtrees of a stream, one for each bit of its length in groups. */
export declare const stackOffset = 8192;
export declare const stackDepth = 54;
/** The chaining values of one group's chunks. */
export declare const chunkValuesOffset = 16384;
export declare const chunkValuesBytes = 32768;
export declare const windowsOffset = 65536;
export declare const windowsEnd = 4259840;
/** A window of zeroes: no kernel and no host ever writes here. */
export declare const zeroesOffset = 4259840;
export declare const blake3Pages = 81;
export declare const meterSeriesMax = 8192;
/** u64 shape of the last scan, then u32 1 if a number of it was saturated. */
export declare const scanResultOffset = 4096;
/** Which number of the last scan goes into each slot: u32. */
export declare const indexOffset = 8192;
export declare const indexBytes = 32768;
export declare const resetMaskOffset = 40960;
export declare const resetMaskBytes = 1024;
export declare const inputOffset = 65536;
export declare const inputBytes = 262144;
/** Behind the input: the kernel ends it with a newline of its own. */
export declare const inputGuardBytes = 64;
/** u64 numbers of the last scan. Each takes at least one digit and one separator of the input, so this cannot overflow. */
export declare const numbersOffset = 327744;
export declare const numbersMax = 131072;
export declare const valuesOffset = 1376320;
export declare const encodePreviousOffset = 1441856;
export declare const deltaPreviousOffset = 1507392;
export declare const deltasOffset = 1572928;
export declare const encodedOffset = 1638464;
export declare const encodedBytes = 98304;
export declare const meterPages = 27;
