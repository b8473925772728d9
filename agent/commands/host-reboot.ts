// host.reboot: restarts the host, once, and ends when it is back with another boot id.

import { leaveBoot, planLeaving } from "./boot-step.ts";
import type { Command } from "./command.ts";

const usualDeadlineSeconds = 900;

export const hostReboot: Command<"host.reboot"> = {
  async run({ mode, arguments: asked }, context, signal) {
    const { reason, deadlineSeconds = usualDeadlineSeconds } = asked;
    const leaving = { to: "reboot", deadlineSeconds, reason } as const;
    if (mode === "plan") return { output: planLeaving(leaving, context) };
    return { output: await leaveBoot(leaving, context, signal) };
  },
};
