// agent.logs: the newest lines, in order, within bounds, and nothing secret.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readTail } from "../../agent/host/file-tail.ts";
import { answerLogs, type LogSources, withoutSecrets } from "../../agent/operations/agent-logs.ts";
import { createLogLines } from "../../agent/operations/log-lines.ts";
import { LogsOutput } from "../../protocol/commands.ts";
import { formatJoinToken } from "../../protocol/join-token.ts";
import { limits } from "../../protocol/limits.ts";
import { checker } from "../../protocol/schema.ts";

const check = checker(LogsOutput, "internal", "output of agent.logs");
const numbered = (count: number) => Array.from({ length: count }, (_, index) => `line ${index}`);

describe("the agent's own lines", () => {
  test("the newest, oldest of them first", () => {
    const kept = createLogLines();
    for (const line of numbered(10)) kept.add(`${line}\n`);
    expect(kept.newest(3)).toEqual({ lines: ["line 7", "line 8", "line 9"], truncated: true });
    expect(kept.newest(10)).toEqual({ lines: numbered(10), truncated: false });
    expect(kept.newest(99)).toEqual({ lines: numbered(10), truncated: false });
    expect(createLogLines().newest(5)).toEqual({ lines: [], truncated: false });
  });

  test("within its bytes, whatever comes: a hundred thousand lines, and one longer than all", () => {
    const kept = createLogLines(10_000);
    for (const line of numbered(100_000)) kept.add(line);
    const { lines, truncated } = kept.newest(1000);
    expect(truncated).toBe(true);
    expect(lines.at(-1)).toBe("line 99999");
    expect(2 * lines.join("").length).toBeLessThanOrEqual(10_000);
    expect(2 * lines.join("").length).toBeGreaterThan(9900);
    kept.add("x".repeat(1 << 20));
    expect(kept.newest(1000).lines.map(({ length }) => length)).toEqual([16 << 10]);
    kept.add("after");
    expect(kept.newest(1000).lines).toEqual(["after"]);
  });
});

describe("the answer", () => {
  const sources = (
    lines: readonly string[],
    executor: LogSources["executor"] = () => undefined,
  ): LogSources => {
    const agent = createLogLines(64 << 20);
    for (const line of lines) agent.add(line);
    return { agent, executor };
  };

  test("as many lines as are asked for, 200 if none", () => {
    const from = sources(numbered(300));
    expect(check(answerLogs({ source: "agent", lines: 2 }, from))).toEqual({
      source: "agent",
      lines: ["line 298", "line 299"],
      truncated: true,
    });
    expect(answerLogs({ source: "agent" }, from).lines).toHaveLength(200);
  });

  test("fits a result, however long the lines", () => {
    const answer = check(
      answerLogs(
        { source: "agent", lines: 1000 },
        sources(numbered(1000).map((line) => `${line} ${'"\u0001é'.repeat(5000)}`)),
      ),
    );
    expect(JSON.stringify(answer).length).toBeLessThan(limits.resultBytesMax);
    expect(answer.lines.at(-1)).toContain("line 999");
    expect(answer.truncated).toBe(true);
  });

  describe("of the executors", () => {
    let directory: string;
    beforeAll(async () => {
      directory = await mkdtemp(join(tmpdir(), "bp-logs-"));
    });
    afterAll(() => rm(directory, { recursive: true }));
    const from = (name: string, cap = Number.POSITIVE_INFINITY) =>
      sources([], (bytesMax) => readTail(join(directory, name), Math.min(bytesMax, cap)));

    test("the end of their file; a line that was cut is not shown", async () => {
      await writeFile(join(directory, "log"), `${numbered(50).join("\n")}\n`);
      expect(answerLogs({ source: "executor", lines: 2 }, from("log"))).toMatchObject({
        lines: ["line 48", "line 49"],
        truncated: true,
      });
      expect(answerLogs({ source: "executor" }, from("log"))).toMatchObject({
        lines: numbered(50),
        truncated: false,
      });
      expect(answerLogs({ source: "executor" }, from("log", 20))).toMatchObject({
        lines: ["line 48", "line 49"],
        truncated: true,
      });
    });

    test("no file: said so, with where to look", () => {
      expect(() => answerLogs({ source: "executor" }, from("none"))).toThrow(
        expect.objectContaining({ code: "file.unreadable", hint: expect.stringContaining("journalctl") }),
      );
    });
  });
});

test("what looks like a secret is shown to nobody", () => {
  const token = formatJoinToken({ id: "abc", secret: "s3cr3t-x_y", caSha256: "ab".repeat(32) } as never);
  for (const line of [
    `{"msg":"joining with ${token}"}`,
    '{"source":{"url":"https://a/b","bearer":"s3cr3t-x_y"}}',
    "authorization: Bearer s3cr3t-x_y",
    "GET https://user:s3cr3t-x_y@mirror/image",
    '{"key":"-----BEGIN PRIVATE KEY-----\\ns3cr3t-x_y\\n-----END PRIVATE KEY-----\\n"}',
  ]) {
    expect(line).toContain("s3cr3t-x_y");
    expect(withoutSecrets(line)).not.toContain("s3cr3t-x_y");
  }
  // Where nobody wrote what it is: a token for the API, and the right to an image.
  for (const token of ["bedplate-api.00112233.s3cr3t-x_y", "bedplate-image.0a.0b.0c.17.s3cr3t-x_y"])
    expect(withoutSecrets(`not a join token: ${token}, it says`)).not.toContain("s3cr3t-x_y");
  const innocent = '{"level":30,"fingerprint":"SHA256:abc","msg":"connected to https://controller:7443/x@y"}';
  expect(withoutSecrets(innocent)).toBe(innocent);
});
