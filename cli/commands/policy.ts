// `bedplate policy check|explain`, on the host: whether its policy can be used, and what it says to a command.
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { BedplateError } from "../../protocol/errors.ts";
import { bytesOfBase64 } from "../../protocol/ssh-wire.ts";
import type { ApiClient } from "../api-client.ts";
import { findingsTable } from "../change-text.ts";
import type { Context, Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { facts, table } from "../output.ts";
import { unreadable } from "../unreadable.ts";
import { addJournalOption, type HostOptions } from "./host-options.ts";

interface ExplainOptions extends HostOptions {
  readonly signature?: readonly string[];
  readonly image?: string;
}

export function addPolicyCommands(program: Command, perform: Performer): void {
  const noun = program
    .command("policy")
    .description("on a host: what it allows, which no controller can change");
  const check = noun
    .command("check")
    .argument("[file]", "a policy file, the one in force if absent (/etc/bedplate/policy.toml)")
    .description("read a policy as the executor does: what is wrong with it, or what it demands")
    .action(
      perform(async ({ terminal }, _, [file]) => {
        const { checkPolicyFile } = await import("../../agent/host-tools.ts");
        const { distrust, ...checked } = checkPolicyFile(file === undefined ? undefined : resolve(file));
        const { path, digest, kinds, signers, fileDisks, imageSignatures } = checked;
        terminal.print(
          [
            facts([
              ["policy", path],
              ["SHA-256", digest],
              ["file disks", `${fileDisks}`],
              ["images need", imageSignatures ?? "no signature"],
              ...signers.map(({ set, operators }): [string, string] => [
                `signers ${set}`,
                operators.join(", "),
              ]),
            ]),
            "",
            kinds.length === 0
              ? "It says nothing of any kind of command: what changes the host is refused."
              : table(kinds, [
                  { title: "KIND", of: ({ kind }) => kind },
                  { title: "NEEDS", of: ({ needs }) => needs },
                ]),
          ].join("\n"),
        );
        if (distrust !== null) {
          terminal.fail(new BedplateError(distrust.code, distrust.message, distrust), checked);
          return exitCodes.refused;
        }
        terminal.document(checked);
        return exitCodes.ok;
      }),
    );
  example(check, "bedplate policy check", "bedplate policy check ./policy-draft.toml");

  const explain = noun
    .command("explain")
    .argument("<command>", "the file of a command document, or the id of a command that the controller has")
    .description("what this host's policy says to a command now, part by part; exit code 3 when it refuses")
    .option(
      "--signature <file>",
      "a signature over the document; may be repeated",
      (file: string, before: readonly string[] = []) => [...before, file],
    )
    .option(
      "--image <directory>",
      "the command's image, as `bedplate image export` writes it: says whether enough operators have signed it",
    )
    .option("--policy <file>", "another policy than the one in force; not as root");
  addJournalOption(explain).action(
    perform<ExplainOptions>(async (context, options, [reference]) => {
      const { explainPolicy, hostPaths } = await import("../../agent/host-tools.ts");
      const { terminal } = context;
      const { journal, policy } = options;
      const paths = hostPaths({
        ...(journal === undefined ? {} : { stateDirectory: journal }),
        ...(policy === undefined ? {} : { policy }),
      });
      const { document, from } = await documentOf(context, reference!);
      const signatures = await Promise.all((options.signature ?? []).map((file) => textOf(file)));
      const { imageToExplain } = await import("../policy-image.ts");
      const image = await imageToExplain(document, { directory: options.image, controller: from });
      const explained = await explainPolicy(paths, document, signatures, image);
      if (from?.signed === true)
        terminal.note(
          "signatures of the command that the controller holds do not come this way: give them with --signature",
        );
      terminal.document(explained);
      terminal.print(findingsTable(explained.findings));
      terminal.print(
        `\n${explained.kind}: ${explained.allowed ? "the policy lets it through" : "the policy refuses it"}${explained.requires === null ? "" : `; needs ${explained.requires.k} of ${explained.requires.from.join(" or ")}, has ${explained.signedBy.length}${explained.signedBy.length === 0 ? "" : `: ${explained.signedBy.join(", ")}`}`}.`,
      );
      return explained.allowed ? exitCodes.ok : exitCodes.refused;
    }),
  );
  example(
    explain,
    "bedplate policy explain deploy.json --signature deploy.json.sig --image /srv/mirror/debian-12",
    "bedplate policy explain 01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90 --client client.json",
  );
}

/** The document, and where it came from: the controller, where an id was given. */
async function documentOf(
  { api }: Context,
  reference: string,
): Promise<{
  readonly document: Uint8Array;
  readonly from?: { readonly client: ApiClient; readonly signed: boolean };
}> {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(reference))
    return { document: await bytesOfFile(reference) };
  const client = await api();
  const view = await client.command(reference);
  const document = bytesOfBase64(view.document);
  if (document === undefined)
    throw new BedplateError("message.invalid", "The controller's copy of the document is not valid base64.");
  return { document, from: { client, signed: view.signatures.length > 0 } };
}

async function bytesOfFile(file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (cause) {
    throw unreadable(
      file,
      cause,
      "Give a command document, as `bedplate command sign ID --output FILE` writes it, or a command's id.",
    );
  }
}

async function textOf(file: string): Promise<string> {
  return Buffer.from(await bytesOfFile(file)).toString("utf8");
}
