// Where the parts lie that are loaded by name: all beside each other in a built program; from sources, programs and
// workers beside their code and WebAssembly in dist/.
const fromSources = import.meta.url.endsWith(".ts");

/** The WebAssembly module `name`, as built from assembly/kernels. */
export function wasmUrl(name: string): URL {
  return new URL(fromSources ? `../dist/${name}.wasm` : `./${name}.wasm`, import.meta.url);
}

/** The program or worker whose source is `source`, a path from the repository's root such as `assembly/hash-worker.ts`. */
export function entryUrl(source: string): URL {
  if (fromSources) return new URL(`../${source}`, import.meta.url);
  const name = source.slice(source.lastIndexOf("/") + 1).replace(/\.ts$/, "");
  return new URL(`./${name}.js`, import.meta.url);
}
