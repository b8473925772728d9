// The worker of image import and upload: hashes groups in WebAssembly, compresses them, and verifies frames.
import { readSync } from "node:fs";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { createGroupKernel, type GroupKernel, groupBytes, mergeGroups } from "../../assembly/index.ts";
import { equalBytes } from "../../protocol/bytes.ts";
import { assert, BedplateError, reportOf } from "../../protocol/errors.ts";
import type { GroupTasks, Packed, TaskAnswer, TaskMessage } from "./group-tasks.ts";
import { imageLimits } from "./limits.ts";
import { createFrameScanner } from "./zstd-frames.ts";

const kernel = await createGroupKernel();
const [window, zeroWindow] = [0, 1];
// Nothing writes to this window: a fresh instance has zeroes in it.
assert(kernel.isZero(zeroWindow, groupBytes), "the second window is untouched");

export default function work(message: TaskMessage): TaskAnswer {
  try {
    return { value: answer(message) };
  } catch (error) {
    return { error: reportOf(error) };
  }
}

function answer(message: TaskMessage): GroupTasks[TaskMessage["kind"]]["result"] {
  switch (message.kind) {
    case "pack":
      kernel.windows[window]!.set(message.slot.subarray(0, message.length));
      return packWindow(kernel, message);
    case "packFrom":
      readGroup(kernel.windows[window]!, message);
      return packWindow(kernel, message);
    case "verify":
      return verify(message);
    case "verifyZeroes":
      return verifyZeroes(message);
    case "merge":
      return mergeGroups(message.digests, message.count);
  }
}

function packWindow(
  { windows, groupPass }: GroupKernel,
  { slot, length, group, root, level }: GroupTasks["pack"]["task"],
): Packed {
  const { digest, zero } = groupPass(window, length, group, { root });
  if (zero) return { digest, frameBytes: 0 };
  const frame = zstdCompressSync(windows[window]!.subarray(0, length), {
    params: { [constants.ZSTD_c_compressionLevel]: level },
    pledgedSrcSize: length,
    chunkSize: imageLimits.frameBytesMax,
  });
  assert(frame.length <= slot.length, "a frame fits its slot");
  slot.set(frame);
  return { digest, frameBytes: frame.length };
}

function readGroup(target: Uint8Array, { fd, length, group }: GroupTasks["packFrom"]["task"]): void {
  for (let filled = 0; filled < length; ) {
    const read = readSync(fd, target, filled, length - filled, group * groupBytes + filled);
    if (read === 0) throw new BedplateError("file.changed", "The input became shorter while it was read.");
    filled += read;
  }
}

function verify({ slot, frameBytes, length, group, root, digest }: GroupTasks["verify"]["task"]): undefined {
  // A copy: the decoder must see the very bytes that were scanned, and shared memory promises that to nobody.
  const frame = slot.slice(0, frameBytes);
  let content: Uint8Array;
  try {
    const scanner = createFrameScanner();
    const { end, ended } = scanner.scan(frame, 0);
    if (!ended || end !== frameBytes || scanner.skippable)
      return corrupt(group, "is not exactly one zstd frame");
    if (scanner.windowBytes > imageLimits.frameWindowBytesMax)
      return corrupt(group, "asks for too large a window");
    // One byte more than a group: with a full chunk node would take a second one to see that nothing follows.
    content = zstdDecompressSync(frame, { maxOutputLength: length, chunkSize: groupBytes + 1 });
  } catch (cause) {
    if (cause instanceof BedplateError && cause.details !== undefined) throw cause;
    return corrupt(group, "cannot be decoded", cause);
  }
  if (content.length !== length) return corrupt(group, `holds ${content.length} bytes instead of ${length}`);
  kernel.windows[window]!.set(content);
  if (!equalBytes(kernel.chainingValue(window, length, group, { root }), digest))
    return corrupt(group, "does not match its digest");
}

function verifyZeroes({ groups, root }: GroupTasks["verifyZeroes"]["task"]): undefined {
  for (const { group, length, digest } of groups) {
    if (!equalBytes(kernel.chainingValue(zeroWindow, length, group, { root }), digest)) {
      return corrupt(group, "has no frame, and its digest is not that of zeroes");
    }
  }
}

function corrupt(group: number, why: string, cause?: unknown): never {
  const offset = group * groupBytes;
  throw new BedplateError("image.corrupt", `Group ${group} (offset ${offset}) ${why}.`, {
    details: { group, offset },
    cause,
  });
}
