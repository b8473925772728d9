// What is said on the simulated link: the protocol's messages, without their bytes.
import type { KeptOffer } from "../../agent/link/outbox-rules.ts";
import type { WaitingRecord } from "./outbox.ts";

export type AgentWord =
  | {
      readonly t: "hello";
      readonly host: string;
      readonly instance: string;
      readonly bootId: string;
      readonly previousSession: string | undefined;
    }
  | { readonly t: "heartbeat"; readonly operations: number }
  | ({ readonly t: "record" } & WaitingRecord)
  | { readonly t: "batch"; readonly seq: number; readonly key: boolean }
  | { readonly t: "proof"; readonly nonce: number };

export type ControllerWord =
  | {
      readonly t: "welcome";
      readonly session: string;
      readonly epoch: number;
      readonly records: number;
      readonly samples: number;
      readonly heartbeatMs: number;
      readonly reconnectWindowMs: number;
      readonly creditBytes: number;
    }
  | { readonly t: "heartbeat" }
  | { readonly t: "ack"; readonly records: number; readonly samples: number }
  | { readonly t: "offer"; readonly offer: KeptOffer }
  | { readonly t: "pause"; readonly command: string; readonly paused: boolean }
  | { readonly t: "cancel"; readonly command: string }
  | { readonly t: "probe"; readonly nonce: number };

export const sizes = { small: 100 } as const;
