// Reading a few bytes of block devices for the inventory: never written, never waited for long, never held.
import { close, constants, open, read } from "node:fs";
import { promisify } from "node:util";
import { BedplateError } from "../../../protocol/errors.ts";
import type { Clock } from "../../host/clock.ts";
import { errnoOf, statusOfOpen } from "../../host/files.ts";
import type { Stretch } from "../signatures/spots.ts";

export interface DeviceToRead {
  readonly path: string;
  /** `MAJOR:MINOR` that the node must stand for; null for a regular file. */
  readonly number: string | null;
}

export interface OpenDevice extends AsyncDisposable {
  /** Fewer bytes at the device's end. They are good until the device is closed. */
  read(stretch: Stretch): Promise<Uint8Array>;
}

export interface DeviceReader {
  /** @throws with the reason: the node is another device, no permission, no medium */
  open(device: DeviceToRead): Promise<OpenDevice>;
}

const openFile = promisify(open);
const readFile = promisify(read);
const closeFile = promisify(close);

/** As much as a disk with four partitions gives; what is read of more gets memory of its own. */
const slabBytes = 1 << 20;

/** Under another root the nodes of a captured tree are regular files. */
export function createDeviceReader(root = ""): DeviceReader {
  // Memory is used again for the next device: that took a third off the time for a machine of sixty disks.
  const free: Uint8Array[] = [];
  return {
    async open({ path, number }) {
      // Not blocking: the open of a device without a medium returns at once.
      const fd = await openFile(`${root}${path}`, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        if (root === "") {
          const status = statusOfOpen(fd);
          const same =
            number === null
              ? status.kind === "file"
              : status.kind === "block" && status.represents === number;
          if (!same) throw new BedplateError("disk.unavailable", `${path} is another device now.`);
        }
      } catch (error) {
        await closeFile(fd);
        throw error;
      }
      const slab = free.pop() ?? new Uint8Array(slabBytes);
      let used = 0;
      return {
        async read({ offset, length }) {
          const bytes =
            used + length <= slabBytes ? slab.subarray(used, used + length) : new Uint8Array(length);
          used += length;
          let filled = 0;
          while (filled < length) {
            const { bytesRead } = await readFile(fd, bytes, filled, length - filled, offset + filled);
            if (bytesRead === 0) break;
            filled += bytesRead;
          }
          return bytes.subarray(0, filled);
        },
        async [Symbol.asyncDispose]() {
          await closeFile(fd);
          free.push(slab);
        },
      };
    },
  };
}

/**
 * Work on devices that may never answer. A read that hangs in the kernel cannot be ended, and holds one of node's few
 * threads for files: after two such devices no further one is tried.
 */
export interface Patience {
  /** @throws what the work throws, or that the device does not answer */
  within<T>(path: string, work: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

const stuckMax = 2;

export function createPatience(clock: Clock, deviceMs: number, signal: AbortSignal): Patience {
  let stuck = 0;
  return {
    async within(path, work) {
      if (stuck >= stuckMax) throw new Error(`not read: ${stuckMax} devices before it did not answer`);
      const late = new Error(`${path} did not answer within ${deviceMs} ms`);
      using deadline = clock.deadline(deviceMs, signal, late);
      const { promise, reject } = Promise.withResolvers<never>();
      const give = () => reject(deadline.reason);
      deadline.addEventListener("abort", give, { once: true });
      const working = work(deadline);
      // Whoever loses the race is not listened to any more.
      working.catch(() => {});
      promise.catch(() => {});
      try {
        return await Promise.race([working, promise]);
      } catch (error) {
        if (error === late) stuck++;
        throw error;
      } finally {
        deadline.removeEventListener("abort", give);
      }
    },
  };
}

/** Why a device cannot be read, in one phrase. */
export function reasonOf(error: unknown): string {
  return errnoOf(error).slice(0, 200);
}
