// An image of which 1 % has changed, onto the disk that holds the old one, against tools that write the whole: on a loop
// device whose writes are throttled as those of a slow disk are, reads being as fast as they go.
import { execFile } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { type DeployRig, isRoot, openDeployRig } from "./deploy-rig.ts";
import { type Bench, type Candidate, programMissing, type Skipped, wallTimed } from "./harness.ts";

const groups = 256;
const bytesPerSecond = 200e6;
/** Of the machine's root group: it holds for whoever writes, the kernel's own writing back included. */
const throttle = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";
const run = promisify(execFile);

export const redeploy: Bench = {
  name: "redeploy",
  group: "deploy",
  title: `1 % of ${groups} MiB changed, against writing the whole, writes throttled to ${bytesPerSecond / 1e6} MB/s`,
  async prepare() {
    await using stack = new AsyncDisposableStack();
    const rig = stack.use(await openDeployRig(groups, ["full", "changed"]));
    const { bytes } = rig;
    const why = await throttleWrites(rig, stack);
    const whole = async (name: string, write: (kind: "full" | "changed") => Promise<void>) => {
      if (why !== undefined) return { skipped: why };
      if (await programMissing(name)) return { skipped: `${name} is not installed` };
      return wallTimed(async () => {
        const kind = other(rig);
        await write(kind);
        rig.holds = kind;
      }, bytes);
    };
    const subject: Candidate | Skipped =
      why === undefined
        ? { measure: async () => (await rig.deploy(other(rig), "file")).wallSeconds, bytes }
        : { skipped: why };
    if (why === undefined && !(await programMissing("bmaptool")))
      for (const kind of ["full", "changed"] as const)
        await run("bmaptool", ["create", "-o", `${rig.rawPath(kind)}.bmap`, rig.rawPath(kind)]);
    const kept = stack.move();
    return {
      rounds: 3,
      sliceSeconds: 0,
      candidates: {
        deploy: subject,
        "bmaptool copy": await whole("bmaptool", (kind) => {
          const path = rig.rawPath(kind);
          return rig.asNice("bmaptool", "copy", "--bmap", `${path}.bmap`, path, rig.disk);
        }),
        "qemu-img convert": await whole("qemu-img", (kind) =>
          rig.asNice(
            ...["qemu-img", "convert", "-n", "-t", "none", "-f", "raw", "-O", "host_device"],
            ...[rig.rawPath(kind), rig.disk],
          ),
        ),
      },
      rows: ["bmaptool copy", "qemu-img convert"].map((peer) => ({
        name: `the whole deploy, its process and its full read-back included, against ${peer} (aim 4)`,
        subject: "deploy",
        peer,
        floor: 1.5,
      })),
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  },
};

/** The image that the disk does not hold: each way, 1 % is another. */
function other({ holds }: DeployRig): "full" | "changed" {
  return holds === "full" ? "changed" : "full";
}

/** Why it cannot be done here. */
async function throttleWrites(rig: DeployRig, stack: AsyncDisposableStack): Promise<string | undefined> {
  if (!isRoot) return "only root throttles a device";
  if (!existsSync(throttle)) return "this kernel has no blkio throttle of cgroup v1";
  const { stdout } = await run("lsblk", ["--noheadings", "--nodeps", "--output", "MAJ:MIN", rig.disk]);
  const device = stdout.trim();
  // At full speed, so that the first measurement finds the other image.
  await rig.deploy("full", "file");
  writeFileSync(throttle, `${device} ${bytesPerSecond}`);
  stack.defer(() => writeFileSync(throttle, `${device} 0`));
  return undefined;
}
