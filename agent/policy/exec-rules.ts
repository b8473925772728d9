// Which programs host.exec may run by the policy: an allow-list of argument vectors. Pure.
import type { ErrorReport } from "../../protocol/errors.ts";

export interface ExecRules {
  /** Argument vectors: `*` stands for one whole argument, a last `**` for any number. The program itself has neither. */
  readonly argv: readonly (readonly string[])[];
  /** Whether a shell may be the program. */
  readonly shell: boolean;
  /** Names of variables that a command may set: a preload or a path could turn any program into another. */
  readonly environment: readonly string[];
  /** Where programs may start besides `/`: many a one does what it finds in its directory. */
  readonly directories: readonly string[];
}

export interface AskedProgram {
  readonly argv: readonly string[];
  readonly directory: string;
  readonly environment: readonly string[];
}

const shells = new Set(["sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "mksh", "csh", "tcsh", "fish"]);

/** Why the program may not run, if so. `rules` null: the policy has no list. */
export function execFault(rules: ExecRules | null, asked: AskedProgram): ErrorReport | undefined {
  const refuse = (message: string, hint: string): ErrorReport => ({
    code: "policy.exec-not-allowed",
    message,
    hint,
    details: { argv: asked.argv.slice(0, 16).map((argument) => argument.slice(0, 256)) },
  });
  const where = '[kinds."host.exec"] of the host\'s policy file';
  if (rules === null)
    return refuse("This host's policy allows no program: host.exec is off.", `${where} lists what may run.`);
  const shell = shellOf(asked.argv);
  if (shell !== undefined && !rules.shell)
    return refuse(
      `${shell} is a shell, and this host's policy allows none.`,
      `shell = true in ${where} allows it.`,
    );
  if (!rules.argv.some((pattern) => matchesVector(pattern, asked.argv)))
    return refuse(
      "No argument vector of this host's policy matches the program and its arguments.",
      `${where} lists what may run.`,
    );
  if (asked.directory !== "/" && !rules.directories.includes(asked.directory))
    return refuse(
      `This host's policy does not let a program start in ${asked.directory.slice(0, 256)}.`,
      `directories in ${where} names those that it may start in, besides /.`,
    );
  const variable = asked.environment.find((name) => !rules.environment.includes(name));
  if (variable === undefined) return undefined;
  return refuse(
    `This host's policy does not let a command set the variable ${variable}.`,
    `environment in ${where} names those that it may.`,
  );
}

export function matchesVector(pattern: readonly string[], argv: readonly string[]): boolean {
  const open = pattern.at(-1) === "**";
  const fixed = open ? pattern.slice(0, -1) : pattern;
  if (open ? argv.length < fixed.length : argv.length !== fixed.length) return false;
  return fixed.every((wanted, index) => (index > 0 && wanted === "*") || wanted === argv[index]);
}

/** The shell that a vector starts, by its name: also busybox as one. A program that starts one in turn is the list's affair. */
function shellOf([program = "", first]: readonly string[]): string | undefined {
  const name = program.slice(program.lastIndexOf("/") + 1);
  if (shells.has(name)) return program;
  return name === "busybox" && first !== undefined && shells.has(first) ? `${program} ${first}` : undefined;
}
