// The host's own proof of the memory map: that nothing overlaps, everything is aligned, and the module says the same.
import { assert } from "../protocol/errors.ts";
import * as map from "./memory-map.ts";
import "./webassembly.ts";

/** A part of a module's memory, in the order of addresses. */
interface Region {
  readonly what: string;
  readonly offset: number;
  readonly bytes: number;
  readonly alignBytes: number;
}

export interface Layout {
  readonly pages: number;
  readonly regions: readonly Region[];
  /** Constants that the host uses: the module must export each, with the value of memory-map.ts. */
  readonly shared: readonly (keyof typeof map)[];
}

const region = (what: string, offset: number, bytes: number, alignBytes: number): Region => ({
  what,
  offset,
  bytes,
  alignBytes,
});
const staticData = region("static data", map.staticOffset, map.scratchOffset - map.staticOffset, 16);
const tableBytes = 8 * map.meterSeriesMax;

export const blake3Layout: Layout = {
  pages: map.blake3Pages,
  regions: [
    staticData,
    region("digest", map.digestOffset, map.digestBytes, 16),
    region("zero map", map.zeroMapOffset, map.zeroMapBytes, 16),
    region("expected digest", map.expectedOffset, map.digestBytes, 16),
    region("last block", map.blockOffset, map.blockBytes, 16),
    region("stack", map.stackOffset, map.stackDepth * map.digestBytes, 16),
    region("chunk values", map.chunkValuesOffset, map.chunkValuesBytes, 16),
    region("windows", map.windowsOffset, map.windowCount * map.groupBytes, map.windowAlignBytes),
    region("zeroes", map.zeroesOffset, map.groupBytes, map.windowAlignBytes),
  ],
  shared: [
    "digestBytes",
    "digestOffset",
    "expectedOffset",
    "groupBytes",
    "windowCount",
    "windowsOffset",
    "zeroMapBytes",
    "zeroMapOffset",
    "zeroesOffset",
  ],
};

export const meterLayout: Layout = {
  pages: map.meterPages,
  regions: [
    staticData,
    region("scan result", map.scanResultOffset, 16, 8),
    region("index", map.indexOffset, map.indexBytes, 4),
    region("reset mask", map.resetMaskOffset, map.resetMaskBytes, 4),
    region("input", map.inputOffset, map.inputBytes + map.inputGuardBytes, map.windowAlignBytes),
    region("numbers", map.numbersOffset, 8 * map.numbersMax, 8),
    region("values", map.valuesOffset, tableBytes, 8),
    region("values last encoded", map.encodePreviousOffset, tableBytes, 8),
    region("values of the last deltas", map.deltaPreviousOffset, tableBytes, 8),
    region("deltas", map.deltasOffset, tableBytes, 8),
    region("encoded readings", map.encodedOffset, map.encodedBytes, 8),
    region("histograms", map.histogramsOffset, map.histogramCount * map.histogramBytes, 16),
  ],
  shared: [
    "deltasOffset",
    "encodedOffset",
    "histogramBuckets",
    "histogramBytes",
    "histogramCount",
    "histogramsOffset",
    "indexOffset",
    "inputBytes",
    "inputOffset",
    "meterSeriesMax",
    "numbersMax",
    "numbersOffset",
    "resetMaskBytes",
    "resetMaskOffset",
    "scanResultOffset",
    "valuesOffset",
  ],
};

const constants: Readonly<Record<string, unknown>> = map;

/** Dies unless the layout is sound and is the one that the module was compiled with. */
export function assertLayout(
  { pages, regions, shared }: Layout,
  exports: Readonly<Record<string, unknown>>,
  memory: ArrayBuffer,
): void {
  assert(memory.byteLength === pages * map.pageBytes, `the memory has ${pages} pages: run npm run build`);
  let end = 0;
  for (const { what, offset, bytes, alignBytes } of regions) {
    assert(offset >= end && bytes > 0, `the memory for ${what} overlaps nothing`);
    assert(offset % alignBytes === 0, `the memory for ${what} is aligned to ${alignBytes} bytes`);
    end = offset + bytes;
  }
  assert(end <= memory.byteLength, "the layout fits its memory");
  for (const name of shared) {
    const value = exports[name];
    assert(
      value instanceof WebAssembly.Global && value.value === constants[name],
      `the kernel module and the host agree on ${name}: run npm run build`,
    );
  }
}
