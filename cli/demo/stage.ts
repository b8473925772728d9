// What the demo plays on: a temporary directory, a controller, an agent and its disks, all gone when it is disposed.
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { BedplateError } from "../../protocol/errors.ts";
import { type ApiClient, openApi } from "../api-client.ts";
import { deadline, sleep } from "../clock.ts";
import { parseClientFile } from "../connection.ts";
import { type Child, programArguments, startChild, tailOf } from "./children.ts";
import { type DemoDisks, makeDisks, policyText } from "./disks.ts";
import { executorsOf, killAll, mountsOf } from "./processes.ts";
import { type AgentRights, chooseRights, nobody } from "./rights.ts";

export interface Stage extends AsyncDisposable {
  readonly directory: string;
  /** Node and the program that controller and agents are started from. */
  readonly program: readonly [string, string];
  readonly clientFile: string;
  readonly client: ApiClient;
  readonly controllerUrl: string;
}

export interface DemoHost extends AsyncDisposable {
  readonly pid: number;
  readonly name: string;
  readonly rights: AgentRights;
  readonly disks: DemoDisks;
  /** Rejects when agent or controller end. */
  readonly died: Promise<never>;
}

const startMs = 30_000;

export interface StageOptions {
  /** Default: this very program. */
  readonly program?: readonly [string, string];
  /** Aborts when the demo is to stop. */
  readonly signal: AbortSignal;
}

/** A controller in a temporary directory. */
export async function openStage({
  program = programArguments(),
  signal,
}: StageOptions): Promise<Stage & { readonly controller: Child }> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), "bedplate-demo-"));
  stack.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
  // The agent may run as another user; what is in here has modes of its own.
  await chmod(directory, 0o711);
  const state = join(directory, "controller");
  const logFile = join(directory, "controller.log");
  const listening = Promise.withResolvers<string>();
  const controller = stack.use(
    startChild({
      name: "controller",
      argv: [...program, "controller", "--json", "--listen", "127.0.0.1:0", "--state-directory", state],
      logFile,
      home: directory,
      onLine: (line) => {
        const url = urlOf(line);
        if (url !== undefined) listening.resolve(url);
      },
    }),
  );
  const controllerUrl = await inTime(
    Promise.race([listening.promise, controller.died]),
    "The controller did not start",
    logFile,
    signal,
  );
  const clientFile = join(state, "client.json");
  const client = stack.use(openApi(parseClientFile(await readFile(clientFile, "utf8"), clientFile), signal));
  const kept = stack.move();
  return {
    directory,
    program,
    clientFile,
    client,
    controllerUrl,
    controller,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

function urlOf(line: string): string | undefined {
  try {
    const { listening } = JSON.parse(line) as { listening?: { url?: unknown } };
    return typeof listening?.url === "string" ? listening.url : undefined;
  } catch {
    return undefined;
  }
}

export interface HostOptions {
  readonly diskBytes: number;
  /** Where the disks' files are made, a directory that does not exist yet; default beside the agent's state. */
  readonly diskDirectory?: string;
  readonly joinToken: string;
  /** Where there are several hosts on one stage. */
  readonly name?: string;
  /** The host's policy file; default: the demo's, a lab's. */
  readonly policy?: (disks: DemoDisks) => string;
  readonly signal: AbortSignal;
}

/** An agent with disks of `diskBytes` that its policy allows, joined to the stage's controller. */
export async function openHost(
  stage: Stage & { readonly controller: Child },
  { diskBytes, diskDirectory, joinToken, name = "demo-host", policy = policyText, signal }: HostOptions,
): Promise<DemoHost> {
  await using stack = new AsyncDisposableStack();
  const { directory, client, controller } = stage;
  const home = join(directory, name === "demo-host" ? "host" : name);
  const rights = await chooseRights(home);
  stack.use(rights);
  const owner = rights.kind === "other-user" ? nobody : undefined;
  const own = async (path: string) => {
    await mkdir(path, { recursive: true, mode: 0o700 });
    if (owner !== undefined) await chown(path, owner, owner);
  };
  const paths = rights.paths;
  const { agentState, policyDirectory, executorState, runDirectory } = paths;
  for (const path of [home, agentState, policyDirectory, dirname(executorState), executorState, runDirectory])
    await own(path);
  const disks = stack.use(
    await makeDisks({
      directory: diskDirectory ?? join(home, "disks"),
      sizeBytes: diskBytes,
      loop: rights.kind === "private-mounts",
      owner,
    }),
  );
  const write = async (path: string, text: string) => {
    await writeFile(path, text, { mode: 0o600 });
    if (owner !== undefined) await chown(path, owner, owner);
  };
  await write(join(paths.policyDirectory, "policy.toml"), policy(disks));
  const configFile = join(home, "agent.toml");
  await write(configFile, agentConfig({ controller: stage.controllerUrl, name, joinToken, ...paths }));

  const logFile = join(home, "agent.log");
  let mounts: string | undefined;
  // Executors outlive their agent by design; here they must not. Runs after the agent's own end.
  stack.defer(() => killAll(executorsOf(directory, mounts), 5000));
  const agent = stack.use(
    startChild({
      name: "agent",
      argv: rights.wrap([...stage.program, "agent", "--config", configFile]),
      logFile,
      home,
      ...(owner === undefined ? {} : { uid: owner }),
    }),
  );
  const online = async () => {
    for (;;) {
      const host = (await client.hosts()).find((known) => known.name === name);
      if (host?.connection === "online") return;
      await sleep(50, signal);
    }
  };
  const died = Promise.race([agent.died, controller.died]);
  died.catch(() => {});
  await inTime(Promise.race([online(), died]), "The agent did not join", logFile, signal);
  if (rights.kind === "private-mounts") mounts = privateMountsOf(agent.pid);
  const kept = stack.move();
  return { pid: agent.pid, name, rights, disks, died, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** Never our own: whoever kills by it would kill others. */
function privateMountsOf(pid: number): string | undefined {
  const mounts = mountsOf(pid);
  return mounts === mountsOf(process.pid) ? undefined : mounts;
}

interface AgentFile {
  readonly controller: string;
  readonly name: string;
  readonly joinToken: string;
  readonly agentState: string;
  readonly policyDirectory: string;
  readonly executorState: string;
  readonly runDirectory: string;
}

function agentConfig({
  controller,
  name,
  joinToken,
  agentState,
  policyDirectory,
  executorState,
  runDirectory,
}: AgentFile): string {
  const text = (value: string) => JSON.stringify(value);
  return `controller = ${text(controller)}
name = ${text(name)}
joinToken = ${text(joinToken)}
stateDirectory = ${text(agentState)}

[telemetry]
intervalMs = 1000

[metrics]
listen = "off"

# Without effect where the agent is root: there the paths are fixed.
[executor]
policy = ${text(join(policyDirectory, "policy.toml"))}
stateDirectory = ${text(executorState)}
runDirectory = ${text(runDirectory)}
`;
}

async function inTime<T>(work: Promise<T>, what: string, logFile: string, signal: AbortSignal): Promise<T> {
  using patience = deadline(
    startMs,
    new BedplateError("demo.failed", `${what} within ${startMs / 1000} s: ${tailOf(logFile)}`),
  );
  const late = Promise.withResolvers<never>();
  const stop = () => late.reject(signal.aborted ? signal.reason : patience.signal.reason);
  const until = AbortSignal.any([signal, patience.signal]);
  until.addEventListener("abort", stop, { once: true });
  if (until.aborted) stop();
  return await Promise.race([work, late.promise]);
}
