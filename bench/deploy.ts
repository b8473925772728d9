// A deploy's phases (read or fetch over TLS, verify, write, journal, read back) against dd, which only copies, and the whole
// of it against what careful people do; what a deploy of a slightly changed image moves; and the executor's memory.
import { existsSync } from "node:fs";
import { type DeployRig, isRoot, type Kind, openDeployRig } from "./deploy-rig.ts";
import { type Bench, type Candidate, wallTimed } from "./harness.ts";
import { builtExecutor } from "./processes.ts";

const groups = 512;

export const deploy: Bench = {
  name: "deploy",
  title: `Deploy of ${groups} MiB to ${isRoot ? "a loop device" : "a file (no root here)"}, against dd oflag=direct conv=fsync, as nice`,
  async prepare() {
    const rig = await openDeployRig(groups, ["full", "half-zero", "changed"]);
    const { bytes } = rig;
    let peakBytes = 0;
    const deployOnce = async (kind: Kind, from: "file" | "controller") => {
      const done = await rig.deploy(kind, from);
      if (from === "file") peakBytes = Math.max(peakBytes, done.peakResidentBytes);
      return done;
    };
    /** Onto a disk that holds another image. */
    const deployNew = async (kind: "full" | "half-zero", from: "file" | "controller" = "file") => {
      await hold(rig, kind === "full" ? "half-zero" : "full");
      return await deployOnce(kind, from);
    };
    const phases = (
      kind: "full" | "half-zero",
      sum: (seconds: Awaited<ReturnType<typeof deployNew>>["output"]["seconds"]) => number,
      from?: "controller",
    ): Candidate => ({
      measure: async () => sum((await deployNew(kind, from)).output.seconds),
      bytes,
    });
    return {
      rounds: 3,
      sliceSeconds: 0,
      candidates: {
        dd: wallTimed(() => copy(rig, "half-zero"), bytes),
        "sha256sum, dd, cmp": wallTimed(async () => {
          await rig.asNice("sha256sum", rig.rawPath("half-zero"));
          await copy(rig, "half-zero");
          await rig.asNice("cmp", "-n", `${bytes}`, rig.rawPath("half-zero"), rig.disk);
        }, bytes),
        "whole deploy": { measure: async () => (await deployNew("full")).wallSeconds, bytes },
        "write phase": phases("full", ({ write }) => write),
        "write and read-back": phases("full", ({ write, readback }) => write + readback),
        "half zero, write phase": phases("half-zero", ({ write }) => write),
        "half zero, prepare and write": phases("half-zero", ({ prepare, write }) => prepare + write),
        "over TLS, write phase": phases("full", ({ write }) => write, "controller"),
      },
      rows: [
        {
          name: "write phase of a local raw image against dd (aim 0.85)",
          subject: "write phase",
          peer: "dd",
          floor: 0.4,
        },
        {
          name: "with the whole read-back, against dd (aim 0.5)",
          subject: "write and read-back",
          peer: "dd",
          floor: 0.25,
        },
        {
          name: "with the whole read-back, against sha256sum, dd and cmp (aim 6)",
          subject: "write and read-back",
          peer: "sha256sum, dd, cmp",
          floor: 2.5,
        },
        // Of 512 MiB a third of the time: longer images come nearer to the row above.
        {
          name: "the same with all before and after, the start of the executor's process included",
          subject: "whole deploy",
          peer: "sha256sum, dd, cmp",
          floor: 1.5,
        },
        {
          name: "half zero, one run, against dd (aim 1.7)",
          subject: "half zero, write phase",
          peer: "dd",
          floor: 0.6,
        },
        // What is zeroes is proved before the first write: no part of the phase above.
        {
          name: "the same with what comes before the first write",
          subject: "half zero, prepare and write",
          peer: "dd",
        },
        // Bound by decompression and TLS, with the server on the same cores, where the disk is as fast as memory.
        {
          name: "write phase over TLS against dd",
          subject: "over TLS, write phase",
          peer: "dd",
          floor: 0.05,
        },
        {
          name: "1 % changed: fetched or written, of the image (aim 1.1)",
          unit: "%",
          async measure() {
            await hold(rig, "full");
            const { bytesFetched, bytesWritten, bytesZeroed } = (await deployOnce("changed", "file")).output;
            return (100 * Math.max(bytesFetched, bytesWritten + bytesZeroed)) / bytes;
          },
          most: 2,
        },
        ...(existsSync(builtExecutor)
          ? [
              {
                name: "the executor's peak, resident, of local sources (54 MB of it pages of Node's own program; aim 120)",
                unit: "MB",
                measure: () => peakBytes / 1e6,
                most: 150,
              },
            ]
          : []),
      ],
      [Symbol.asyncDispose]: () => rig[Symbol.asyncDispose](),
    };
  },
};

async function hold(rig: DeployRig, kind: Kind): Promise<void> {
  if (rig.holds !== kind) await copy(rig, kind);
}

async function copy(rig: DeployRig, kind: Kind): Promise<void> {
  const places = [`if=${rig.rawPath(kind)}`, `of=${rig.disk}`];
  await rig.asNice("dd", ...places, "bs=1M", "oflag=direct", "conv=fsync,notrunc");
  rig.holds = kind;
}
