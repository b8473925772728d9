// Running a program on a host: planned and confirmed like every change, its output as it comes, how it ended.
import { ExecOutput } from "../protocol/commands.ts";
import { type ChangeOptions, change, exitCodeOfChange } from "./change.ts";
import { processSinks, readOutput } from "./command-output.ts";
import type { ExitCode } from "./exit-codes.ts";
import { outputOf } from "./operation.ts";
import { formatBytes, formatSeconds } from "./output.ts";

export interface ExecOptions extends Omit<ChangeOptions, "kind" | "arguments" | "alongside"> {
  readonly argv: readonly string[];
  readonly directory?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly outputBytesMax?: number;
}

export async function exec(options: ExecOptions): Promise<ExitCode> {
  const { argv, directory, environment, outputBytesMax, ...common } = options;
  const { client, terminal } = common;
  const changed = await change({
    ...common,
    kind: "host.exec",
    arguments: {
      argv,
      ...(directory === undefined ? {} : { directory }),
      ...(environment === undefined ? {} : { environment }),
      ...(outputBytesMax === undefined ? {} : { outputBytesMax }),
    },
    // With --json there is one document; `command output ID` has the whole.
    ...(terminal.json
      ? {}
      : {
          alongside: async (id, until) => {
            const sinks = processSinks((text) => terminal.note(text));
            try {
              await readOutput({ client, id, follow: true, until, sinks });
            } catch (error) {
              // The command goes on without being watched: its result comes another way.
              if (!until.aborted) terminal.note(`its output cannot be shown: ${(error as Error).message}`);
            }
          },
        }),
  });
  if (typeof changed === "number") return changed;
  const { plan, view } = changed;
  const ran = view.result?.output === undefined ? undefined : outputOf(view, ExecOutput);
  if (view.state === "succeeded") terminal.document({ plan, exec: ran, command: view });
  if (ran !== undefined) terminal.note(ranText(ran));
  return exitCodeOfChange(changed, terminal, ran === undefined ? {} : { exec: ran });
}

export function ranText({ exitCode, signal, bytes, digest, seconds, endsWithExecutor }: ExecOutput): string {
  const how = exitCode === null ? `was ended by ${signal ?? "a signal"}` : `ended with exit code ${exitCode}`;
  return [
    `${how} after ${formatSeconds(seconds)}; ${formatBytes(bytes)} of output, BLAKE3 ${digest}`,
    ...(endsWithExecutor ? [] : ["this host has no setpriv: the program would outlive a killed executor"]),
  ].join("\n");
}
