// Finds where each zstd frame ends without decoding it (RFC 8878, section 3.1): Node's decoder stops silently after the first.
import { BedplateError } from "../../protocol/errors.ts";

export interface FrameScan {
  /** Offset in the chunk after the last byte that belongs to the frame. */
  readonly end: number;
  readonly ended: boolean;
}

export interface FrameScanner {
  /**
   * Follows the current frame through `chunk` from `start`. After `ended`, the next byte starts the next frame.
   * @throws `image.corrupt` where no frame can start, or at a reserved block
   */
  scan(chunk: Uint8Array, start: number): FrameScan;
  /** Whether the scanner stands between two frames. */
  readonly between: boolean;
  /** Of the current or last frame; 0 before its header is known. */
  readonly windowBytes: number;
  readonly skippable: boolean;
}

export function createFrameScanner(): FrameScanner {
  // The scanner alternates between collecting a few header bytes and skipping what it need not look at.
  const header = new Uint8Array(16);
  let state: "magic" | "size" | "descriptor" | "rest" | "block" | "content" | "end" = "magic";
  let [collected, wanted, toSkip] = [0, 4, 0];
  let [windowBytes, skippable, checksum, lastBlock, between] = [0, false, false, false, true];

  const collect = (next: typeof state, count: number) => {
    [state, collected, wanted] = [next, 0, count];
  };
  const skip = (next: typeof state, count: number) => {
    [state, toSkip] = [next, count];
  };
  const afterBlock = () => {
    if (lastBlock) skip("end", checksum ? 4 : 0);
    else collect("block", 3);
  };
  const step = (view: DataView): void => {
    switch (state) {
      case "magic": {
        const magic = view.getUint32(0, true);
        skippable = magic >>> 4 === 0x184d2a5;
        if (!skippable && magic !== 0xfd2fb528) {
          throw new BedplateError("image.corrupt", "The zstd input has bytes where a frame must start.");
        }
        windowBytes = 0;
        collect(skippable ? "size" : "descriptor", skippable ? 4 : 1);
        return;
      }
      case "size":
        skip("end", view.getUint32(0, true));
        return;
      case "descriptor": {
        const bits = header[0]!;
        checksum = (bits & 4) !== 0;
        const single = (bits & 32) !== 0;
        const dictionary = [0, 1, 2, 4][bits & 3]!;
        const content = [single ? 1 : 0, 2, 4, 8][bits >> 6]!;
        collect("rest", 1 + (single ? 0 : 1) + dictionary + content);
        // The descriptor stays in front of what it describes.
        collected = 1;
        return;
      }
      case "rest":
        windowBytes = windowOf(header, view);
        collect("block", 3);
        return;
      case "block": {
        const bits = header[0]! | (header[1]! << 8) | (header[2]! << 16);
        lastBlock = (bits & 1) !== 0;
        const type = (bits >> 1) & 3;
        if (type === 3)
          throw new BedplateError("image.corrupt", "The zstd input has a block of a reserved type.");
        skip("content", type === 1 ? 1 : bits >> 3);
        return;
      }
      case "content":
        afterBlock();
        return;
      case "end":
        collect("magic", 4);
        between = true;
    }
  };

  const view = new DataView(header.buffer);
  return {
    get between() {
      return between;
    },
    get windowBytes() {
      return windowBytes;
    },
    get skippable() {
      return skippable;
    },
    scan(chunk, start) {
      let at = start;
      for (;;) {
        if (state === "content" || state === "end") {
          const taken = Math.min(toSkip, chunk.length - at);
          toSkip -= taken;
          at += taken;
          if (toSkip > 0) return { end: at, ended: false };
          step(view);
          if (between) return { end: at, ended: true };
        } else {
          while (collected < wanted && at < chunk.length) {
            header[collected++] = chunk[at++]!;
            between = false;
          }
          if (collected < wanted) return { end: at, ended: false };
          step(view);
        }
      }
    },
  };
}

/** Memory that decoding the frame takes: its window, or in a single segment its content. */
function windowOf(header: Uint8Array, view: DataView): number {
  const bits = header[0]!;
  if ((bits & 32) === 0) {
    const exponent = header[1]! >> 3;
    return 2 ** (10 + exponent) * (1 + (header[1]! & 7) / 8);
  }
  const at = 1 + [0, 1, 2, 4][bits & 3]!;
  switch (bits >> 6) {
    case 0:
      return header[at]!;
    case 1:
      return view.getUint16(at, true) + 256;
    case 2:
      return view.getUint32(at, true);
    default:
      return Number(view.getBigUint64(at, true));
  }
}
