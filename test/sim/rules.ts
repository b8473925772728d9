// The product's own decisions, imported: all that the simulated agent, executor and controller decide with. Deliberate bugs
// are put around them here, never in them.
import { admit, goingOnFault } from "../../agent/executor/admit.ts";
import { linkDuty } from "../../agent/executor/link-duty.ts";
import { createBackoff } from "../../agent/link/backoff.ts";
import { createCredit } from "../../agent/link/credit.ts";
import {
  acknowledged,
  committed,
  firstNumbers,
  isAnswered,
  opened,
  resumed,
} from "../../agent/link/outbox-rules.ts";
import { redialMs } from "../../agent/link/redial.ts";
import { createSampleQueue } from "../../agent/link/sample-queue.ts";
import { reduceOperations } from "../../agent/operations/reduce.ts";
import { contest, verdictOf } from "../../controller/link/contest.ts";
import { assignGeneration } from "../../controller/rules/generation.ts";
import { dueSteps } from "../../controller/rules/offering.ts";
import { judgeOutput, surplusPieces } from "../../controller/rules/output-rule.ts";
import { ignoredBecause, judgeRecord } from "../../controller/rules/record-rule.ts";
import { newCommandState, reduceCommand } from "../../controller/rules/reduce.ts";

export const productRules = {
  agent: {
    reduceOperations,
    outbox: { acknowledged, committed, firstNumbers, isAnswered, opened, resumed },
    createSampleQueue,
    createCredit,
    createBackoff,
    redialMs,
  },
  executor: { admit, goingOnFault, linkDuty },
  controller: {
    assignGeneration,
    dueSteps,
    judgeRecord,
    ignoredBecause,
    newCommandState,
    reduceCommand,
    judgeOutput,
    surplusPieces,
    contest,
    verdictOf,
  },
  /** What no rule says and every shell must do. */
  shell: {
    /** The controller answers when its disk has it. */
    controllerWaitsForSync: true,
    /** The agent sends a record when its disk has it. */
    agentWaitsForSync: true,
    /** The journal is read when an executor starts. */
    journalIsRemembered: true,
  },
} as const;

type Widened<T> = T extends boolean
  ? boolean
  : T extends (...values: never[]) => unknown
    ? T
    : { [K in keyof T]: Widened<T[K]> };
export type Rules = Widened<typeof productRules>;
