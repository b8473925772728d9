// Option values as people write them, refused with a sentence before anything runs.
import { type Command, InvalidArgumentError } from "commander";
import { type Scope, scopes } from "../protocol/api.ts";
import { operationStates } from "../protocol/commands.ts";
import { limits } from "../protocol/limits.ts";
import { formatSeconds, parseBytes, parseSeconds } from "./output.ts";

/** `15m` to seconds, no more than the protocol takes. */
export function durationUpTo(secondsMax: number): (text: string) => number {
  return (text) => {
    const seconds = parseSeconds(text);
    if (seconds === undefined || seconds === 0)
      throw new InvalidArgumentError('Write a duration such as "90s", "15m", "1h" or "7d".');
    if (seconds > secondsMax) throw new InvalidArgumentError(`At most ${formatSeconds(secondsMax)}.`);
    return seconds;
  };
}

/** How long a command may run or wait on its host, and a join token be used. */
export const monthOption = durationUpTo(30 * 86_400);

/** `192M` to bytes. */
export function bytesOption(text: string): number {
  const bytes = parseBytes(text);
  if (bytes === undefined || bytes === 0)
    throw new InvalidArgumentError('Write a size such as "192M" or "2G".');
  return bytes;
}

/** `20M` a second to bytes, no less than the protocol takes. */
export function rateOption(text: string): number {
  const bytes = bytesOption(text);
  if (bytes < 1 << 16) throw new InvalidArgumentError("No less than 64K a second.");
  return bytes;
}

export function countOption(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError("Write a whole number from 1 on.");
  return Number(text);
}

export function countUpTo(max: number): (text: string) => number {
  return (text) => {
    const count = countOption(text);
    if (count > max) throw new InvalidArgumentError(`At most ${max}.`);
    return count;
  };
}

export function linkLostOption(text: string): "continue" | "pause" | "abort" {
  if (text !== "continue" && text !== "pause" && text !== "abort")
    throw new InvalidArgumentError("Say continue, pause or abort.");
  return text;
}

export function sourceOption(text: string): "agent" | "executor" {
  if (text !== "agent" && text !== "executor") throw new InvalidArgumentError("Say agent or executor.");
  return text;
}

export function approveOption(text: string): "auto" | "manual" {
  if (text !== "auto" && text !== "manual") throw new InvalidArgumentError("Say auto or manual.");
  return text;
}

export function scopeOption(text: string): Scope {
  const scope = scopes.find((known) => known === text);
  if (scope === undefined) throw new InvalidArgumentError(`Scopes are ${scopes.join(", ")}.`);
  return scope;
}

export function digestOption(text: string): string {
  if (!/^[0-9a-fA-F]{64}$/.test(text)) throw new InvalidArgumentError("Write 64 hexadecimal digits.");
  return text.toLowerCase();
}

/** Of a host or a token; a host's id passes, too. */
export function nameOption(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._:-]*$/.test(text) || text.length > limits.nameLengthMax)
    throw new InvalidArgumentError(
      `Write at most ${limits.nameLengthMax} of letters, digits and . _ : -, the first a letter or digit.`,
    );
  return text;
}

export function fingerprintOption(text: string): string {
  if (!/^SHA256:[A-Za-z0-9+/]{43}$/.test(text))
    throw new InvalidArgumentError("Write SHA256: and 43 characters, as ssh-keygen -l shows it.");
  return text;
}

export function stateOption(text: string): string {
  if (!(operationStates as readonly string[]).includes(text))
    throw new InvalidArgumentError(`States are ${operationStates.join(", ")}.`);
  return text;
}

/** Every command's help ends with an example of it. */
export function example(command: Command, ...lines: string[]): Command {
  return command.addHelpText(
    "after",
    `\nExample${lines.length === 1 ? "" : "s"}:\n${lines.map((line) => `  ${line}`).join("\n")}`,
  );
}
