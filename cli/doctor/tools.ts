// The programs that are used where they are present, and what each absence costs.
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { type Check, missing, ok } from "./check.ts";

/** Where programs lie that an ordinary user's PATH may lack: what bedplate itself starts them with. */
const directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

interface Tool {
  readonly program: string;
  readonly from: string;
  readonly costs: string;
  readonly rootOnly?: true;
}

const tools: readonly Tool[] = [
  {
    program: "flock",
    from: "util-linux",
    costs: "disks are claimed by O_EXCL alone; tools that honour locks may interfere",
  },
  {
    program: "losetup",
    from: "util-linux",
    costs: "loop devices cannot be made: the demo uses file-backed disks",
    rootOnly: true,
  },
  {
    program: "blkdiscard",
    from: "util-linux",
    costs: "zero groups are written instead of zeroed by the device",
    rootOnly: true,
  },
  {
    program: "unshare",
    from: "util-linux",
    costs: "the demo as root cannot give its agent a private policy",
    rootOnly: true,
  },
  {
    program: "setpriv",
    from: "util-linux",
    costs: "tools cannot be started with lesser rights or tied to their parent's life",
  },
  { program: "xz", from: "xz-utils", costs: "xz images cannot be imported" },
  { program: "qemu-img", from: "qemu-utils", costs: "qcow2 images cannot be imported" },
  { program: "gpgv", from: "gpgv", costs: "vendors' signatures of image sums cannot be verified" },
  { program: "mke2fs", from: "e2fsprogs", costs: "the demo's image has no file system" },
  { program: "systemd-notify", from: "systemd", costs: "the agent's unit cannot say when it is ready" },
];

export function toolChecks(root: boolean): Check[] {
  return [
    ...tools
      .filter((tool) => root || tool.rootOnly !== true)
      .map(({ program, from, costs }) => {
        const path = findProgram(program);
        return path === undefined
          ? missing(program, `not found (package ${from})`, costs)
          : ok(program, path);
      }),
    ok("zstd", "part of Node"),
  ];
}

/** The program's path, in PATH and the system's directories. */
export function findProgram(program: string): string | undefined {
  const path = (process.env.PATH ?? "").split(":").filter((directory) => directory.startsWith("/"));
  return [...path, ...directories].map((directory) => join(directory, program)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
