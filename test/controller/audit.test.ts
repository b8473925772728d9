// The controller's own audit over the API: whole, or which of its entries were edited, deleted, cut off or made anew.
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { connect } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sha256Hex } from "../../controller/store/audit-chain.ts";
import type { AuditChainView, AuditEntry, Problem } from "../../protocol/api.ts";
import { tlsServerName } from "../../protocol/tls.ts";
import { type TestController, testController } from "../support/controller.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const verify = async (query = "") =>
  (await controller.call<AuditChainView>("GET", `/v1/audit/verify${query}`)).body;
/** Does what somebody who owns the controller's disk could. */
const tamper = (...statements: string[]) =>
  controller.offline(async () => {
    const database = new DatabaseSync(join(controller.directory, "controller.db"));
    for (const statement of statements) database.exec(statement);
    database.close();
  });
const rows = async () => {
  let found: { seq: number; text: string; hash: string }[] = [];
  await controller.offline(async () => {
    const database = new DatabaseSync(join(controller.directory, "controller.db"));
    found = database.prepare("select seq, text, hash from audit_lines order by seq").all() as typeof found;
    database.close();
  });
  return found;
};
const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;

test("a caller who hangs up before the answer is in the audit all the same, and leaves the chain whole", async () => {
  await using other = await testController();
  const { hostname, port } = new URL(other.url);
  const body = "{}";
  const request = `POST /v1/join-tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${other.client.token}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  for (let i = 0; i < 10; i++) {
    const socket = connect({ host: hostname, port: Number(port), ca: other.ca, servername: tlsServerName });
    socket.on("error", () => {});
    await new Promise<void>((resolve) => socket.once("secureConnect", () => resolve()));
    await new Promise<void>((resolve) => socket.write(request, () => resolve()));
    if (i % 2 === 0) socket.end();
    else socket.destroy();
  }
  const made = async () =>
    (await other.call<{ joinTokens: unknown[] }>("GET", "/v1/join-tokens")).body.joinTokens.length;
  const audited = async () => (await other.call<{ entries: AuditEntry[] }>("GET", "/v1/audit")).body.entries;
  await expect.poll(made, { timeout: 10_000 }).toBeGreaterThanOrEqual(5);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const entries = await audited();
  expect(entries).toHaveLength(await made());
  expect(new Set(entries.map(({ address }) => address))).toEqual(new Set(["127.0.0.1"]));
  const chain = (await other.call<AuditChainView>("GET", "/v1/audit/verify")).body;
  expect(chain).toMatchObject({ entries: entries.length, faults: [] });
});

test("whatever is done to the chain is named", async () => {
  for (let i = 0; i < 8; i++) await controller.joinToken();
  const whole = await verify();
  expect(whole).toMatchObject({ entries: 8, anchor: { seq: 0 }, head: { seq: 8 }, faults: [] });
  const head = `?seq=${whole.head.seq}&hash=${whole.head.hash}`;
  const { entries } = (await controller.call<{ entries: AuditEntry[] }>("GET", "/v1/audit")).body;
  expect(entries[0]).toMatchObject({ index: 8, hash: whole.head.hash, route: "/v1/join-tokens" });

  const kept = await rows();
  const third = kept[2]!;
  const forged = third.text.replace("127.0.0.1", "10.9.9.9");
  expect(forged).not.toBe(third.text);
  await tamper(`update audit_lines set text = ${quoted(forged)} where seq = 3`);
  expect((await verify()).faults).toMatchObject([
    { fault: "edited", finding: expect.stringMatching(/^Entry 3 /) },
  ]);
  // With its hash made to fit, the next entry does not follow it.
  await tamper(`update audit_lines set hash = ${quoted(sha256Hex(forged))} where seq = 3`);
  expect((await verify()).faults).toMatchObject([
    { fault: "edited", finding: expect.stringMatching(/^Entry 4 follows /) },
  ]);
  await tamper(
    `update audit_lines set text = ${quoted(third.text)}, hash = ${quoted(third.hash)} where seq = 3`,
  );
  expect((await verify()).faults).toEqual([]);

  await tamper("update audit_lines set text = 'nothing' where seq = 5");
  expect((await verify()).faults[0]).toMatchObject({ fault: "edited" });
  expect((await controller.call("GET", "/v1/audit")).status).toBe(200);
  await tamper("delete from audit_lines where seq = 5");
  expect((await verify()).faults).toMatchObject([
    { fault: "deleted", finding: "Entries 5 to 5 are missing." },
  ]);
  await tamper(
    `insert into audit_lines (seq, at, text, hash) values (5, 0, ${quoted(kept[4]!.text)}, ${quoted(kept[4]!.hash)})`,
  );
  expect((await verify(head)).faults).toEqual([]);

  // The end cut off, and grown anew: the chain itself holds, a head that was had before does not.
  await tamper("delete from audit_lines where seq > 6");
  expect((await verify()).faults).toEqual([]);
  expect((await verify(head)).faults).toMatchObject([{ fault: "truncated" }]);
  for (let i = 0; i < 4; i++) await controller.joinToken();
  expect(await verify()).toMatchObject({ head: { seq: 10 }, faults: [] });
  expect((await verify(head)).faults).toMatchObject([{ fault: "forked" }]);
});

test("a head is both its number and its hash; the answer is an admin's", async () => {
  const cases = ["?seq=1", `?hash=${"0".repeat(64)}`, "?seq=1&hash=x", "?seq=-1&hash=x"];
  for (const query of cases) {
    const answer = await controller.call<Problem>("GET", `/v1/audit/verify${query}`);
    expect([answer.status, answer.body.code]).toEqual([400, "api.bad-request"]);
  }
  const { token } = (
    await controller.call<{ token: string }>("POST", "/v1/tokens", { json: { scope: "operate" } })
  ).body;
  expect((await controller.call<Problem>("GET", "/v1/audit/verify", { token })).body.code).toBe(
    "api.forbidden",
  );
});

test("a chain longer than one stretch is verified to its end", async () => {
  const { head } = await verify();
  let last = head.hash;
  const inserts: string[] = ["begin"];
  for (let seq = head.seq + 1; seq <= head.seq + 1300; seq++) {
    const text = JSON.stringify({
      ...{ seq, at: 1, token: { id: "t", name: "n" }, address: "::1", method: "POST", route: "/v1/x" },
      ...{ object: null, status: 200, code: null, previous: last },
    });
    last = sha256Hex(text);
    inserts.push(
      `insert into audit_lines (seq, at, text, hash) values (${seq}, 1, ${quoted(text)}, ${quoted(last)})`,
    );
  }
  await tamper(...inserts, "commit");
  const long = await verify(`?seq=${head.seq}&hash=${head.hash}`);
  expect(long).toMatchObject({ head: { seq: head.seq + 1300, hash: last }, faults: [] });
  for (const at of [head.seq + 500, head.seq + 501, head.seq + 1300])
    expect((await verify(`?seq=${at}&hash=${"1".repeat(64)}`)).faults).toMatchObject([{ fault: "forked" }]);
  await tamper(`update audit_lines set text = replace(text, '"::1"', '"::2"') where seq = ${head.seq + 500}`);
  expect((await verify()).faults).toMatchObject([{ fault: "edited" }]);
});
