// A terminal's second screen: entered, redrawn whole, and given back as it was found.

/** What is used of process.stdin and process.stdout. */
export interface ScreenStreams {
  readonly output: {
    readonly columns?: number;
    readonly rows?: number;
    write(text: string): unknown;
    on(event: "resize", listener: () => void): unknown;
    off(event: "resize", listener: () => void): unknown;
  };
  readonly input: {
    readonly isTTY?: boolean;
    setRawMode?(raw: boolean): unknown;
    resume(): unknown;
    pause(): unknown;
    on(event: "data", listener: (data: Uint8Array) => void): unknown;
    off(event: "data", listener: (data: Uint8Array) => void): unknown;
  };
}

export interface ScreenOptions {
  readonly streams: ScreenStreams;
  /** `q`, Escape or Ctrl-C was pressed. */
  readonly onQuit: () => void;
  readonly onResize: () => void;
}

export interface Screen extends Disposable {
  readonly width: number;
  readonly height: number;
  draw(lines: readonly string[]): void;
}

const enter = "\u001b[?1049h\u001b[?25l";
const leave = "\u001b[?25h\u001b[?1049l";
const home = "\u001b[H";
const clearLine = "\u001b[K";
const clearBelow = "\u001b[J";

export function openScreen({ streams, onQuit, onResize }: ScreenOptions): Screen {
  const { input, output } = streams;
  const onData = (data: Uint8Array) => {
    // A lone Escape quits; an arrow key begins with one and does not.
    if ((data.length === 1 && data[0] === 0x1b) || data.includes(0x71) || data.includes(0x03)) onQuit();
  };
  // Also when the process ends by an error that nobody catches.
  const restore = () => {
    if (input.isTTY === true) input.setRawMode?.(false);
    output.write(leave);
  };
  process.once("exit", restore);
  output.write(enter);
  output.on("resize", onResize);
  if (input.isTTY === true) {
    input.setRawMode?.(true);
    input.on("data", onData);
    input.resume();
  }
  return {
    get width() {
      return output.columns || 80;
    },
    get height() {
      return output.rows || 24;
    },
    draw(lines) {
      output.write(`${home}${lines.map((line) => `${line}${clearLine}`).join("\r\n")}${clearBelow}`);
    },
    [Symbol.dispose]() {
      output.off("resize", onResize);
      if (input.isTTY === true) {
        input.off("data", onData);
        input.pause();
      }
      process.off("exit", restore);
      restore();
    },
  };
}
