// What is kept of images beside their files: their mirrors; and which commands still need them. In SQLite.
import { mirrorsMax } from "../../protocol/api-images.ts";
import { textOf } from "../../protocol/bytes.ts";
import type { Database, Row } from "./database.ts";
import type { PutEvent } from "./events.ts";
import type { ImageRecordStore, StoredMirror } from "./store.ts";

const commandsMax = 100;

export function sqliteImages(database: Database, put: PutEvent): ImageRecordStore {
  const count = (root: string) =>
    Number(database.one("select count(*) as mirrors from image_mirrors where root = ?", root)!.mirrors);
  return {
    async mirrors() {
      return database.all("select * from image_mirrors order by number").map(mirrorOfRow);
    },
    async addMirror({ root, url, layout, first, addedAt }) {
      return database.transaction(() => {
        const changed = database.run(
          "update image_mirrors set layout = ?, first = ? where root = ? and url = ?",
          ...[layout, Number(first), root, url],
        );
        if (changed === 0 && count(root) >= mirrorsMax) return "full";
        if (changed === 0) {
          database.run(
            "insert into image_mirrors (root, url, layout, first, added_at) values (?, ?, ?, ?, ?)",
            ...[root, url, layout, Number(first), addedAt],
          );
        }
        put({ topic: "image", id: root, event: "mirror-added" }, addedAt);
        return changed === 0 ? "added" : "known";
      });
    },
    async removeMirror(root, url, at) {
      return database.transaction(() => {
        if (database.run("delete from image_mirrors where root = ? and url = ?", root, url) === 0)
          return "unknown";
        put({ topic: "image", id: root, event: "mirror-removed" }, at);
        return "removed";
      });
    },
    async removed(root, at) {
      await database.transaction(() => {
        database.run("delete from image_mirrors where root = ?", root);
        put({ topic: "image", id: root, event: "removed" }, at);
      });
    },
    async openCommandsOf(root) {
      // The search finds it anywhere in the document; only as the image does it count.
      return database
        .all(
          "select id, document from commands where open = 1 and instr(document, cast(? as blob)) > 0 order by number",
          root,
        )
        .filter(({ document }) => imageOf(document as Uint8Array) === root)
        .slice(0, commandsMax)
        .map(({ id }) => String(id));
    },
  };
}

function imageOf(document: Uint8Array): unknown {
  try {
    const command = JSON.parse(textOf(document)) as { arguments?: { image?: { root?: unknown } } };
    return command.arguments?.image?.root;
  } catch {
    return undefined;
  }
}

function mirrorOfRow(row: Row): StoredMirror {
  return {
    root: String(row.root),
    url: String(row.url),
    layout: row.layout as StoredMirror["layout"],
    first: Number(row.first) === 1,
    addedAt: Number(row.added_at),
  };
}
