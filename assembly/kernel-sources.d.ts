/** The text of kernels/generated/blake3-compress.ts. */
export declare function blake3CompressSource(): string;
