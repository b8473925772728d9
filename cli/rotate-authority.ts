// Changing the controller's authority with an overlap, and who would be left behind when it ends.
import type { RotationView } from "../protocol/api.ts";
import { BedplateError } from "../protocol/errors.ts";
import type { ApiClient } from "./api-client.ts";
import { now } from "./clock.ts";
import { type ExitCode, exitCodes } from "./exit-codes.ts";
import { facts, formatAge, formatTime, table } from "./output.ts";
import type { Terminal } from "./terminal.ts";

export interface RotateOptions {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly step: "rotate" | "finish" | "status";
  /** Finish although hosts would be left behind. */
  readonly unasked: boolean;
}

export async function rotateAuthority({ client, terminal, step, unasked }: RotateOptions): Promise<ExitCode> {
  if (step === "finish" && !unasked) {
    const { waiting } = await client.authority();
    if (waiting.length > 0) {
      throw new BedplateError(
        "usage",
        `${waiting.length} ${waiting.length === 1 ? "host has" : "hosts have"} not connected since: ${waiting
          .slice(0, 8)
          .map(({ name }) => name)
          .join(", ")}${waiting.length > 8 ? ", …" : ""}.`,
        {
          hint: "Let them connect, or say --yes: each of them then needs `bedplate join-token create --for NAME`.",
          details: { waiting },
        },
      );
    }
  }
  const view = step === "status" ? await client.authority() : await client.rotateAuthority(step);
  terminal.document(view);
  terminal.print(rotationText(view));
  return exitCodes.ok;
}

export function rotationText({ state, startedAt, authorities, waiting }: RotationView): string {
  const told = {
    none: "no rotation is under way",
    overlapping: "overlapping: agents trust the old authority and the new one",
    finished: "finished: the old authority is trusted no more",
  }[state];
  return [
    facts([
      ["rotation", told],
      ...(startedAt === null ? [] : [["since", formatTime(startedAt)] as const]),
      ...authorities.map((sha256): [string, string] => ["authority", `SHA-256 ${sha256}`]),
    ]),
    ...(waiting.length === 0
      ? []
      : [
          "",
          state === "finished"
            ? "These hosts know the old authority only; for each: bedplate join-token create --for NAME"
            : "These hosts have not connected since, and know the old authority only:",
          table(waiting, [
            { title: "NAME", of: ({ name }) => name },
            { title: "LAST SEEN", of: ({ lastSeenAt }) => formatAge(lastSeenAt, now()) },
          ]),
        ]),
    ...(state === "overlapping"
      ? [
          "",
          `${waiting.length === 0 ? "All hosts know both" : "When the list is empty"}: bedplate controller rotate-ca --finish`,
          "Before that, client files on other machines need the certificate of the controller's new client.json.",
        ]
      : []),
  ].join("\n");
}
