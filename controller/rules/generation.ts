// Which generation a command is offered with, pure. Hosts refuse a state-changing command of a lower one than they have seen.

export interface GenerationStep {
  /** The command's, kept for every later offer of it. */
  readonly generation: number;
  /** The host's, to be set only while it is still what was read: compare and set, else decide again. */
  readonly host: number;
}

/**
 * A command gets its generation at its first offer and keeps it, so that one that waits does not go stale. What changes
 * state takes the host's next one, in the order of first offers; a read takes the one that is.
 */
export function assignGeneration(
  command: { readonly generation: number | null; readonly changesState: boolean },
  hostGeneration: number,
): GenerationStep {
  if (command.generation !== null) return { generation: command.generation, host: hostGeneration };
  const generation = command.changesState ? hostGeneration + 1 : hostGeneration;
  return { generation, host: generation };
}
