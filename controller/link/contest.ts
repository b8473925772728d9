// Two connections with one host's key: whether the newer one simply takes the place, and what follows from who answers.
// Pure; a simulator drives these very functions.

/** Both ends are asked, and have so long to answer. */
export const answerMsMax = 5000;

export interface Contender {
  readonly session: string;
  /** Made with the agent's state directory: a copy of the directory has it too. */
  readonly instance: string;
  /** A copy on another machine has another one. */
  readonly bootId: string;
}

/**
 * `supersede`: the newer one is the same agent, come back. `probe`: it may be another machine, so both are asked.
 * A rack whose links are half-open comes back as the same agents, and nobody is asked. An agent that was running before
 * the present session began and comes back while that lives is another process: whoever has a copy shows within minutes.
 */
export function contest(
  present: Contender & { readonly alive: boolean },
  newcomer: Contender & { readonly previousSession: string | undefined },
): "supersede" | "probe" {
  if (!present.alive) return "supersede";
  // Only the process that had that session knows its name.
  if (newcomer.previousSession === present.session) return "supersede";
  const same = newcomer.instance === present.instance && newcomer.bootId === present.bootId;
  return same && newcomer.previousSession === undefined ? "supersede" : "probe";
}

/** `newcomer`: it takes the place. `present`: the newer one is gone. `both`: two machines have the key. */
export type Verdict = "newcomer" | "present" | "both";

export function verdictOf(answered: { readonly present: boolean; readonly newcomer: boolean }): Verdict {
  if (answered.present && answered.newcomer) return "both";
  // Neither answered: the one before is as good as gone, and the newer one was heard last.
  return answered.present ? "present" : "newcomer";
}
