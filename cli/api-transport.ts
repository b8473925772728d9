// HTTPS to one pinned controller: requests, problem answers as errors, and bodies within bounds.

import type { IncomingMessage } from "node:http";
import { Agent, type RequestOptions, request } from "node:https";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Problem } from "../protocol/api.ts";
import { type Code, isCode } from "../protocol/codes.ts";
import { assert, BedplateError } from "../protocol/errors.ts";
import { tlsServerName } from "../protocol/messages.ts";
import { checker } from "../protocol/schema.ts";
import { version } from "../protocol/version.ts";
import { sleep } from "./clock.ts";
import type { Connection } from "./connection.ts";

/** The largest JSON answer that is taken: a list of commands with their results. */
const answerBytesMax = 64 << 20;
/** Silence of a connected server after which it counts as gone. Events have heartbeats below this. */
const idleMs = 60_000;
/** The same after an upload, which the server verifies whole before it answers. */
const uploadIdleMs = 600_000;

export interface ApiRequest {
  readonly method: "GET" | "POST" | "PUT";
  /** Path and query, from /v1 on. */
  readonly path: string;
  readonly json?: unknown;
  readonly octets?: { readonly body: Uint8Array | Readable; readonly bytes: number };
  readonly accept?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** How long the server may take over its answer, where that is no usual request. */
  readonly idleMs?: number;
  readonly signal: AbortSignal;
}

export interface Transport extends Disposable {
  /** The answer's head, of status below 400. @throws the problem, `controller.unreachable`, `controller.untrusted` */
  send(asked: ApiRequest): Promise<IncomingMessage>;
  /** The answer's JSON, unchecked. */
  json(asked: ApiRequest): Promise<unknown>;
  /** The answer's bytes as they come. @throws as `send`; reading them: `controller.unreachable` where they break off */
  bytes(asked: ApiRequest): Promise<AsyncIterable<Uint8Array>>;
}

export function openTransport({ url, token, ca }: Connection): Transport {
  const agent = new Agent({ keepAlive: true, maxSockets: 4 });
  const options: RequestOptions = {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? 443 : url.port,
    ca: [ca],
    servername: tlsServerName,
    minVersion: "TLSv1.3",
    rejectUnauthorized: true,
  };

  /**
   * A kept connection may be closed by the other end just as it is used again; a fresh one then tells. Nobody knows then
   * whether it was done: what must not be done twice has a connection of its own from the start.
   */
  async function send(asked: ApiRequest): Promise<IncomingMessage> {
    const first = await attempt(asked, isRepeatable(asked.method, asked.path) ? agent : false);
    if (first !== "closed") return first;
    const second = await attempt(asked, false);
    assert(second !== "closed", "a connection of its own is used once");
    return second;
  }

  async function attempt(asked: ApiRequest, through: Agent | false): Promise<IncomingMessage | "closed"> {
    const { method, path, json, octets, accept, headers, idleMs: mayTakeMs, signal } = asked;
    const body = json === undefined ? undefined : Buffer.from(JSON.stringify(json));
    const sent = request({
      ...options,
      agent: through,
      method,
      path,
      signal,
      headers: {
        authorization: `Bearer ${token}`,
        accept: accept ?? "application/json",
        "user-agent": `bedplate/${version}`,
        ...(body === undefined ? {} : { "content-type": "application/json", "content-length": body.length }),
        ...(octets === undefined
          ? {}
          : { "content-type": "application/octet-stream", "content-length": octets.bytes }),
        ...headers,
      },
    });
    const silentMs = mayTakeMs ?? (octets === undefined ? idleMs : uploadIdleMs);
    sent.setTimeout(silentMs, () => sent.destroy(new Error(`no answer for ${silentMs / 1000} s`)));
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      sent.once("response", resolve);
      sent.once("error", reject);
    });
    // A server that refuses an upload answers early and closes: its answer counts, not our broken pipe.
    const uploaded = upload(sent, body ?? octets?.body).then(
      () => answered,
      (error: unknown) => Promise.race([answered, failLater(error, signal)]),
    );
    let answer: IncomingMessage;
    try {
      answer = await Promise.race([answered, uploaded]);
    } catch (error) {
      signal.throwIfAborted();
      sent.destroy();
      if (sent.reusedSocket && isReset(error)) return "closed";
      throw unreachable(url, error);
    }
    sent.on("error", () => {});
    if ((answer.statusCode ?? 500) < 400) return answer;
    const problem = await problemOf(answer, url);
    sent.destroy();
    throw problem;
  }

  return {
    send,
    async json(asked) {
      const answer = await send(asked);
      let text: string;
      try {
        text = await textOfBody(answer, answerBytesMax);
      } catch (error) {
        asked.signal.throwIfAborted();
        throw error instanceof BedplateError ? error : unreachable(url, error);
      }
      if (answer.statusCode === 204 || text === "") return undefined;
      try {
        return JSON.parse(text);
      } catch (cause) {
        throw new BedplateError(
          "message.invalid",
          `${url.host} answered ${asked.method} ${asked.path} with something that is not JSON.`,
          { cause },
        );
      }
    },
    async bytes(asked) {
      const answer = await send(asked);
      return (async function* () {
        try {
          yield* answer as AsyncIterable<Uint8Array>;
        } catch (error) {
          asked.signal.throwIfAborted();
          throw unreachable(url, error);
        }
      })();
    },
    [Symbol.dispose]: () => agent.destroy(),
  };
}

function isReset(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE";
}

/** Asked twice it is done once: what only reads, and commands, whose id says that they are the same. */
function isRepeatable(method: string, path: string): boolean {
  return method === "GET" || (method === "POST" && path === "/v1/commands");
}

async function upload(
  sent: ReturnType<typeof request>,
  body: Uint8Array | Readable | undefined,
): Promise<void> {
  if (body === undefined || body instanceof Uint8Array) sent.end(body);
  else await pipeline(body, sent);
}

// Long enough for an answer that is on its way to arrive.
async function failLater(error: unknown, signal: AbortSignal): Promise<never> {
  await sleep(500, signal);
  throw error;
}

async function textOfBody(answer: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bytesMax)
      throw new BedplateError("message.invalid", `The controller's answer is larger than ${bytesMax} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

const checkProblem = checker(Problem, "message.invalid", "problem answer");

async function problemOf(answer: IncomingMessage, url: URL): Promise<BedplateError> {
  try {
    const problem = checkProblem(JSON.parse(await textOfBody(answer, 1 << 20)));
    const code: Code = isCode(problem.code) ? problem.code : "internal";
    return new BedplateError(code, problem.detail === "" ? problem.title : problem.detail, {
      ...(problem.hint === undefined ? {} : { hint: problem.hint }),
      details: {
        ...problem.details,
        status: problem.status,
        ...(code === problem.code ? {} : { code: problem.code }),
      },
    });
  } catch (cause) {
    return new BedplateError(
      "internal",
      `${url.host} answered with status ${answer.statusCode} and no explanation.`,
      { cause },
    );
  }
}

const certificateErrors =
  /^(ERR_TLS_CERT|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|ERR_SSL|EPROTO)/;

function unreachable(url: URL, cause: unknown): BedplateError {
  if (cause instanceof BedplateError) return cause;
  const first = cause instanceof AggregateError ? cause.errors[0] : cause;
  const reason =
    (first as NodeJS.ErrnoException).code ?? (first instanceof Error ? first.message : String(first));
  if (certificateErrors.test(reason)) {
    return new BedplateError(
      "controller.untrusted",
      `The server at ${url.host} is not the controller that the client file trusts: ${reason}.`,
      {
        cause,
        hint: "Was the controller's state directory made anew? Then take its new client.json; else something answers in its place.",
      },
    );
  }
  return new BedplateError(
    "controller.unreachable",
    `The controller at ${url.host} does not answer: ${reason}.`,
    {
      cause,
      hint: "Is it running (`bedplate controller`), and is this its address?",
    },
  );
}
