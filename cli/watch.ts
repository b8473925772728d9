// `bedplate host watch HOST`: live telemetry, on the terminal's second screen, or a line for each sample.
import type { LiveEvent } from "./api-client.ts";
import { every, monotonic } from "./clock.ts";
import { vitalsLine, vitalsOf } from "./demo/vitals.ts";
import { formatTime } from "./output.ts";
import { openScreen, type ScreenStreams } from "./screen.ts";
import type { Terminal } from "./terminal.ts";
import { figuresOf, newWatch, type WatchState, withDictionary, withSample } from "./watch-figures.ts";
import { renderWatch } from "./watch-view.ts";

export interface WatchOptions {
  readonly client: {
    host(
      reference: string,
    ): Promise<{ readonly id: string; readonly name: string; readonly connection: string }>;
    live(host: string, signal?: AbortSignal): AsyncIterable<LiveEvent>;
  };
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
  readonly reference: string;
  /** Default: those of the process. */
  readonly streams?: ScreenStreams;
}

const redrawMs = 1000;

/**
 * Shows the host until `q`, Ctrl-C or the signal, or until the server ends the stream. The terminal is then as it was.
 * @throws what the API answers
 */
export async function watchHost(options: WatchOptions): Promise<void> {
  const { client, terminal, signal, reference } = options;
  const host = await client.host(reference);
  const state = newWatch(host.name, host.connection === "online");
  const quit = new AbortController();
  const until = AbortSignal.any([signal, quit.signal]);
  const events = client.live(host.id, until);
  try {
    if (terminal.fancy) await show(state, events, { ...options, onQuit: () => quit.abort() });
    else await print(state, events, terminal);
  } catch (error) {
    if (!until.aborted) throw error;
  }
}

/** Redraws at each sample, at a change of the terminal's size, and each second while no sample comes. */
async function show(
  first: WatchState,
  events: AsyncIterable<LiveEvent>,
  {
    streams = { input: process.stdin, output: process.stdout },
    onQuit,
  }: WatchOptions & { onQuit: () => void },
): Promise<void> {
  let state = first;
  let heardAt = monotonic();
  const draw = () => {
    const quietSeconds = (monotonic() - heardAt) / 1000;
    screen.draw(renderWatch({ ...state, quietSeconds }, screen.width, screen.height));
  };
  using screen = openScreen({ streams, onQuit, onResize: () => draw() });
  using _ = every(redrawMs, draw);
  draw();
  for await (const event of events) {
    state = nextState(state, event);
    if (event.type === "sample") {
      heardAt = monotonic();
      draw();
    }
  }
}

async function print(first: WatchState, events: AsyncIterable<LiveEvent>, terminal: Terminal): Promise<void> {
  let state = first;
  for await (const event of events) {
    state = nextState(state, event);
    if (event.type !== "sample" || state.before === null) continue;
    terminal.document({ host: state.host, ...figuresOf(state) });
    terminal.print(
      `${formatTime(event.sample.at)}   ${vitalsLine(vitalsOf(state, state.before, event.sample))}`,
    );
  }
}

function nextState(state: WatchState, event: LiveEvent): WatchState {
  return event.type === "dictionary"
    ? withDictionary(state, event.dictionary)
    : withSample(state, event.sample);
}
