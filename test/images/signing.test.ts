// A signature beside an image, also where the disk does not take it.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { importImage } from "../../controller/images/import.ts";
import { openImageStore } from "../../controller/images/store.ts";
import { makeOperator, sshKeygenPresent } from "../support/operators.ts";
import { content, errorOf, temporaryDirectory } from "./support.ts";

test.skipIf(!sshKeygenPresent)(
  "a store that cannot be written says so, and takes it afterwards",
  async () => {
    await using directory = await temporaryDirectory();
    const [path, input] = [join(directory.path, "store"), join(directory.path, "input")];
    await writeFile(input, content(5000));
    const signal = new AbortController().signal;
    const { root } = await importImage({ input, store: path, threads: 1, signal });
    const alice = makeOperator(directory.path, "alice");
    const signature = await alice.sign(await readFile(join(path, root, "manifest")), "bedplate-image");
    await using store = await openImageStore(path, { threads: 1 });
    const inTheWay = join(path, root, ".signatures.new");
    await mkdir(inTheWay);
    const error = await errorOf(store.sign(root, signature, 1));
    expect([error.code, error.message]).toEqual([
      "image.store-failed",
      expect.stringContaining(`store ${path} cannot be written: open ${inTheWay} `),
    ]);
    await rm(inTheWay, { recursive: true });
    expect((await store.sign(root, signature, 2)).signatures).toHaveLength(1);
    expect(await store.signatures(root)).toMatchObject([{ addedAt: 2 }]);
  },
);
