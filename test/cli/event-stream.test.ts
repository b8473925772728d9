// Server-sent events in any pieces.
import { expect, test } from "vitest";
import { createEventParser } from "../../cli/event-stream.ts";

const stream = [
  ": hello\n\n",
  'event: sample\nid: 7\ndata: {"a":1}\n\n',
  "data:one\ndata: two\r\n\r\n",
  "event: nothing\n\n",
  "id: 8\ndata\n\n",
].join("");
const events = [
  { event: "sample", data: '{"a":1}', id: "7" },
  { event: "message", data: "one\ntwo", id: "7" },
  { event: "message", data: "", id: "8" },
];

test("events are the same however the bytes are cut", () => {
  for (let size = 1; size <= stream.length; size++) {
    const parse = createEventParser();
    const found = [];
    for (let at = 0; at < stream.length; at += size) found.push(...parse(stream.slice(at, at + size)));
    expect(found, `pieces of ${size}`).toEqual(events);
  }
});

test("an event that never ends is refused", () => {
  const parse = createEventParser();
  const line = `data: ${"x".repeat(1 << 20)}\n`;
  expect(() => {
    for (let i = 0; i < 10; i++) parse(line);
  }).toThrow(expect.objectContaining({ code: "message.invalid" }));
  const endless = createEventParser();
  expect(() => {
    for (let i = 0; i < 10; i++) endless("y".repeat(1 << 20));
  }).toThrow(expect.objectContaining({ code: "message.invalid" }));
});
