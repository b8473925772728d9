// Recognises what an input is by its first bytes, and what sector size an image's partition table is for.
import { BedplateError } from "../../protocol/errors.ts";

export const formats = ["raw", "gzip", "zstd", "xz", "qcow2"] as const;
export type Format = (typeof formats)[number];

/** Bytes of the input's head that recognition wants; fewer only when the input ends before. */
export const headBytes = 8192;

interface Magic {
  readonly format: Format | null;
  readonly label: string;
  readonly offset: number;
  readonly bytes: readonly number[];
}

const text = (value: string) => [...value].map((character) => character.charCodeAt(0));
/** `format: null`: known, and not taken. Left out: what could as well be the start of a raw disk. */
const magics: readonly Magic[] = [
  { format: "gzip", label: "gzip", offset: 0, bytes: [0x1f, 0x8b, 0x08] },
  { format: "zstd", label: "zstd", offset: 0, bytes: [0x28, 0xb5, 0x2f, 0xfd] },
  ...Array.from(
    { length: 16 },
    (_, k): Magic => ({ format: "zstd", label: "zstd", offset: 0, bytes: [0x50 + k, 0x2a, 0x4d, 0x18] }),
  ),
  { format: "xz", label: "xz", offset: 0, bytes: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { format: "qcow2", label: "qcow2", offset: 0, bytes: [...text("QFI"), 0xfb] },
  { format: null, label: "VMDK", offset: 0, bytes: text("KDMV") },
  { format: null, label: "VMDK", offset: 0, bytes: text("# Disk DescriptorFile") },
  { format: null, label: "VHDX", offset: 0, bytes: text("vhdxfile") },
  { format: null, label: "VHD", offset: 0, bytes: text("conectix") },
  { format: null, label: "VDI", offset: 64, bytes: [0x7f, 0x10, 0xda, 0xbe] },
  { format: null, label: "QED", offset: 0, bytes: [...text("QED"), 0] },
  { format: null, label: "bzip2", offset: 0, bytes: text("BZh") },
  { format: null, label: "lz4", offset: 0, bytes: [0x04, 0x22, 0x4d, 0x18] },
  { format: null, label: "lzip", offset: 0, bytes: text("LZIP") },
  { format: null, label: "zip", offset: 0, bytes: [0x50, 0x4b, 0x03, 0x04] },
  { format: null, label: "7z", offset: 0, bytes: [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c] },
  { format: null, label: "RPM", offset: 0, bytes: [0xed, 0xab, 0xee, 0xdb] },
  { format: null, label: "tar", offset: 257, bytes: text("ustar") },
];

/**
 * The format to read the input as.
 * @throws `image.unsupported` when it is none we take, or not the one that was asked for
 */
export function resolveFormat(head: Uint8Array, asked: Format | undefined): Format {
  if (asked === "raw") return "raw";
  const known = magics.find((magic) => hasAt(head, magic.offset, magic.bytes));
  if (asked !== undefined) {
    if (known?.format === asked) return asked;
    throw new BedplateError(
      "image.unsupported",
      `The input is not ${asked}${known === undefined ? "" : ` but ${known.label}`}.`,
    );
  }
  if (known?.format === null) {
    throw new BedplateError("image.unsupported", `The input is ${known.label}, which is not taken.`, {
      hint: "Convert it to raw, gzip, zstd, xz or qcow2; if it is a raw image after all, import it with --format raw.",
    });
  }
  return known?.format ?? "raw";
}

/**
 * Refuses unpacked content that is itself packed: deployed as it is, no machine would boot it.
 * @throws `image.unsupported`
 */
export function refuseNested(head: Uint8Array, outer: Format): void {
  const known = magics.find((magic) => hasAt(head, magic.offset, magic.bytes));
  if (known === undefined) return;
  throw new BedplateError(
    "image.unsupported",
    `The ${outer} input holds ${known.label} data, not a raw image.`,
    {
      hint: "Unpack it first, and import what is in it.",
    },
  );
}

function hasAt(bytes: Uint8Array, offset: number, expected: readonly number[]): boolean {
  return expected.every((byte, i) => bytes[offset + i] === byte);
}
