// Asking that a command wait or go on, and giving its host a moment to say that it does.
import type { CommandView } from "../protocol/api.ts";
import { isTerminal } from "../protocol/commands.ts";
import type { ApiClient } from "./api-client.ts";
import { sleep } from "./clock.ts";

/** A host that is connected answers within about a second. */
const lookMs = 250;
const looksMax = 20;

/** @throws `api.not-found`, `command.not-pausable` */
export async function pauseCommand(
  client: Pick<ApiClient, "pause" | "resume" | "command">,
  id: string,
  verb: "pause" | "resume",
  signal: AbortSignal,
): Promise<CommandView> {
  let view = await client[verb](id);
  const settled = () =>
    isTerminal(view.state) ||
    view.state !== "running" ||
    (view.progress?.paused === true) === (verb === "pause");
  for (let looks = 0; looks < looksMax && !settled(); looks++) {
    await sleep(lookMs, signal);
    view = await client.command(id);
  }
  return view;
}
