// How often agents speak and how slowly they return, by how many there are. Pure.

export const scale = {
  /** Heartbeats that all agents together send in a second. */
  heartbeatsPerSecond: 50,
  /** Agents that may return in a second, by the cost of a handshake on one core. */
  returnsPerSecond: 200,
  /** As the wire takes it. */
  heartbeatMsMax: 3_600_000,
  returnWindowMsMin: 5000,
} as const;

/** An agent's interval: as configured, longer where the fleet would speak too often. */
export function heartbeatMsFor(agents: number, configuredMs: number): number {
  return Math.min(
    scale.heartbeatMsMax,
    Math.max(configuredMs, Math.ceil((1000 * agents) / scale.heartbeatsPerSecond)),
  );
}

/** The window in which so many agents come back without queueing. */
export function returnWindowMsFor(agents: number, minMs: number = scale.returnWindowMsMin): number {
  return Math.max(minMs, Math.ceil((1000 * agents) / scale.returnsPerSecond));
}
