// Whether a command that needs no right runs here: the same two questions that an executor asks first. Pure.
import type { Command } from "../../protocol/commands.ts";
import type { ErrorReport } from "../../protocol/errors.ts";

/** Why it does not; undefined when it does. */
export function faultHere(
  { host, limits }: Pick<Command, "host" | "limits">,
  here: { readonly host: string; readonly unixMs: number },
): ErrorReport | undefined {
  if (host !== here.host)
    return { code: "command.wrong-host", message: "The command names another host's key." };
  if (limits.notAfter !== undefined && limits.notAfter < here.unixMs)
    return { code: "command.expired", message: "The command's time limit to start had passed." };
  return undefined;
}
