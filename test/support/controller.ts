// A controller on a free port with a state directory of its own, for tests; and its API.

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { type RequestOptions, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Controller, type ControllerParts, startController } from "../../controller/controller.ts";
import { type Log, silentLog } from "../../controller/machine/log.ts";
import type { ClientFile, JoinTokenView } from "../../protocol/api.ts";
import { tlsServerName } from "../../protocol/messages.ts";

export interface Answer<T = unknown> {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: T;
  readonly bytes: Uint8Array;
}

export interface TestController extends AsyncDisposable {
  readonly directory: string;
  readonly client: ClientFile;
  readonly url: string;
  readonly ca: string;
  /** A request with the first token, unless `token` says another or null for none. */
  call<T>(method: string, path: string, options?: CallOptions): Promise<Answer<T>>;
  joinToken(options?: { ttlSeconds?: number; uses?: number }): Promise<string>;
  /** Does something while it is stopped. */
  offline<T>(action: () => Promise<T>): Promise<T>;
  /** Stops it and starts it again on the same directory. */
  restart(): Promise<void>;
}

export interface CallOptions {
  readonly token?: string | null;
  readonly json?: unknown;
  readonly bytes?: Uint8Array;
  readonly headers?: Record<string, string>;
}

export interface TestOptions extends Partial<Omit<ControllerParts, "log">> {
  readonly log?: Log;
  readonly heartbeatMs?: number;
}

export async function testController(options: TestOptions = {}): Promise<TestController> {
  const directory = await mkdtemp(join(tmpdir(), "bedplate-controller-"));
  const start = (): Promise<Controller> =>
    startController(
      {
        listen: { host: "127.0.0.1", port: 0 },
        stateDirectory: directory,
        names: [],
        heartbeatMs: options.heartbeatMs ?? 10_000,
        telemetryHours: 24,
        logLevel: "silent",
      },
      { ...options, log: options.log ?? silentLog },
    );
  let controller = await start();
  const readClient = async (): Promise<ClientFile> =>
    JSON.parse(await readFile(join(directory, "client.json"), "utf8")) as ClientFile;
  let client = await readClient();
  const call = <T>(
    method: string,
    path: string,
    { token = client.token, json, bytes, headers = {} }: CallOptions = {},
  ): Promise<Answer<T>> => {
    const body = json === undefined ? bytes : Buffer.from(JSON.stringify(json));
    return callApi<T>(client, method, path, {
      headers: {
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
        ...(json === undefined ? {} : { "content-type": "application/json" }),
        ...(bytes === undefined ? {} : { "content-type": "application/octet-stream" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body }),
    });
  };
  const offline = async <T>(action: () => Promise<T>): Promise<T> => {
    await controller[Symbol.asyncDispose]();
    const answer = await action();
    controller = await start();
    client = await readClient();
    return answer;
  };
  return {
    directory,
    call,
    get client() {
      return client;
    },
    get url() {
      return client.url;
    },
    get ca() {
      return client.ca;
    },
    async joinToken(wanted = {}) {
      return (await call<JoinTokenView>("POST", "/v1/join-tokens", { json: wanted })).body.token;
    },
    offline,
    restart: () => offline(async () => {}),
    async [Symbol.asyncDispose]() {
      await controller[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export function callApi<T>(
  to: { readonly url: string; readonly ca: string },
  method: string,
  path: string,
  { body, ...options }: RequestOptions & { body?: Uint8Array } = {},
): Promise<Answer<T>> {
  return new Promise((resolve, reject) => {
    const asked = request(
      new URL(path, to.url),
      { method, ca: to.ca, servername: tlsServerName, agent: false, ...options },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk: Buffer) => chunks.push(chunk));
        answer.on("error", reject);
        answer.on("end", () => {
          const bytes = Buffer.concat(chunks);
          const isJson = /json/.test(answer.headers["content-type"] ?? "");
          resolve({
            status: answer.statusCode!,
            headers: answer.headers,
            body: (isJson ? JSON.parse(bytes.toString()) : bytes.toString()) as T,
            bytes: Uint8Array.from(bytes),
          });
        });
      },
    );
    asked.on("error", reject);
    asked.end(body);
  });
}
