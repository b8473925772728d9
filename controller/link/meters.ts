// What the link counts of itself, for /metrics.
import type { CloseName } from "../../protocol/codes.ts";

export class LinkMeters {
  receivedBytes = 0;
  sentBytes = 0;
  messages = 0;
  records = 0;
  batches = 0;
  /** Batches that could not be read for want of the one before them. */
  batchesDropped = 0;
  /** Connections refused before the handshake: too many at once. */
  refused = 0;
  readonly closes = new Map<CloseName, number>();

  countClose(name: CloseName): void {
    this.closes.set(name, (this.closes.get(name) ?? 0) + 1);
  }
}
