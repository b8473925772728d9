// Block maps as bmaptool makes them (1.3 to 2.0): which blocks of an image hold data, and what each range of them hashes to.
// A closed format, so a small parser: elements, attributes, text and comments; no entities, no declarations, no nesting deeper.
import { createHash } from "node:crypto";
import { BedplateError } from "../../protocol/errors.ts";
import { imageLimits } from "./limits.ts";

export interface MappedRange {
  /** Bytes of the image: from `start` up to, not including, `end`. */
  readonly start: number;
  readonly end: number;
  /** Lower-case hexadecimal. */
  readonly digest: string;
}

export interface BlockMap {
  readonly version: string;
  readonly imageBytes: number;
  readonly mappedBytes: number;
  readonly algorithm: "sha1" | "sha256" | "sha512";
  /** Ascending, none touching the one before within a block. */
  readonly ranges: readonly MappedRange[];
}

/** Of the file: half a million ranges. */
export const bmapBytesMax = 64 << 20;
/** No file of that size has more ranges; emptier elements would take a hundred times its size of memory. */
const elementsMax = 1 << 20;

/**
 * Reads a block map and checks its own sum. That shows damage, not malice: whoever can change the map can change the sum.
 * @throws `image.bad-bmap`
 */
export function parseBmap(bytes: Uint8Array, where: string): BlockMap {
  const fail = (why: string) =>
    new BedplateError("image.bad-bmap", `The block map ${where} cannot be used: ${why}.`, {
      hint: "Give a file as `bmaptool create` writes it, version 1.3 to 2.0, with its checksums.",
    });
  if (bytes.length > bmapBytesMax) throw fail(`it has more than ${bmapBytesMax} bytes`);
  // Each byte one character, so that places in the text are places in the file.
  const text = Buffer.from(bytes).toString("latin1");
  const { attributes, elements } = readBmapXml(text, fail);
  const version = attributes.version ?? "";
  if (!/^(1\.[3-9]|2\.0)$/.test(version)) throw fail(`its version is "${version.slice(0, 20)}"`);
  const once = (name: string) => {
    const [only, ...more] = elements.filter((element) => element.name === name);
    if (only === undefined || more.length > 0)
      throw fail(only === undefined ? `it has no ${name}` : `it has ${name} twice`);
    return only;
  };
  const count = (name: string, max: number) => {
    const { text: digits } = once(name);
    if (!/^\d{1,16}$/.test(digits) || Number(digits) > max) throw fail(`its ${name} is no such number`);
    return Number(digits);
  };
  const old = version === "1.3";
  const algorithm = old ? "sha1" : once("ChecksumType").text;
  if (algorithm !== "sha1" && algorithm !== "sha256" && algorithm !== "sha512")
    throw fail(`its ChecksumType is "${algorithm.slice(0, 20)}"`);
  checkOwnSum(text, once(old ? "BmapFileSHA1" : "BmapFileChecksum"), algorithm, fail);
  const imageBytes = count("ImageSize", imageLimits.imageBytesMax);
  const blockBytes = count("BlockSize", 1 << 30);
  const blocks = count("BlocksCount", Number.MAX_SAFE_INTEGER);
  if (imageBytes === 0 || blockBytes === 0 || Math.ceil(imageBytes / blockBytes) !== blocks)
    throw fail("its ImageSize, BlockSize and BlocksCount do not go together");
  once("BlockMap");
  let [next, mapped] = [0, 0];
  const ranges = elements
    .filter(({ name }) => name === "Range")
    .map(({ text: blocksText, attributes: given }) => {
      const match = /^(\d{1,15})(?:-(\d{1,15}))?$/.exec(blocksText);
      if (match === null) throw fail(`it has a range "${blocksText.slice(0, 40)}"`);
      const [first, last] = [Number(match[1]), Number(match[2] ?? match[1])];
      if (first < next || last < first || last >= blocks)
        throw fail(`its range ${blocksText} is out of order, or out of the image`);
      const digest = given[old ? "sha1" : "chksum"]?.toLowerCase() ?? "";
      if (!isDigest(digest, algorithm)) throw fail(`its range ${blocksText} has no ${algorithm}`);
      [next, mapped] = [last + 1, mapped + last - first + 1];
      return { start: first * blockBytes, end: Math.min((last + 1) * blockBytes, imageBytes), digest };
    });
  if (mapped !== count("MappedBlocksCount", blocks))
    throw fail("its ranges are not MappedBlocksCount blocks");
  const mappedBytes = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  return { version, imageBytes, mappedBytes, algorithm, ranges };
}

type Fail = (why: string) => BedplateError;

interface Element {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  /** Trimmed. */
  readonly text: string;
  /** Where the text begins. */
  readonly at: number;
}

/** The file hashes to its sum with that sum written as zeroes. */
function checkOwnSum(text: string, { text: sum, at }: Element, algorithm: string, fail: Fail): void {
  if (!isDigest(sum.toLowerCase(), algorithm)) throw fail(`its own sum is no ${algorithm}`);
  const start = text.indexOf(sum, at);
  const blanked = `${text.slice(0, start)}${"0".repeat(sum.length)}${text.slice(start + sum.length)}`;
  const found = createHash(algorithm).update(Buffer.from(blanked, "latin1")).digest("hex");
  if (found !== sum.toLowerCase()) throw fail(`it hashes to ${found}, not to the ${sum} that it says`);
}

function isDigest(text: string, algorithm: string): boolean {
  const digits = { sha1: 40, sha256: 64, sha512: 128 }[algorithm];
  return text.length === digits && /^[0-9a-f]+$/.test(text);
}

const declaration = /<\?xml [^<>?]*\?>/y;
/** The attributes are bounded: thousands would take the expression to the end of its stack. */
const opening = /<([A-Za-z][A-Za-z0-9]*)((?:\s+[A-Za-z][A-Za-z0-9]*\s*=\s*"[^"<>&]*"){0,16})\s*>/y;
const closing = /<\/([A-Za-z][A-Za-z0-9]*)\s*>/y;
const content = /[^<>&]+/y;

/** `<bmap>`, elements with text in it, and in its one `BlockMap` those of the ranges. */
function readBmapXml(text: string, fail: Fail) {
  const elements: Element[] = [];
  const open: { name: string; attributes: Record<string, string>; text: string; at: number }[] = [];
  let root: Record<string, string> | undefined;
  let at = 0;
  const take = (pattern: RegExp) => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match !== null) at = pattern.lastIndex;
    return match;
  };
  const passComment = () => {
    if (!text.startsWith("<!--", at)) return false;
    const end = text.indexOf("--", at + 4);
    if (end < 0 || text[end + 2] !== ">") throw fail(`it has a comment that does not end (at byte ${at})`);
    at = end + 3;
    return true;
  };
  take(declaration);
  while (at < text.length) {
    const within = open.at(-1);
    if (passComment()) continue;
    const words = take(content)?.[0];
    if (words !== undefined) {
      const mayHold = within !== undefined && within.name !== "bmap" && within.name !== "BlockMap";
      if (mayHold) within.text += words;
      else if (words.trim() !== "") throw fail("it has text where there can be none");
      continue;
    }
    const ended = take(closing);
    if (ended !== null) {
      if (within === undefined || within.name !== ended[1]) throw fail(`</${ended[1]}> ends nothing`);
      open.pop();
      if (within.name !== "bmap") elements.push({ ...within, text: within.text.trim() });
      if (elements.length > elementsMax) throw fail(`it has more than ${elementsMax} elements`);
      continue;
    }
    const begun = take(opening);
    if (begun === null) throw fail(`it is not written as a block map (at byte ${at})`);
    const name = begun[1]!;
    const parent = name === "bmap" ? undefined : name === "Range" ? "BlockMap" : "bmap";
    if (within?.name !== parent || (name === "bmap" && root !== undefined))
      throw fail(`it has ${name} where there can be none`);
    const attributes = attributesOf(begun[2]!);
    if (name === "bmap") root = attributes;
    open.push({ name, attributes, text: "", at });
  }
  if (root === undefined || open.length > 0) throw fail("it ends too early");
  return { attributes: root, elements };
}

function attributesOf(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/([A-Za-z][A-Za-z0-9]*)\s*=\s*"([^"]*)"/g)].map((match) => [match[1]!, match[2]!]),
  );
}
