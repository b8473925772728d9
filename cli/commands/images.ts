// `bedplate images`, `image add`, `image import`; the other verbs of images have files of their own.
import type { Command } from "commander";
import { now } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { digestOption, example } from "../options.ts";
import { facts, formatAge, formatBytes, table } from "../output.ts";
import { addMirrorCommands } from "./image-mirrors.ts";
import { addImageRoomCommands } from "./image-room.ts";
import { addImageTrustCommands } from "./image-trust.ts";

interface InputOptions {
  readonly name?: string;
  readonly sha256?: string;
  readonly format?: string;
  readonly sums?: string;
  readonly sumsSignature?: string;
  readonly keyring?: string;
  readonly bmap?: string;
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
  const add = inputOptions(
    noun
      .command("add")
      .argument("<file|url>", "raw, gzip, zstd, xz or qcow2, recognised by content")
      .description("import an image here, in a directory below TMPDIR, and upload it to the controller"),
  ).action(
    perform<InputOptions>(async ({ terminal, signal, api }, options, [input]) => {
      const { addImage } = await import("../image-add.ts");
      const request = { ...requestOf(options), terminal, signal, input: input! };
      const image = await addImage({ ...request, client: await api() });
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
  example(
    add,
    "bedplate image add debian-12.qcow2 --name debian-12 --sha256 9f86d081884c7d65…",
    "bedplate image add https://cloud.example/noble.img --sums https://cloud.example/SHA256SUMS \\\n      --sums-signature https://cloud.example/SHA256SUMS.gpg --keyring ubuntu-cloudimage.gpg",
    "bedplate image add core.img.xz --bmap core.bmap",
  );

  const bring = inputOptions(
    noun
      .command("import")
      .argument("<input>", "raw, gzip, zstd, xz or qcow2, recognised by content")
      .description(
        "turn an image into manifest and groups in a directory, and print its root: what `b3sum` prints for the raw image",
      )
      .requiredOption("--store <directory>", "where to put it"),
  ).action(
    perform<InputOptions & { store: string }>(async ({ terminal, signal }, options, [input]) => {
      const { importIntoStore } = await import("../image-add.ts");
      const request = { ...requestOf(options), terminal, signal, input: input! };
      const image = await importIntoStore({ ...request, store: options.store });
      terminal.document(image);
      terminal.print(image.root);
      return exitCodes.ok;
    }),
  );
  example(bring, "bedplate image import debian-12.qcow2 --store ./images --name debian-12");
  addImageTrustCommands(noun, perform);
  addMirrorCommands(noun, perform);
  addImageRoomCommands(noun, perform);
}

function inputOptions(command: Command): Command {
  return command
    .option("--name <name>", "what to call it (else the file's name)")
    .option("--sha256 <hex>", "refuse an input with another SHA-256", digestOption)
    .option(
      "--sums <file|url>",
      "the vendor's SHA256SUMS or SHA512SUMS: refuse an input that it does not name, or names with another sum",
    )
    .option(
      "--sums-signature <file|url>",
      "the OpenPGP signature of the sums; without it they may be clear-signed",
    )
    .option("--keyring <file>", "the vendor's keys: refuse sums that none of them has signed (by gpgv)")
    .option(
      "--bmap <file|url>",
      "bmaptool's block map of the image: what it does not map is not read; each range is checked",
    )
    .option("--format <format>", "take the input as raw, gzip, zstd, xz or qcow2 whatever it looks like");
}

/** Commander's own members, and those of the whole program, left out. */
function requestOf({ name, sha256, format, sums, sumsSignature, keyring, bmap }: InputOptions): InputOptions {
  const given = Object.entries({ name, sha256, format, sums, sumsSignature, keyring, bmap });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}
