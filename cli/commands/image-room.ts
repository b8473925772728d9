// `bedplate image remove|gc`: taking images away, and freeing what none has any more.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { formatBytes } from "../output.ts";

export function addImageRoomCommands(image: Command, perform: Performer): void {
  const remove = image
    .command("remove")
    .argument("<image>", "name, root, or its first 8 digits or more")
    .description("remove an image and its mirrors from the controller; what other images share with it stays")
    .option("--force", "also while a command that has not ended names it")
    .action(
      perform<{ force?: boolean }>(async ({ terminal, api }, { force = false }, [reference]) => {
        const client = await api();
        const { root } = await client.image(reference!);
        const removed = await client.removeImage(root, force);
        terminal.document(removed);
        terminal.print(`${removed.name} (${root}) is removed; ${formatBytes(removed.freedBytes)} are free.`);
        return exitCodes.ok;
      }),
    );
  example(remove, "bedplate image remove debian-11");

  const collect = image
    .command("gc")
    .description(
      "free what no image has any more: what removed images left in files of frames that others share. Such a file is written anew without it, where at least a quarter of it is in no image; what stays is told. It can be interrupted",
    )
    .option("--dry-run", "only say what would be freed, and what would stay")
    .option(
      "--all",
      "also files of which less than a quarter is in no image: more is then written than freed",
    )
    .action(
      perform<{ dryRun?: boolean; all?: boolean }>(
        async ({ terminal, signal, api }, { dryRun = false, all = false }) => {
          const { collectImages, collectionText } = await import("../image-collect.ts");
          const client = await api();
          const found = await collectImages({ client, terminal, signal, request: { dryRun, all } });
          terminal.document({ dryRun, ...found });
          terminal.print(collectionText(found, dryRun));
          return exitCodes.ok;
        },
      ),
    );
  example(collect, "bedplate image gc --dry-run", "bedplate image gc", "bedplate image gc --all");
}
