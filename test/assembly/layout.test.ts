import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { wasmUrl } from "../../assembly/built.ts";
import { assertLayout, blake3Layout, type Layout, meterLayout } from "../../assembly/layout.ts";
import { instantiate, variants } from "../../assembly/load.ts";

const modules: readonly (readonly [string, Layout])[] = [
  ...variants.map((variant) => [`blake3-${variant}`, blake3Layout] as const),
  ["meter", meterLayout],
];

/** The module's bytes with one exported i32 constant raised by one. */
function withOtherConstant(bytes: Uint8Array, value: number): Uint8Array | undefined {
  // global i32, immutable; i32.const value; end
  const pattern = [0x7f, 0x00, 0x41, ...signedLeb(value), 0x0b];
  const at = bytes.findIndex((_, k) => pattern.every((byte, j) => bytes[k + j] === byte));
  if (at < 0) return undefined;
  const changed = bytes.slice();
  changed[at + 3]! ^= 1;
  return changed;
}

function signedLeb(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7) {
    const byte = rest & 127;
    if ((rest >> 7 === 0 && byte < 64) || (rest >> 7 === -1 && byte >= 64)) return [...bytes, byte];
    bytes.push(byte | 128);
  }
}

describe.each(modules)("%s", (name, layout) => {
  const bytes = readFileSync(wasmUrl(name));
  const module = new WebAssembly.Module(bytes);
  const { exports } = new WebAssembly.Instance(module);
  const memory = (exports.memory as WebAssembly.Memory).buffer;

  test("agrees with the host on every shared constant", () => {
    expect(() => instantiate(module, layout)).not.toThrow();
    for (const constant of layout.shared) {
      const { value } = exports[constant] as WebAssembly.Global;
      const changed = withOtherConstant(bytes, value);
      expect(changed, `${constant} stands in the module`).toBeDefined();
      expect(() => instantiate(new WebAssembly.Module(changed!), layout), constant).toThrow(/agree on/);
      const { [constant]: _, ...without } = exports;
      expect(() => assertLayout(layout, without, memory), `without ${constant}`).toThrow(constant);
    }
  });

  test("is refused with another amount of memory", () => {
    expect(() => assertLayout({ ...layout, pages: layout.pages + 1 }, exports, memory)).toThrow(/pages/);
  });

  test("a layout that overlaps, is misaligned or too long is refused", () => {
    for (const index of layout.regions.keys()) {
      const moved = (change: object) =>
        layout.regions.map((region, k) => (k === index ? { ...region, ...change } : region));
      const { offset, alignBytes } = layout.regions[index]!;
      const check = (regions: Layout["regions"]) => () =>
        assertLayout({ ...layout, regions }, exports, memory);
      expect(check(moved({ bytes: memory.byteLength }))).toThrow(/overlaps|fits/);
      expect(check(moved({ bytes: 0 }))).toThrow(/overlaps/);
      if (index > 0) expect(check(moved({ offset: alignBytes }))).toThrow(/overlaps|aligned/);
      expect(check(moved({ offset: offset + 1, bytes: 1 }))).toThrow(/aligned/);
    }
  });
});
