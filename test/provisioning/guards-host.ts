// A host whose disks are loop devices: controller, agent and command line are processes of the built program. The state of
// its executor lies on a file system of its own disks, as that of a host does.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openPrivateHost, type PrivateMount } from "../../cli/demo/private-host.ts";
import type { HostAuditEntry } from "../../protocol/audit.ts";
import { type ControllerProcess, startControllerProcess } from "../contract/controller-process.ts";
import {
  builtProgram,
  eventually,
  hasProgram,
  node,
  openDirectory,
  startProgram,
} from "../contract/programs.ts";
import { type CommandLine, commandLine } from "../support/command-line.ts";
import { attachLoop, type Loop, type LoopOptions } from "./guards-disks.ts";

export interface GuardsHost extends AsyncDisposable {
  readonly directory: string;
  readonly name: string;
  readonly controller: ControllerProcess;
  /** `bedplate` of an operator who knows the host and has no key in the policy. */
  readonly operator: CommandLine;
  /** The private key of the policy's one operator. */
  readonly key: string;
  /** What the host's udev would write of the device `7:N`: identities that a loop device itself does not have. */
  writeUdev(loop: Loop, properties: Readonly<Record<string, string>>): void;
  writePolicy(rules: PolicyRules): void;
  /** A loop device of a file of the host's directory, detached with the host. */
  attach(backing: string, options?: LoopOptions): Loop;
  /** Runs a program on the host: what it mounts, the host has mounted. */
  inside(...argv: readonly [string, ...string[]]): string;
  /** Mounts it there alone, for as long as it is used: who makes a namespace meanwhile would keep what is mounted here. */
  withMounted<T>(options: readonly string[], use: (path: string) => T): T;
  /** The host's audit, as `bedplate audit show` prints it there. */
  audit(): readonly HostAuditEntry[];
  /** The disk that holds the file that the executor's state lies in, and that file's loop device. */
  readonly stateDisks: readonly [outer: Loop, inner: Loop] | null;
}

export interface PolicyRules {
  readonly allow?: readonly string[];
  readonly protect?: readonly string[];
  readonly overrides?: readonly string[];
  /** Without a signature by the operator nothing is applied. */
  readonly signed?: boolean;
}

const mib = 1 << 20;

/** A reason as text where this machine cannot have one. */
export async function openGuardsHost(
  name: string,
  { stateOnDisk = false }: { readonly stateOnDisk?: boolean } = {},
): Promise<GuardsHost | string> {
  const missing = lacking();
  if (missing !== undefined) return missing;
  await using stack = new AsyncDisposableStack();
  const { path: directory } = stack.use(await openDirectory(name));
  const home = join(directory, "host");
  const [policyDirectory, executorState, runDirectory, udev] = ["etc", "var", "run", "udev"].map((part) =>
    join(home, part),
  ) as [string, string, string, string];
  for (const path of [policyDirectory, executorState, runDirectory, udev, join(directory, "operator")])
    mkdirSync(path, { recursive: true, mode: 0o700 });

  // What is attached later is detached with the host, too.
  const attached = stack.use(new AsyncDisposableStack());
  const attach: GuardsHost["attach"] = (backing, options) => {
    const loop = attachLoop(backing, options);
    attached.defer(() => loop.detach());
    return loop;
  };
  const stateDisks = stateOnDisk ? mountState(attach, { home, executorState, stack: attached }) : null;
  for (const part of ["agent", "executor"]) mkdirSync(join(executorState, part), { mode: 0o700 });

  const mounts: PrivateMount[] = [
    { source: policyDirectory, target: "/etc/bedplate" },
    { source: executorState, target: "/var/lib/bedplate" },
    { source: runDirectory, target: "/run/bedplate" },
    { source: udev, target: "/run/udev/data" },
  ];
  const privateHost = await openPrivateHost(mounts);
  if (typeof privateHost === "string") return privateHost;
  stack.use(privateHost);

  const key = join(directory, "operator-key");
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "alice", "-f", key]);
  const publicKey = readFileSync(`${key}.pub`, "utf8").trim();
  const writePolicy: GuardsHost["writePolicy"] = ({ allow = [], protect = [], overrides = [], signed }) =>
    writeFileSync(
      join(policyDirectory, "policy.toml"),
      [
        `allowDisks = ${JSON.stringify(allow)}`,
        `protectDisks = ${JSON.stringify(protect)}`,
        `allowOverrides = ${JSON.stringify(overrides)}`,
        ...(signed === true ? [] : ['unsigned = ["image.deploy"]']),
        "[signers]",
        `ops = [${JSON.stringify(publicKey)}]`,
        ...(signed === true ? ['[kinds."image.deploy"]', 'signatures = { k = 1, from = ["ops"] }'] : []),
        "",
      ].join("\n"),
      { mode: 0o600 },
    );
  writePolicy({});

  const controller = stack.use(await startControllerProcess(directory));
  const { token } = await controller.api.createJoinToken({ approve: "manual" });
  const config = join(home, "agent.toml");
  writeFileSync(
    config,
    `controller = "${controller.url}"\nname = "${name}"\njoinToken = "${token}"\nstateDirectory = "/var/lib/bedplate/agent"\n[metrics]\nlisten = "off"\n`,
    { mode: 0o600 },
  );
  const agent = stack.use(
    startProgram({
      argv: privateHost.wrap([node, builtProgram, "agent", "--config", config]),
      logFile: join(home, "agent.log"),
      environment: { TMPDIR: home },
    }),
  );
  const operator = commandLine(
    {
      HOME: join(directory, "operator"),
      TMPDIR: directory,
      BEDPLATE_CLIENT: controller.clientFile,
    },
    builtProgram,
  );
  const waiting = await eventually(
    180_000,
    async () => (await controller.api.hosts()).find((host) => host.name === name),
    () => agent.log().slice(-1500),
  );
  await operator.json(0, "host", "approve", name, "--fingerprint", waiting.fingerprint);
  const inside: GuardsHost["inside"] = (...argv) =>
    execFileSync("nsenter", [`--mount=/proc/${agent.pid}/ns/mnt`, ...argv], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    });
  const withMounted: GuardsHost["withMounted"] = (words, use) => {
    const at = mkdtempSync(join(directory, "mounted-"));
    inside("mount", ...words, at);
    try {
      return use(`/proc/${agent.pid}/root${at}`);
    } finally {
      inside("umount", at);
    }
  };
  const kept = stack.move();
  return {
    ...{ withMounted, directory, name, controller, operator, key, writePolicy, attach, inside, stateDisks },
    writeUdev: ({ number }, properties) =>
      writeFileSync(
        join(udev, `b${number}`),
        Object.entries(properties)
          .map(([property, value]) => `E:${property}=${value}\n`)
          .join(""),
      ),
    audit: () =>
      (
        JSON.parse(inside(node, builtProgram, "audit", "show", "--lines", "1000", "--json")) as {
          entries: HostAuditEntry[];
        }
      ).entries,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** The executor's state on a disk that is a file on another disk's file system. */
function mountState(
  attach: GuardsHost["attach"],
  { home, executorState, stack }: { home: string; executorState: string; stack: AsyncDisposableStack },
): readonly [Loop, Loop] {
  const mounted = (file: string, sizeBytes: number, mountPoint: string): Loop => {
    mkdirSync(mountPoint, { recursive: true, mode: 0o700 });
    execFileSync("truncate", ["--size", `${sizeBytes}`, file]);
    execFileSync("mke2fs", ["-q", "-t", "ext4", file], { stdio: "ignore" });
    const loop = attach(file);
    execFileSync("mount", [loop.path, mountPoint]);
    // Lazily: whoever has made a namespace of its own meanwhile has it mounted there too.
    stack.defer(() => void execFileSync("umount", ["--lazy", mountPoint]));
    return loop;
  };
  const outer = mounted(join(home, "outer.img"), 96 * mib, join(home, "outer"));
  const inner = mounted(join(home, "outer/inner.img"), 64 * mib, executorState);
  return [outer, inner];
}

/** What these tests need of a machine, and why this one does not do. */
function lacking(): string | undefined {
  if (process.geteuid?.() !== 0) return "loop devices need root";
  const tools = ["losetup", "mount", "mke2fs", "nsenter", "unshare", "ssh-keygen", "blockdev"];
  const missing = tools.filter((tool) => !hasProgram(tool));
  if (missing.length > 0) return `${missing.join(", ")} are not installed`;
  const { status, stderr } = spawnSync("losetup", ["--find"], { encoding: "utf8" });
  return status === 0 ? undefined : `there are no loop devices: ${stderr.trim()}`;
}
