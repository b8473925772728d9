// Writes the AssemblyScript of BLAKE3's compression function: seven rounds unrolled, the message permutation resolved here.
//
// AssemblyScript has neither v128 arrays in registers nor inlining by reference, so the 16 state words and 16 message
// words must be 32 locals, and someone must write out 56 G functions: this file does. Section numbers are those of the
// BLAKE3 specification. Measured on V8 13.6:
// - byte rotates by relaxed_swizzle, masks loaded from memory at entry: 1.00 of the official SSE4.1 assembly; a literal
//   mask is rebuilt in four instructions at each use: 0.68–0.80; shifts and or: 0.80.
// - G functions one after the other beat four interleaved ones by 3–5 % (Xeon; equal on EPYC): fewer spills.
// - A fifth chunk in u32, each of its G functions behind the vector one, runs on integer ports that SIMD leaves idle: 1.07
//   (Xeon), 1.20 (EPYC). Mixing the two line by line, or with interleaved vector ones, gave the same.

const wordOrder = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]; // section 2.2, table 2
const columnsThenDiagonals = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
] as const;

interface Dialect {
  add: (a: string, b: string) => string;
  xor: (a: string, b: string) => string;
  rotate: (word: string, bits: 16 | 12 | 8 | 7) => string;
}

const scalar: Dialect = {
  add: (a, b) => `(${a} + ${b})`,
  xor: (a, b) => `(${a} ^ ${b})`,
  rotate: (word, bits) => `rotr<u32>(${word}, ${bits})`,
};

/** `byteRotate` gives the expression for a rotate by 16 or 8. */
function vector(byteRotate: (word: string, bits: 16 | 8) => string): Dialect {
  return {
    add: (a, b) => `i32x4.add(${a}, ${b})`,
    xor: (a, b) => `v128.xor(${a}, ${b})`,
    rotate: (word, bits) =>
      bits === 16 || bits === 8
        ? byteRotate(word, bits)
        : `v128.or(i32x4.shr_u(${word}, ${bits}), i32x4.shl(${word}, ${32 - bits}))`,
  };
}

const relaxed = vector((word, bits) => `i8x16.relaxed_swizzle(${word}, mask${bits})`);
const shuffled = vector((word, bits) => {
  const lanes = Array.from({ length: 16 }, (_, lane) => (lane & 12) | ((lane + bits / 8) & 3));
  return `i8x16.shuffle(${word}, ${word}, ${lanes.join(", ")})`;
});

/** State words in locals of one prefix, and where message word k is. */
interface Strand {
  readonly dialect: Dialect;
  readonly state: string;
  readonly message: (word: number) => string;
}

/** Seven rounds (section 2.2), each G function of one strand followed by the same of the next. */
function rounds(strands: readonly Strand[]): string[] {
  const lines: string[] = [];
  let order = wordOrder;
  for (let round = 0; round < 7; round++) {
    for (const [index, places] of columnsThenDiagonals.entries()) {
      const [first, second] = [order[2 * index]!, order[2 * index + 1]!];
      for (const strand of strands) lines.push(...mix(strand, places, first, second));
    }
    order = permutation.map((from) => order[from]!);
  }
  return lines;
}

/** The G function. */
function mix(
  { dialect, state, message }: Strand,
  places: readonly number[],
  first: number,
  second: number,
): string[] {
  const { add, xor, rotate } = dialect;
  const [a, b, c, d] = places.map((place) => `${state}${place}`) as [string, string, string, string];
  const half = (word: number, bitsD: 16 | 8, bitsB: 12 | 7) => [
    `${a} = ${add(add(a, b), message(word))};`,
    `${d} = ${rotate(xor(d, a), bitsD)};`,
    `${c} = ${add(c, d)};`,
    `${b} = ${rotate(xor(b, c), bitsB)};`,
  ];
  return [...half(first, 16, 12), ...half(second, 8, 7)];
}

/** Four rows of four words become four columns: word k of each lane side by side. */
function transpose(rows: string[], columns: string[], unique: string): string[] {
  const [r0, r1, r2, r3] = rows;
  const [t0, t1, t2, t3] = [0, 1, 2, 3].map((index) => `t${unique}_${index}`);
  return [
    `const ${t0} = i32x4.shuffle(${r0}, ${r1}, 0, 4, 1, 5);`,
    `const ${t1} = i32x4.shuffle(${r0}, ${r1}, 2, 6, 3, 7);`,
    `const ${t2} = i32x4.shuffle(${r2}, ${r3}, 0, 4, 1, 5);`,
    `const ${t3} = i32x4.shuffle(${r2}, ${r3}, 2, 6, 3, 7);`,
    `${columns[0]} = i64x2.shuffle(${t0}, ${t2}, 0, 2);`,
    `${columns[1]} = i64x2.shuffle(${t0}, ${t2}, 1, 3);`,
    `${columns[2]} = i64x2.shuffle(${t1}, ${t3}, 0, 2);`,
    `${columns[3]} = i64x2.shuffle(${t1}, ${t3}, 1, 3);`,
  ];
}

const each = (count: number, line: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => line(index));
const quad = (name: string, group: number) => each(4, (index) => `${name}${4 * group + index}`);

/** compress: one block, one lane, in u32 locals. */
function compressSource(): string[] {
  return [
    "/** Compresses one block of 64 bytes into the chaining value `cv` and stores the new one at `out` (may be `cv`). */",
    "export function compress(cv: usize, block: usize, blockLength: u32, counter: u64, flags: u32, out: usize): void {",
    ...each(16, (word) => `const m${word} = load<u32>(block, ${4 * word});`),
    ...each(8, (word) => `let v${word} = load<u32>(cv, ${4 * word});`),
    ...each(4, (word) => `let v${8 + word} = load<u32>(initialValues, ${4 * word});`),
    "let v12 = <u32>counter, v13 = <u32>(counter >> 32), v14 = blockLength, v15 = flags;",
    ...rounds([{ dialect: scalar, state: "v", message: (word) => `m${word}` }]),
    ...each(8, (word) => `store<u32>(out, v${word} ^ v${8 + word}, ${4 * word});`),
    "}",
  ];
}

/** Four inputs side by side, each in a lane of its own; with `fifth` another one in u32 locals. */
function lanesSource(
  name: string,
  dialect: Dialect,
  { prologue, fifth }: { prologue: string; fifth: boolean },
): string[] {
  const ifFifth = (lines: string[]) => (fifth ? lines : []);
  const strands: Strand[] = [{ dialect, state: "v", message: (word) => `m${word}` }];
  // Its message stays in memory: x86 adds from there.
  if (fifth) strands.push({ dialect: scalar, state: "s", message: (word) => `load<u32>(p4, ${4 * word})` });
  return [
    `/** Chaining values of ${fifth ? "five" : "four"} inputs of \`blocks\` whole blocks, \`stride\` bytes apart; counter + k * increment for input k. */`,
    `export function ${name}(input: usize, stride: usize, blocks: i32, counter: u64, increment: u64, flags: u32, startFlags: u32, endFlags: u32, out: usize): void {`,
    prologue,
    "const c1 = counter + increment, c2 = c1 + increment, c3 = c2 + increment, c4 = c3 + increment;",
    "const low = i32x4.replace_lane(i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(<i32>counter), 1, <i32>c1), 2, <i32>c2), 3, <i32>c3);",
    "const high = i32x4.replace_lane(i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(<i32>(counter >> 32)), 1, <i32>(c1 >> 32)), 2, <i32>(c2 >> 32)), 3, <i32>(c3 >> 32));",
    // Loaded, not literal: a v128 constant is rebuilt at each use.
    ...each(8, (word) => `let h${word} = v128.load32_splat(initialValues, ${4 * word});`),
    ...ifFifth(each(8, (word) => `let g${word} = load<u32>(initialValues, ${4 * word});`)),
    "flags |= startFlags;",
    "for (let block = 0; block < blocks; block++) {",
    "if (block == blocks - 1) flags |= endFlags;",
    "const p1 = input + stride, p2 = p1 + stride, p3 = p2 + stride, p4 = p3 + stride;",
    `let ${each(16, (word) => `m${word}: v128`).join(", ")};`,
    ...each(4, (group) => {
      const rows = each(4, (lane) => `v128.load(${lane === 0 ? "input" : `p${lane}`}, ${16 * group})`);
      const names = each(4, (lane) => `r${group}_${lane}`);
      return [
        `const ${names.map((row, lane) => `${row} = ${rows[lane]}`).join(", ")};`,
        ...transpose(names, quad("m", group), `${group}`),
      ].join("\n");
    }),
    ...each(8, (word) => `let v${word} = h${word};`),
    ...each(4, (word) => `let v${8 + word} = v128.load32_splat(initialValues, ${4 * word});`),
    "let v12 = low, v13 = high, v14 = i32x4.splat(64), v15 = i32x4.splat(<i32>flags);",
    ...ifFifth([
      ...each(8, (word) => `let s${word} = g${word};`),
      ...each(4, (word) => `let s${8 + word} = load<u32>(initialValues, ${4 * word});`),
      "let s12 = <u32>c4, s13 = <u32>(c4 >> 32), s14: u32 = 64, s15 = flags;",
    ]),
    ...rounds(strands),
    ...each(8, (word) => `h${word} = v128.xor(v${word}, v${8 + word});`),
    ...ifFifth(each(8, (word) => `g${word} = s${word} ^ s${8 + word};`)),
    "flags &= ~startFlags;",
    "input += 64;",
    "}",
    `let ${each(8, (word) => `o${word}: v128`).join(", ")};`,
    ...transpose(quad("h", 0), quad("o", 0), "a"),
    ...transpose(quad("h", 1), quad("o", 1), "b"),
    ...each(
      4,
      (lane) => `v128.store(out, o${lane}, ${32 * lane}); v128.store(out, o${4 + lane}, ${32 * lane + 16});`,
    ),
    ...ifFifth(each(8, (word) => `store<u32>(out, g${word}, ${128 + 4 * word});`)),
    "}",
  ];
}

const loadMasks = "const mask16 = v128.load(masks), mask8 = v128.load(masks, 16);";

/** The text of kernels/generated/blake3-compress.ts. */
export function blake3CompressSource(): string {
  return [
    "// Generated by assembly/kernel-sources.ts; changes here are lost.",
    // Section 2.2, table 1: the initial values of SHA-256.
    "export const initialValues: usize = memory.data<u32>([0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19]);",
    "const masks: usize = memory.data<u8>([2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, 1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12]);",
    ...compressSource(),
    ...lanesSource("lanes4Relaxed", relaxed, { prologue: loadMasks, fifth: false }),
    ...lanesSource("lanes5Relaxed", relaxed, { prologue: loadMasks, fifth: true }),
    ...lanesSource("lanes4Shuffled", shuffled, { prologue: "", fifth: false }),
    "",
  ].join("\n");
}
