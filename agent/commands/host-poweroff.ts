// host.poweroff: powers the host off, once, and ends when somebody has started it again: then the boot id is another one.

import { leaveBoot, planLeaving } from "./boot-step.ts";
import type { Command } from "./command.ts";

/** To go down in; how long it stays off does not matter. */
const deadlineSeconds = 900;

export const hostPowerOff: Command<"host.poweroff"> = {
  async run({ mode, arguments: { reason } }, context, signal) {
    const leaving = { to: "poweroff", deadlineSeconds, reason } as const;
    if (mode === "plan") return { output: planLeaving(leaving, context) };
    return { output: await leaveBoot(leaving, context, signal) };
  },
};
