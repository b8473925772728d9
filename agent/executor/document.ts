// The command document as the executor takes it: its very bytes, their digest, and what they say or why they say nothing.
import { createHash } from "node:crypto";
import { type Command, commandKinds, decodeCommand, type Effect, effectOf } from "../../protocol/commands.ts";
import { BedplateError, type ErrorReport } from "../../protocol/errors.ts";
import { boundedReport, CommandId, checker } from "../../protocol/schema.ts";
import type { ExecutorCommand } from "./operation.ts";

export interface Document {
  readonly id: string;
  readonly bytes: Uint8Array;
  readonly digest: Uint8Array;
  readonly command:
    | { readonly decoded: ExecutorCommand; readonly effect: Effect }
    | { readonly error: ErrorReport };
}

const checkId = checker(CommandId, "executor.failed", "command's id");

/** @throws `executor.failed` when not even an id can be read: then nothing can be journalled */
export function readDocument(base64: string): Document {
  const bytes = new Uint8Array(Buffer.from(base64, "base64"));
  const digest = new Uint8Array(createHash("sha256").update(bytes).digest());
  try {
    const decoded = decodeCommand(bytes);
    const command = isForExecutor(decoded)
      ? { decoded, effect: effectOf(decoded) }
      : { error: notForExecutor(decoded.kind) };
    return { id: decoded.id, bytes, digest, command };
  } catch (error) {
    return { id: idOf(bytes, error), bytes, digest, command: { error: boundedReport(error) } };
  }
}

function isForExecutor(command: Command): command is ExecutorCommand {
  return commandKinds[command.kind].runs === "executor";
}

function notForExecutor(kind: string): ErrorReport {
  return {
    code: "command.unknown-kind",
    message: `${kind} is answered by the agent; it does not run in an executor.`,
  };
}

function idOf(bytes: Uint8Array, cause: unknown): string {
  try {
    return checkId((JSON.parse(new TextDecoder().decode(bytes)) as { id?: unknown }).id);
  } catch {
    throw new BedplateError(
      "executor.failed",
      `The command cannot be read, and names no id: ${boundedReport(cause).message}`,
      { cause },
    );
  }
}
