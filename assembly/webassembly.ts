// The part of the WebAssembly API used here; node's own types lack it.
declare global {
  namespace WebAssembly {
    class Module {
      constructor(bytes: Uint8Array);
      private readonly module: never;
    }
    class Instance {
      constructor(module: Module, imports?: Record<string, never>);
      readonly exports: Readonly<Record<string, unknown>>;
    }
    class Memory {
      private constructor();
      readonly buffer: ArrayBuffer;
    }
    class Global {
      private constructor();
      readonly value: number;
    }
    class RuntimeError extends Error {}
    function compile(bytes: Uint8Array): Promise<Module>;
    function validate(bytes: Uint8Array): boolean;
  }
}

/** A compiled module: can be posted to workers, which then share its code. */
export type WasmModule = WebAssembly.Module;
