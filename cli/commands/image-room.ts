// `bedplate image remove|gc`: taking images away, and freeing what none has any more.
import type { Command } from "commander";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { facts, formatBytes } from "../output.ts";

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
    .description("free what no image has any more: stored groups of removed images beside shared ones")
    .option("--dry-run", "only say what would be freed")
    .option("--all", "also what lies among much that is in use: more is then written than freed")
    .action(
      perform<{ dryRun?: boolean; all?: boolean }>(
        async ({ terminal, api }, { dryRun = false, all = false }) => {
          const found = await (await api()).collectImages({ dryRun, all });
          const later = found.deadBytes - found.freedBytes;
          terminal.document({ dryRun, ...found });
          terminal.print(
            facts([
              ["images", `${found.images}`],
              ["stored", formatBytes(found.storedBytes)],
              ["in no image", formatBytes(found.deadBytes)],
              [dryRun ? "would free" : "freed", formatBytes(found.freedBytes)],
              [dryRun ? "would copy" : "copied", formatBytes(found.copiedBytes)],
              ...(later > 0
                ? ([["left", `${formatBytes(later)} among much that is in use: --all frees them`]] as [
                    string,
                    string,
                  ][])
                : []),
            ]),
          );
          return exitCodes.ok;
        },
      ),
    );
  example(collect, "bedplate image gc --dry-run", "bedplate image gc");
}
