// Whether the process that was let run an operation lives: by its number, its start and the boot, and not as a zombie.
import { spawn } from "node:child_process";
import { expect, test } from "vitest";
import type { Host, Notes } from "../../agent/commands/command.ts";
import { createFacts } from "../../agent/devices/facts.ts";
import { executorLives, noteExecutor } from "../../agent/executor/executor-mark.ts";
import { systemFiles } from "../../agent/host/files.ts";

const host = { files: systemFiles, facts: () => createFacts(systemFiles) } as unknown as Host;

function keptNotes() {
  const kept = new Map<string, Uint8Array>();
  const notes: Notes = {
    get: (name) => kept.get(name),
    set: (entries) => {
      for (const [name, value] of Object.entries(entries)) kept.set(name, value);
    },
  };
  const change = (changes: object) => {
    const [[name, value]] = [...kept] as [[string, Uint8Array]];
    const mark = { ...(JSON.parse(Buffer.from(value).toString()) as object), ...changes };
    kept.set(name, Buffer.from(JSON.stringify(mark)));
  };
  return { notes, change };
}

test("this very process lives; one of its number, but of another start or boot, is another one", () => {
  const { notes, change } = keptNotes();
  expect(executorLives(notes, host)).toBe(false);
  noteExecutor(notes, host);
  expect(executorLives(notes, host)).toBe(true);
  change({ startTicks: 1 });
  expect(executorLives(notes, host)).toBe(false);
  noteExecutor(notes, host);
  change({ bootId: "another" });
  expect(executorLives(notes, host)).toBe(false);
});

test("one that is dead, and that nobody has asked for yet, does not", async () => {
  // The shell becomes a program that never asks for its child, before that ends: a shell might.
  const parent = spawn("/bin/sh", ["-c", "sleep 2 & echo $!; exec sleep 60"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  try {
    const pid = Number(await new Promise<Buffer>((resolve) => parent.stdout.once("data", resolve)));
    const stat = () => Buffer.from(systemFiles.readBytes(`/proc/${pid}/stat`, 4096)).toString();
    await expect.poll(stat, { timeout: 10_000 }).toContain(") Z ");
    const { notes, change } = keptNotes();
    noteExecutor(notes, host);
    change({ pid, startTicks: Number(stat().split(") ")[1]!.split(" ")[19]) });
    expect(executorLives(notes, host)).toBe(false);
  } finally {
    parent.kill("SIGKILL");
  }
});
