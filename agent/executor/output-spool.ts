// What a program printed, on disk: a ring that keeps the newest bytes of both streams in their order, each at its offset
// in the whole. Outlives the executor, so that whoever follows later gets what is kept.
import { type OutputStream, outputPieceBytesMax } from "../../protocol/commands.ts";
import { assert, BedplateError } from "../../protocol/errors.ts";
import { errnoOf } from "../host/files.ts";
import type { RandomFile } from "../host/random-file.ts";
import { readSpoolHeader, type SpoolHeader, spoolLayout, writeSpoolHeader } from "./spool-header.ts";

export interface OutputPiece {
  readonly stream: OutputStream;
  /** Of its first byte, counted over both streams. */
  readonly offset: number;
  /** Valid until the next piece is asked for. */
  readonly data: Uint8Array;
}

export interface OutputReader {
  /**
   * The next piece, at most `outputPieceBytesMax` bytes; undefined when all that there is was read. A jump of its offset:
   * bytes were dropped, to make room or because they could not be read any more.
   */
  next(): OutputPiece | undefined;
}

export interface OutputSpool extends Disposable {
  /** Bytes of each stream so far, kept or not. */
  readonly stdoutBytes: number;
  readonly stderrBytes: number;
  readonly bytes: number;
  /** Offset of the oldest byte that is kept. */
  readonly from: number;
  append(stream: OutputStream, bytes: Uint8Array): void;
  /** From `offset` on, or from the oldest byte that is kept. */
  reader(offset: number): OutputReader;
  /** The newest bytes, at most so many. */
  tail(bytesMax: number): Uint8Array;
  /** Calls after each append. */
  onAppend(listener: () => void): Disposable;
}

/** What a spool keeps, record headers included. */
export const spoolBytesMax = 4 << 20;
assert(spoolBytesMax >= 4 * outputPieceBytesMax, "the ring holds several pieces");

/** A record's header: length, and in the highest bit the stream. */
const recordHeaderBytes = 4;
const stderrBit = 0x8000_0000;
const chunkBytes = 4096;

interface RecordAt {
  readonly position: number;
  readonly stream: OutputStream;
  readonly length: number;
}

/**
 * @param open makes the file or finds it; it is made with the first byte
 * @throws `executor.failed`
 */
export function openOutputSpool(
  open: (mode: "create" | "existing") => RandomFile | undefined,
  capacity: number = spoolBytesMax,
): OutputSpool {
  const { headerBytes } = spoolLayout;
  const listeners = new Set<() => void>();
  const attempt = <T>(work: () => T): T => {
    try {
      return work();
    } catch (cause) {
      if (cause instanceof BedplateError) throw cause;
      throw new BedplateError("executor.failed", `The program's output cannot be kept: ${errnoOf(cause)}.`, {
        cause,
      });
    }
  };
  let file = attempt(() => open("existing"));
  // Positions count the bytes of records ever written; where they lie in the file is their remainder.
  let header: SpoolHeader = { tail: 0, end: 0, tailOffset: 0, stdoutBytes: 0, stderrBytes: 0 };

  const transfer = (buffer: Uint8Array, position: number, how: (part: Uint8Array, at: number) => void) => {
    const at = position % capacity;
    const first = Math.min(buffer.length, capacity - at);
    how(buffer.subarray(0, first), headerBytes + at);
    if (first < buffer.length) how(buffer.subarray(first), headerBytes);
  };
  const readAt = (position: number, buffer: Uint8Array) =>
    transfer(buffer, position, (part, at) => {
      if (file!.read(part, at) < part.length) throw damaged();
    });
  /** Records from a position on, which must be one's. */
  const records = function* (from: number): Generator<RecordAt, void, void> {
    let chunk = new Uint8Array();
    let chunkAt = from;
    for (let position = from; position < header.end; ) {
      if (position + recordHeaderBytes > chunkAt + chunk.length) {
        chunkAt = position;
        chunk = new Uint8Array(Math.min(chunkBytes, header.end - position));
        readAt(position, chunk);
      }
      if (chunk.length < recordHeaderBytes) throw damaged();
      const word = new DataView(chunk.buffer).getUint32(position - chunkAt, true);
      const length = word & ~stderrBit;
      if (length === 0 || length > outputPieceBytesMax || position + recordHeaderBytes + length > header.end)
        throw damaged();
      yield { position, stream: (word & stderrBit) === 0 ? "stdout" : "stderr", length };
      position += recordHeaderBytes + length;
    }
  };
  const save = (next: SpoolHeader) => {
    header = next;
    writeSpoolHeader(file!, capacity, header);
  };
  const total = () => header.stdoutBytes + header.stderrBytes;
  /** What is kept cannot be read: it is lost, its count is not, and what comes is kept again. */
  const lose = () => {
    header = { ...header, tail: header.end, tailOffset: total() };
    try {
      writeSpoolHeader(file!, capacity, header);
    } catch {
      // Told by whoever next writes to it.
    }
  };
  const makeRoom = (bytes: number) => {
    if (header.end + bytes - header.tail <= capacity) return;
    let { tail, tailOffset } = header;
    try {
      for (const { position, length } of records(tail)) {
        if (header.end + bytes - tail <= capacity) break;
        tail = position + recordHeaderBytes + length;
        tailOffset += length;
      }
    } catch {
      return lose();
    }
    // Told before it is overwritten: whoever finds the file after a crash finds whole records.
    save({ ...header, tail, tailOffset });
  };
  // Taken once: a program that prints much makes no garbage here.
  const largest = new Uint8Array(recordHeaderBytes + outputPieceBytesMax);
  const appendPiece = (stream: OutputStream, piece: Uint8Array) => {
    const record = largest.subarray(0, recordHeaderBytes + piece.length);
    const word = stream === "stderr" ? (piece.length | stderrBit) >>> 0 : piece.length;
    new DataView(record.buffer).setUint32(0, word, true);
    record.set(piece, recordHeaderBytes);
    makeRoom(record.length);
    transfer(record, header.end, (part, at) => file!.write(part, at));
    const counted = stream === "stdout" ? "stdoutBytes" : "stderrBytes";
    save({ ...header, end: header.end + record.length, [counted]: header[counted] + piece.length });
  };
  if (file !== undefined) {
    const found = attempt(() => readSpoolHeader(file!, capacity));
    if (found !== undefined) header = found;
    if (!isSound(records(header.tail), header)) {
      // A power cut may leave the header of one moment and the records of another: their count is still told.
      header = { ...header, tail: header.end, tailOffset: total() };
    }
  }

  return {
    get stdoutBytes() {
      return header.stdoutBytes;
    },
    get stderrBytes() {
      return header.stderrBytes;
    },
    get bytes() {
      return total();
    },
    get from() {
      return header.tailOffset;
    },
    append(stream, bytes) {
      attempt(() => {
        file ??= open("create");
        for (let at = 0; at < bytes.length; at += outputPieceBytesMax)
          appendPiece(stream, bytes.subarray(at, at + outputPieceBytesMax));
      });
      for (const listener of listeners) listener();
    },
    reader(offset) {
      let at = { position: header.tail, offset: header.tailOffset };
      let wanted = offset;
      const buffer = new Uint8Array(outputPieceBytesMax);
      const next = (): OutputPiece | undefined => {
        if (at.position < header.tail) at = { position: header.tail, offset: header.tailOffset };
        let filled = 0;
        let stream: OutputStream | undefined;
        let start = 0;
        // Neighbours of one stream travel together, as far as they fit.
        for (const record of records(at.position)) {
          const skipped = Math.min(record.length, Math.max(0, wanted - at.offset));
          const length = record.length - skipped;
          if (stream !== undefined && (record.stream !== stream || length > buffer.length - filled)) break;
          if (length > 0) {
            if (stream === undefined) start = at.offset + skipped;
            stream = record.stream;
            const dataAt = record.position + recordHeaderBytes + skipped;
            readAt(dataAt, buffer.subarray(filled, filled + length));
            filled += length;
          }
          at = {
            position: record.position + recordHeaderBytes + record.length,
            offset: at.offset + record.length,
          };
        }
        if (stream === undefined) return undefined;
        wanted = at.offset;
        return { stream, offset: start, data: buffer.subarray(0, filled) };
      };
      return {
        next() {
          try {
            return next();
          } catch {
            // A program and its result are worth more than what it printed: the jump of the offset tells of it.
            lose();
            return undefined;
          }
        },
      };
    },
    tail(bytesMax) {
      const reader = this.reader(Math.max(0, total() - bytesMax));
      const tail = new Uint8Array(Math.min(bytesMax, total() - header.tailOffset));
      let filled = 0;
      for (let piece = reader.next(); piece !== undefined; piece = reader.next()) {
        tail.set(piece.data, filled);
        filled += piece.data.length;
      }
      return tail.subarray(0, filled);
    },
    onAppend(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    [Symbol.dispose]: () => file?.[Symbol.dispose](),
  };
}

function damaged(): BedplateError {
  return new BedplateError("executor.failed", "The program's output that was kept is damaged.");
}

/** Whether the records lead from the oldest to the end, and hold as many bytes as the header says. */
function isSound(
  records: Iterable<RecordAt>,
  { tailOffset, stdoutBytes, stderrBytes }: SpoolHeader,
): boolean {
  let bytes = tailOffset;
  try {
    for (const { length } of records) bytes += length;
  } catch (error) {
    if (error instanceof BedplateError) return false;
    throw error;
  }
  return bytes === stdoutBytes + stderrBytes;
}
