// Command documents for tests.
import { randomBytes } from "node:crypto";
import type { CommandView } from "../../protocol/api.ts";
import { uuidV7 } from "../../protocol/identifiers.ts";
import type { TestController } from "./controller.ts";

export function newCommandId(): string {
  return uuidV7(Date.now(), Uint8Array.from(randomBytes(10)));
}

/** The text of a document as a careful caller writes it; `more` replaces members. */
export function documentOf(host: string, more: Record<string, unknown> = {}): string {
  return JSON.stringify({
    bedplate: "command/1",
    id: newCommandId(),
    host,
    kind: "agent.ping",
    mode: "apply",
    arguments: {},
    limits: {},
    ...more,
  });
}

export function submit(controller: TestController, document: string) {
  return controller.call<CommandView>("POST", "/v1/commands", { json: { document, signatures: [] } });
}
