// Runs the vectors that the specification prints, so that it can be trusted by whoever writes another implementation.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bytesOfHex, hex } from "../../protocol/bytes.ts";
import { isCode } from "../../protocol/codes.ts";
import { decodeFrame } from "../../protocol/frames.ts";
import { linkProofBytes } from "../../protocol/link-proof.ts";
import { checkAgentMessage, checkControllerMessage } from "../../protocol/messages.ts";
import { decodeReadings } from "../../protocol/readings.ts";

const specification = readFileSync(new URL("../../protocol/README.md", import.meta.url), "utf8");
const block = (name: string) =>
  new RegExp(`\`\`\`${name}\\n([^\`]*)\`\`\``).exec(specification)![1]!.trim().split("\n");
const vectors = block("vectors").map((line) => line.split(" ") as [string, string | undefined]);

test.each(vectors)("%s %s", (expected, text = "") => {
  const bytes = bytesOfHex(text);
  if (expected === "agent") {
    expect(checkAgentMessage(decodeFrame(bytes))).toHaveProperty("t");
  } else if (expected === "controller") {
    expect(checkControllerMessage(decodeFrame(bytes))).toHaveProperty("t");
  } else {
    expect(isCode(expected)).toBe(true);
    const refused = (check: (value: unknown) => unknown) => {
      try {
        return check(decodeFrame(bytes));
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    const codes = [refused(checkAgentMessage), refused(checkControllerMessage)];
    expect(codes).toContain(expected);
    if (!expected.startsWith("message.invalid")) expect(codes).toEqual([expected, expected]);
  }
});

test("the batch of the specification decodes to its values", () => {
  const batch = vectors
    .map(([, text]) => bytesOfHex(text ?? ""))
    .find((bytes) => hex(bytes).includes("626174636800".slice(0, 10)))!;
  const message = checkAgentMessage(decodeFrame(batch));
  if (message.t !== "batch") throw new Error("not a batch");
  const values = new BigUint64Array(3);
  decodeReadings(message.data, values, { key: message.key });
  expect([...values]).toEqual([10n, 0n, 150n]);
});

test("the proof of the specification is what is signed", async () => {
  const hello = bytesOfHex(vectors[0]![1]!);
  const filled = (byte: number) => new Uint8Array(32).fill(byte);
  const proof = await linkProofBytes({
    agentNonce: filled(2),
    controllerNonce: filled(3),
    exported: filled(4),
    hello,
  });
  expect(hex(proof)).toBe(block("proof")[0]);
});
