// One finding about this machine.
export interface Check {
  readonly name: string;
  readonly status: "ok" | "missing";
  /** Without it nothing works; else what it costs is said. */
  readonly essential: boolean;
  /** What was found, in a few words. */
  readonly found: string;
  /** What its absence, or the state it is in, costs; null when it costs nothing. */
  readonly costs: string | null;
}

export function ok(name: string, found: string, costs: string | null = null): Check {
  return { name, status: "ok", essential: false, found, costs };
}

export function missing(name: string, found: string, costs: string): Check {
  return { name, status: "missing", essential: false, found, costs };
}

export function essentialMissing(name: string, found: string, costs: string): Check {
  return { name, status: "missing", essential: true, found, costs };
}

export function reasonOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? (error instanceof Error ? error.message : String(error));
}
