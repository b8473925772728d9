// Whether the kernel would give a block device to us alone: asked and given back at once, nothing is written.
import { closeSync, constants, openSync } from "node:fs";
import { errnoOf } from "../host/files.ts";

/**
 * True when somebody has the device, or a partition of it, for himself: whoever opened it with O_EXCL, and what is mounted
 * or stacked where this process cannot see it, as in another mount namespace. What else may be wrong is found when it is opened.
 */
export function isHeldByAnother(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL));
    return false;
  } catch (error) {
    return errnoOf(error) === "EBUSY";
  }
}
