/** Puts every module of assembly/kernels into `outDir` as `<name>.wasm`. */
export declare function buildKernels(outDir: string): Promise<void>;
