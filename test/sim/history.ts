// What happened in a run, for people: kept cheaply, and rendered only when somebody wants to read it.

export interface Happened {
  readonly at: number;
  /** host-0/agent, host-0/executor, controller, caller, fault */
  readonly who: string;
  readonly what: string;
  /** The command that it is about. */
  readonly command: string | undefined;
}

export interface History {
  readonly entries: readonly Happened[];
  note(who: string, what: string, command?: string): void;
}

export function createHistory(now: () => number, keep: boolean): History {
  const entries: Happened[] = [];
  return {
    entries,
    note(who, what, command) {
      if (keep) entries.push({ at: now(), who, what, command });
    },
  };
}

/** The lines that matter for the commands of a finding: theirs, and every fault. Without a command: all. */
export function render(entries: readonly Happened[], commands: ReadonlySet<string>): string {
  const wanted = entries.filter(
    ({ command, who }) =>
      commands.size === 0 || who === "fault" || (command !== undefined && commands.has(command)),
  );
  return wanted
    .map(({ at, who, what, command }) => {
      const time = (at / 1000).toFixed(3).padStart(9);
      return `${time}  ${who.padEnd(18)} ${what}${command === undefined ? "" : `  [${short(command)}]`}`;
    })
    .join("\n");
}

/** The last digits tell the commands of a run apart. */
export function short(command: string): string {
  return command.slice(-4);
}
