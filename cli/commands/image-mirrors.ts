// `bedplate image export`, `image mirror add|list|remove`: where hosts may have an image's bytes from besides the controller.
import { type Command, InvalidArgumentError } from "commander";
import type { ImageMirror } from "../../protocol/api-images.ts";
import { now } from "../clock.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import { example } from "../options.ts";
import { facts, formatAge, table } from "../output.ts";

interface Options {
  readonly layout: ImageMirror["layout"];
  readonly first?: boolean;
}

export function addMirrorCommands(image: Command, perform: Performer): void {
  const bring = image
    .command("export")
    .argument("<image>", "name, root, or its first 8 digits or more")
    .argument("<directory>", "to make")
    .description("write manifest, frames and signatures into a directory, as a mirror serves them")
    .action(
      perform(async ({ terminal, signal, api }, _, [reference, directory]) => {
        const { exportImage } = await import("../image-export.ts");
        const request = { terminal, signal, reference: reference!, directory: directory! };
        const exported = await exportImage({ ...request, client: await api() });
        terminal.document({ image: exported, directory: directory! });
        terminal.print(
          `${exported.name} (${exported.root}) is in ${directory}, each of its ${exported.groups} groups verified. Where it is served:\n  bedplate image mirror add ${exported.root.slice(0, 16)} URL`,
        );
        return exitCodes.ok;
      }),
    );
  example(bring, "bedplate image export debian-12 /srv/mirror/debian-12");

  const noun = image
    .command("mirror")
    .description(
      "servers that have an image too; a host uses those that its policy lists in imageSources, and verifies each byte",
    );
  const add = noun
    .command("add")
    .argument("<image>", "name, root, or its first 8 digits or more")
    .argument("<url>", "http or https; with --layout raw also file:///… on the hosts themselves")
    .description("offer hosts another source of an image, at most 7")
    .option(
      "--layout <layout>",
      "bedplate: manifest and frames lie under the address; raw: it is the raw image itself (bedplate)",
      layoutOption,
      "bedplate",
    )
    .option("--first", "hosts ask it before the controller, not after it")
    .action(
      perform<Options>(async ({ terminal, api }, { layout, first = false }, [reference, url]) => {
        const mirror = await (await api()).addMirror(reference!, { url: url!, layout, first });
        terminal.document(mirror);
        terminal.print(
          facts([
            ["image", `${mirror.name}  ${mirror.root}`],
            ["mirror", mirror.url],
            ["asked", placeOf(mirror)],
          ]),
        );
        return exitCodes.ok;
      }),
    );
  example(
    add,
    "bedplate image mirror add debian-12 http://mirror.rack1.example/debian-12",
    "bedplate image mirror add debian-12 https://mirror.example/debian-12.raw --layout raw --first",
  );

  const list = noun
    .command("list")
    .argument("[image]", "only of this one")
    .description("list the mirrors of images")
    .action(
      perform(async ({ terminal, api }, _, [reference]) => {
        const client = await api();
        const root = reference === undefined ? undefined : (await client.image(reference)).root;
        const mirrors = (await client.mirrors()).filter(
          (mirror) => root === undefined || mirror.root === root,
        );
        terminal.document({ mirrors });
        terminal.print(
          mirrors.length === 0
            ? "There are no mirrors: hosts have images from the controller."
            : table(mirrors, [
                { title: "IMAGE", of: (mirror) => mirror.name },
                { title: "ROOT", of: (mirror) => mirror.root.slice(0, 16) },
                { title: "MIRROR", of: (mirror) => mirror.url },
                { title: "LAYOUT", of: (mirror) => mirror.layout },
                { title: "ASKED", of: placeOf },
                { title: "ADDED", of: (mirror) => formatAge(mirror.addedAt, now()) },
              ]),
        );
        return exitCodes.ok;
      }),
    );
  example(list, "bedplate image mirror list debian-12");

  const remove = noun
    .command("remove")
    .argument("<image>", "name, root, or its first 8 digits or more")
    .argument("<url>", "as `bedplate image mirror list` shows it")
    .description("offer hosts that source no longer; what runs already goes on with it")
    .action(
      perform(async ({ terminal, api }, _, [reference, url]) => {
        await (await api()).removeMirror(reference!, url!);
        terminal.document({ removed: url! });
        terminal.print(`${url} is no mirror of ${reference} any more.`);
        return exitCodes.ok;
      }),
    );
  example(remove, "bedplate image mirror remove debian-12 http://mirror.rack1.example/debian-12");
}

function placeOf({ first }: ImageMirror): string {
  return first ? "before the controller" : "after the controller";
}

function layoutOption(text: string): ImageMirror["layout"] {
  if (text !== "bedplate" && text !== "raw") throw new InvalidArgumentError("Say bedplate or raw.");
  return text;
}
