// Following a command to its last state: events of the controller wake it, a slow poll makes sure.
import type { CommandView } from "../protocol/api.ts";
import { isTerminal } from "../protocol/commands.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { ApiClient } from "./api-client.ts";
import { sleep } from "./clock.ts";

/** Without an event, look again after this. */
const pollMs = 2000;

/** Resolves with the command in its last state; `onView` sees every change on the way. */
export async function follow(
  api: ApiClient,
  id: string,
  signal: AbortSignal,
  onView: (view: CommandView) => void = () => {},
): Promise<CommandView> {
  const stop = new AbortController();
  const until = AbortSignal.any([signal, stop.signal]);
  let wake = Promise.withResolvers<void>();
  let broken: unknown;
  const listening = listen(api, id, until, () => wake.resolve()).catch((error: unknown) => {
    broken = error;
    wake.resolve();
  });
  try {
    let seen = "";
    for (;;) {
      signal.throwIfAborted();
      const view = await api.command(id);
      const text = JSON.stringify(view);
      if (text !== seen) onView(view);
      seen = text;
      if (isTerminal(view.state)) return view;
      await Promise.race([wake.promise, sleep(pollMs, until)]);
      // A stream that is refused leaves the poll, which is enough; `broken` only says not to spin.
      if (broken === undefined) wake = Promise.withResolvers<void>();
      else await sleep(pollMs, until);
    }
  } finally {
    stop.abort(new BedplateError("command.cancelled", "The command has ended."));
    await listening;
  }
}

async function listen(api: ApiClient, id: string, until: AbortSignal, onEvent: () => void): Promise<void> {
  for await (const event of api.events(undefined, until))
    if (event.topic === "command" && event.id === id) onEvent();
}
