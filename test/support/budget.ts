// How long a suite that draws lots goes on, and from which seed: each prints it, and is repeated with BEDPLATE_SEED.

export const seed = Number(process.env.BEDPLATE_SEED ?? Date.now() % 2 ** 31);
export const budgetSeconds = Number(process.env.BEDPLATE_BUDGET_SECONDS ?? 8);
/** Also on a machine that does other things. */
export const timeoutMs = 900_000 + budgetSeconds * 2000;
