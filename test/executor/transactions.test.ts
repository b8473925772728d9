// A journal whose disk is full: what is told, what is kept, and that it works again when there is room.
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { storeOf } from "../../agent/executor/transactions.ts";

function openStore() {
  const database = new DatabaseSync(":memory:");
  database.exec("CREATE TABLE notes (value BLOB) STRICT");
  const setPagesMax = (pages: number) => database.exec(`PRAGMA max_page_count = ${pages}`);
  const store = storeOf(database);
  const add = (bytes: number) => store.sql("INSERT INTO notes VALUES (?)").run(new Uint8Array(bytes));
  const count = () => store.sql("SELECT count(*) AS count FROM notes").get()!.count;
  return { store, add, count, setPagesMax };
}

const full = { code: "executor.failed", message: expect.stringContaining("full") };

test("a full disk is told as such, the transaction is undone, and the next one works", () => {
  const { store, add, count, setPagesMax } = openStore();
  setPagesMax(8);
  expect(() =>
    store.atomically(() => {
      add(1);
      store.atomically(() => add(100_000));
    }),
  ).toThrow(expect.objectContaining(full));
  expect(count()).toBe(0);
  store.atomically(() => add(1));
  expect(count()).toBe(1);
});

test("so too where the transaction waits for something in between", async () => {
  const { store, add, count, setPagesMax } = openStore();
  setPagesMax(8);
  const failing = store.exclusively(async () => {
    await Promise.resolve();
    add(100_000);
  });
  await expect(failing).rejects.toMatchObject(full);
  setPagesMax(1000);
  await store.exclusively(async () => add(100_000));
  expect(count()).toBe(1);
});

test("what else goes wrong within is thrown as it is", () => {
  const { store, add, count } = openStore();
  const own = new Error("of the work");
  expect(() =>
    store.atomically(() => {
      add(1);
      throw own;
    }),
  ).toThrow(own);
  expect(() => store.atomically(() => store.sql("INSERT INTO notes VALUES (?)").run("text"))).toThrow(
    /cannot store TEXT/,
  );
  expect(count()).toBe(0);
});
