// Counts the bytes of WebSocket messages as they arrive, so that one too large is known from its header, before it is kept.

/**
 * Follows the framing of RFC 6455, section 5.2, beside the WebSocket library. That takes its limit once, at the start;
 * here it is low until the peer has proved who it is, and a message above it can be answered with a close code of ours.
 */
export class FrameMeter {
  bytesMax: number;
  readonly #onTooLarge: (bytes: number) => void;
  readonly #header = new Uint8Array(14);
  #headerBytes = 0;
  /** Payload bytes of the present frame that are still to come. */
  #left = 0;
  /** Payload bytes that the present message's headers have announced. */
  #message = 0;
  #stopped = false;

  constructor(bytesMax: number, onTooLarge: (bytes: number) => void) {
    this.bytesMax = bytesMax;
    this.#onTooLarge = onTooLarge;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#left > 0) {
        const skipped = Math.min(this.#left, chunk.length - at);
        this.#left -= skipped;
        at += skipped;
        continue;
      }
      this.#header[this.#headerBytes++] = chunk[at++]!;
      if (this.#headerBytes >= 2 && this.#headerBytes === headerLength(this.#header[1]!)) this.#frame();
    }
  }

  #frame(): void {
    const header = this.#header;
    const view = new DataView(header.buffer);
    const short = header[1]! & 0x7f;
    const length = short === 126 ? view.getUint16(2) : short === 127 ? Number(view.getBigUint64(2)) : short;
    this.#headerBytes = 0;
    this.#left = length;
    const control = (header[0]! & 0x08) !== 0;
    if (control) return;
    this.#message += length;
    if (this.#message > this.bytesMax) {
      this.#stopped = true;
      this.#onTooLarge(this.#message);
    }
    const final = (header[0]! & 0x80) !== 0;
    if (final) this.#message = 0;
  }
}

// Two bytes, the extended length (section 5.2), and the masking key of every frame of a client.
function headerLength(second: number): number {
  const short = second & 0x7f;
  return 2 + (short === 126 ? 2 : short === 127 ? 8 : 0) + ((second & 0x80) !== 0 ? 4 : 0);
}
