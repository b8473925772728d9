// `bedplate images`, `image add`, `image import`.
import type { Command } from "commander";
import { now } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { digestOption, example } from "../options.ts";
import { facts, formatAge, formatBytes, table } from "../output.ts";
import { addMirrorCommands } from "./image-mirrors.ts";
import { addImageTrustCommands } from "./image-trust.ts";

interface ImportOptions {
  readonly store: string;
  readonly name?: string;
  readonly sha256?: string;
  readonly format?: string;
}

export function addImageCommands(program: Command, perform: Performer): void {
  const list = program
    .command("images")
    .description("list the images")
    .action(
      perform(async ({ terminal, api }) => {
        const images = await (await api()).images();
        terminal.document({ images });
        terminal.print(
          images.length === 0
            ? "There are no images. Add one with `bedplate image add FILE`."
            : table(images, [
                { title: "NAME", of: (image) => image.name },
                { title: "ROOT", of: (image) => image.root.slice(0, 16) },
                { title: "SIZE", of: (image) => formatBytes(image.sizeBytes), align: "right" },
                { title: "STORED", of: (image) => formatBytes(image.storedBytes), align: "right" },
                { title: "GROUPS", of: (image) => `${image.groups}`, align: "right" },
                { title: "ZERO", of: (image) => `${image.zeroGroups}`, align: "right" },
                {
                  title: "SECTOR",
                  of: (image) => (image.sectorBytes === null ? null : `${image.sectorBytes}`),
                  align: "right",
                },
                { title: "FROM", of: (image) => image.importedFrom },
                { title: "ADDED", of: (image) => formatAge(image.addedAt, now()) },
              ]),
        );
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate images");

  const noun = program.command("image").description("disk images");
  const add = noun
    .command("add")
    .argument("<file|url>", "raw, gzip, zstd, xz or qcow2, recognised by content")
    .description("import an image here and upload it to the controller")
    .option("--name <name>", "what to call it (else the file's name)")
    .option("--sha256 <hex>", "refuse an input with another SHA-256", digestOption)
    .option("--format <format>", "take the input as raw, gzip, zstd, xz or qcow2 whatever it looks like")
    .action(
      perform<ImportOptions>(async ({ terminal, signal, api }, { name, sha256, format }, [input]) => {
        const { addImage } = await import("../image-add.ts");
        const image = await addImage({
          client: await api(),
          terminal,
          signal,
          input: input!,
          ...(name === undefined ? {} : { name }),
          ...(sha256 === undefined ? {} : { sha256 }),
          ...(format === undefined ? {} : { format }),
        });
        terminal.document(image);
        terminal.print(
          facts([
            ["image", image.name],
            ["root", image.root],
            [
              "size",
              `${formatBytes(image.sizeBytes)} in ${image.groups} groups, ${image.zeroGroups} of them zero`,
            ],
            ["stored", formatBytes(image.storedBytes)],
          ]),
        );
        return exitCodes.ok;
      }),
    );
  example(add, "bedplate image add debian-12.qcow2 --name debian-12 --sha256 9f86d081884c7d65…");

  const bring = noun
    .command("import")
    .argument("<input>", "raw, gzip, zstd, xz or qcow2, recognised by content")
    .description(
      "turn an image into manifest and groups in a directory, and print its root: what `b3sum` prints for the raw image",
    )
    .requiredOption("--store <directory>", "where to put it")
    .option("--name <name>", "what to call it (else the file's name)")
    .option("--sha256 <hex>", "refuse an input with another SHA-256", digestOption)
    .option("--format <format>", "take the input as raw, gzip, zstd, xz or qcow2 whatever it looks like")
    .action(
      perform<ImportOptions>(async ({ terminal, signal }, { store, name, sha256, format }, [input]) => {
        const { importIntoStore } = await import("../image-add.ts");
        const image = await importIntoStore({
          terminal,
          signal,
          input: input!,
          store,
          ...(name === undefined ? {} : { name }),
          ...(sha256 === undefined ? {} : { sha256 }),
          ...(format === undefined ? {} : { format }),
        });
        terminal.document(image);
        terminal.print(image.root);
        return exitCodes.ok;
      }),
    );
  addImageTrustCommands(noun, perform);
  addMirrorCommands(noun, perform);
  example(bring, "bedplate image import debian-12.qcow2 --store ./images --name debian-12");
}
