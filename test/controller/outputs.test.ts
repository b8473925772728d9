// What programs print: kept once by its offset, bounded, read from any place, waited for; and what hosts say to a cancel.
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { judgeOutput, outputKept, surplusPieces } from "../../controller/rules/output-rule.ts";
import type { ApiEvent, CommandView, OutputView, Problem } from "../../protocol/api.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { documentOf, newCommandId, submit } from "../support/commands.ts";
import { type TestController, testController } from "../support/controller.ts";
import { EventReader } from "../support/event-reader.ts";
import { type Joined, joinLink, newLinkKey } from "../support/link-client.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

const join = async (): Promise<Joined> =>
  joinLink(controller, { key: newLinkKey(), joinToken: await controller.joinToken() });
const view = async (id: string) => (await controller.call<CommandView>("GET", `/v1/commands/${id}`)).body;
const read = async (id: string, query = "") =>
  (await controller.call<OutputView>("GET", `/v1/commands/${id}/output${query}`)).body;
const textOf = ({ pieces }: OutputView) =>
  pieces.map(({ stream, offset, data }) => `${stream}@${offset} ${Buffer.from(data, "base64")}`);
const begin = async (joined: Joined) => {
  const { id } = (await submit(controller, documentOf(joined.host, { kind: "host.inventory" }))).body;
  await joined.client.next("offer");
  let seq = 0;
  const tell = async (...bodies: RecordBody[]) => {
    for (const body of bodies) joined.client.send({ t: "record", seq: ++seq, at: 5000, body });
    while ((await joined.client.next("ack")).records < seq);
  };
  const output = (stream: "stdout" | "stderr", offset: number, text: string | Uint8Array): RecordBody => ({
    ...{ type: "output", command: id, stream, offset },
    data: Buffer.from(text).toString("base64"),
  });
  return { id, tell, output };
};
const succeeded = (command: string): RecordBody => ({
  ...{ type: "result", command, result: { outcome: "succeeded", startedAt: 1, endedAt: 2 } },
});

test("output is read in order from any offset, once, in the pieces that its streams make", async () => {
  const joined = await join();
  const { id, tell, output } = await begin(joined);
  expect(await read(id)).toEqual({ from: 0, to: 0, ended: false, pieces: [] });
  await tell(output("stdout", 0, "one "), output("stdout", 4, "two "), output("stderr", 8, "bad "));
  expect(textOf(await read(id))).toEqual(["stdout@0 one two ", "stderr@8 bad "]);
  expect((await view(id)).outputBytes).toBe(12);
  // The same again, from a host that attached anew, and a piece that begins with what is known.
  await tell(output("stdout", 0, "one "), output("stderr", 8, "bad "), output("stdout", 10, "d three"));
  expect(textOf(await read(id))).toEqual(["stdout@0 one two ", "stderr@8 bad ", "stdout@12 three"]);
  expect(await read(id, "?after=14")).toMatchObject({ from: 14, to: 17, ended: false });
  expect(textOf(await read(id, "?after=6"))).toEqual(["stdout@6 o ", "stderr@8 bad ", "stdout@12 three"]);
  expect(await read(id, "?after=17")).toEqual({ from: 17, to: 17, ended: false, pieces: [] });
  // What the host dropped is a jump.
  await tell(output("stdout", 100, "late"), succeeded(id));
  expect(textOf(await read(id, "?after=12"))).toEqual(["stdout@12 three", "stdout@100 late"]);
  expect(await read(id, "?after=17")).toMatchObject({ from: 100, to: 104, ended: true });
  await controller.restart();
  expect(await read(id, "?after=104")).toEqual({ from: 104, to: 104, ended: true, pieces: [] });
});

test("a reader waits for more, and is told of the end", async () => {
  const joined = await join();
  const { id, tell, output } = await begin(joined);
  const waiting = read(id, "?waitSeconds=20");
  await new Promise((resolve) => setTimeout(resolve, 100));
  await tell(output("stdout", 0, "now"));
  expect(textOf(await waiting)).toEqual(["stdout@0 now"]);
  const startedAt = performance.now();
  expect(await read(id, "?after=3&waitSeconds=1")).toMatchObject({ to: 3, ended: false });
  expect(performance.now() - startedAt).toBeGreaterThan(900);
  const last = read(id, "?after=3&waitSeconds=20");
  await new Promise((resolve) => setTimeout(resolve, 100));
  await tell(succeeded(id));
  expect(await last).toEqual({ from: 3, to: 3, ended: true, pieces: [] });
  const cases: [string, number, string][] = [
    [`/v1/commands/${newCommandId()}/output`, 404, "api.not-found"],
    [`/v1/commands/${id}/output?after=-1`, 400, "api.bad-request"],
    [`/v1/commands/${id}/output?waitSeconds=61`, 400, "api.bad-request"],
  ];
  for (const [path, status, code] of cases) {
    const answer = await controller.call<Problem>("GET", path);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  }
  joined.client[Symbol.dispose]();
});

test("a waiting reader does not keep the controller from stopping", async () => {
  const joined = await join();
  const { id } = await begin(joined);
  const waiting = read(id, "?waitSeconds=60").catch(() => "cut off");
  await new Promise((resolve) => setTimeout(resolve, 100));
  const startedAt = performance.now();
  await controller.restart();
  expect(performance.now() - startedAt).toBeLessThan(20_000);
  await waiting;
});

test("the newest output is kept up to a bound, and read in answers of bounded size", async () => {
  const joined = await join();
  const { id, tell, output } = await begin(joined);
  const piece = new Uint8Array(32 * 1024).fill(120);
  const pieces = 40;
  for (let i = 0; i < pieces; i++) await tell(output("stdout", i * piece.length, piece));
  await tell(succeeded(id));
  const end = pieces * piece.length;
  let at = 0;
  let bytes = 0;
  let answers = 0;
  for (let ended = false; !ended; answers++) {
    const page = await read(id, `?after=${at}`);
    if (answers === 0) expect(page.from).toBe(end - outputKept.bytesMax);
    const got = page.pieces.reduce((sum, { data }) => sum + Buffer.from(data, "base64").length, 0);
    expect(got).toBeLessThanOrEqual(256 * 1024);
    bytes += got;
    at = page.to;
    ended = page.ended;
  }
  expect([at, bytes, answers]).toEqual([end, outputKept.bytesMax, 4]);
  joined.client[Symbol.dispose]();
});

test("a host's output is its own commands', and told of at most four times a second", async () => {
  const [joined, other] = [await join(), await join()];
  const { id, tell, output } = await begin(joined);
  const stranger = await begin(other);
  await stranger.tell(output("stdout", 0, "not mine"));
  expect((await view(id)).outputBytes).toBe(0);
  using reader = new EventReader(controller.client, "/v1/events", {
    authorization: `Bearer ${controller.client.token}`,
  });
  await reader.until(({ status }) => status === 200);
  const startedAt = performance.now();
  for (let i = 0; i < 60; i++) {
    await tell(output("stdout", i, "x"));
    if (i % 10 === 9) await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await tell(output("stdout", 60, "the end"));
  const seconds = () => (performance.now() - startedAt) / 1000;
  const events = () => reader.events.filter(({ data }) => (data as ApiEvent).event === "output");
  // Then it is told of no more: as many as there were before.
  let counted = 0;
  const settled = () => {
    const before = counted;
    counted = events().length;
    return before === counted && counted >= 2;
  };
  await expect.poll(settled, { timeout: 20_000, interval: 600 }).toBe(true);
  expect(counted).toBeLessThanOrEqual(Math.ceil(seconds() * 4) + 1);
  for (const { client } of [joined, other]) client[Symbol.dispose]();
});

test("what the host says to a cancel is kept, told and explained; the result decides", async () => {
  const joined = await join();
  const { id, tell } = await begin(joined);
  await controller.call("POST", `/v1/commands/${id}/cancel`);
  await joined.client.next("cancel");
  await tell({
    type: "cancel",
    command: id,
    answer: "cancelling",
    reason: "It stops at its next safe point.",
  });
  const cancelling = await view(id);
  expect(cancelling).toMatchObject({
    state: "offered",
    cancelAnswer: {
      answer: "cancelling",
      reason: "It stops at its next safe point.",
      at: expect.any(Number),
    },
    reason: expect.stringMatching(/It is being cancelled: It stops/),
  });
  await tell(succeeded(id), { type: "cancel", command: id, answer: "too-late", reason: "It had ended." });
  expect(await view(id)).toMatchObject({ state: "succeeded", cancelAnswer: { answer: "too-late" } });
  joined.client[Symbol.dispose]();
});

test("in whatever pieces and repetitions output comes, each byte is kept once and in its place", () => {
  const anyPiece = fc.record({
    stream: fc.constantFrom("stdout", "stderr"),
    offset: fc.nat(5000),
    bytes: fc.integer({ min: 1, max: 400 }),
  });
  fc.assert(
    fc.property(fc.array(anyPiece, { maxLength: 300 }), (arriving) => {
      let end = 0;
      const kept: { stream: string; offset: number; bytes: number }[] = [];
      for (const piece of arriving) {
        const verdict = judgeOutput(end, kept.at(-1), piece);
        if (verdict.do === "nothing") {
          expect(piece.offset + piece.bytes).toBeLessThanOrEqual(end);
          continue;
        }
        const fresh = piece.bytes - verdict.skip;
        expect(fresh).toBeGreaterThan(0);
        if (verdict.merge) kept.at(-1)!.bytes += fresh;
        else kept.push({ stream: piece.stream, offset: piece.offset + verdict.skip, bytes: fresh });
        end = verdict.end;
        kept.splice(0, surplusPieces(kept.map(({ bytes }) => bytes)));
      }
      for (const [i, { offset, bytes }] of kept.entries()) {
        const next = kept[i + 1];
        if (next !== undefined) expect(offset + bytes).toBeLessThanOrEqual(next.offset);
        expect(bytes).toBeLessThanOrEqual(outputKept.mergedBytesMax);
      }
      const last = kept.at(-1);
      expect(last === undefined ? 0 : last.offset + last.bytes).toBe(end);
    }),
    { numRuns: 300 },
  );
});

test("the oldest pieces go first, by bytes and by number; the newest stays", () => {
  const { bytesMax, piecesMax } = outputKept;
  expect(surplusPieces([])).toBe(0);
  expect(surplusPieces([bytesMax])).toBe(0);
  expect(surplusPieces([10 * bytesMax])).toBe(0);
  expect(surplusPieces([1, bytesMax])).toBe(1);
  expect(surplusPieces([5, bytesMax - 5, 5])).toBe(1);
  expect(surplusPieces(new Array(piecesMax).fill(1))).toBe(0);
  expect(surplusPieces(new Array(piecesMax + 3).fill(1))).toBe(3);
});

test("an empty piece, and one beyond what can be counted, harm neither the host's connection nor anyone's list", async () => {
  const joined = await join();
  const { id, tell, output } = await begin(joined);
  await tell(output("stdout", 4, ""), output("stderr", 4, "bad "), output("stdout", 8, ""));
  expect(textOf(await read(id))).toEqual(["stderr@4 bad "]);
  await tell(output("stdout", Number.MAX_SAFE_INTEGER, "far"), output("stdout", 2 ** 52, "less far"));
  expect((await view(id)).outputBytes).toBe(2 ** 52 + 8);
  const lists = ["/v1/commands", `/v1/commands/${id}/output?after=${2 ** 53 - 1}`];
  for (const path of lists) expect([path, (await controller.call("GET", path)).status]).toEqual([path, 200]);
  joined.client[Symbol.dispose]();
});
