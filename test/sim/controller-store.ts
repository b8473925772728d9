// What the simulated controller keeps, and its transactions: the product's rules over immutable states, as controller/store
// applies them in SQLite.

import type { SentInSession, Step } from "../../controller/rules/offering.ts";
import type { OutputPiece } from "../../controller/rules/output-rule.ts";
import type { CommandEvent, CommandState } from "../../controller/rules/reduce.ts";
import { type Command, effectOf, isTerminal } from "../../protocol/commands.ts";
import type { Standing } from "../../protocol/schema.ts";
import type { WaitingRecord } from "./outbox.ts";
import type { Rules } from "./rules.ts";

export interface KeptCommand extends CommandState {
  readonly id: string;
  readonly host: string;
  readonly document: Uint8Array;
  readonly changesState: boolean;
  readonly notAfter: number | null;
  readonly signatures: number;
  readonly signaturesWanted: number;
  readonly generation: number | null;
  readonly outputEnd: number;
  readonly pieces: readonly OutputPiece[];
}

/** Records as they were applied, the newest first: for the checker, and subject to every crash like the rest. */
export interface AppliedRecord {
  readonly uid: number;
  readonly instance: string;
  readonly seq: number;
  /** What it says, of records that are said once. */
  readonly says: string | undefined;
  /** Records before it that were said to be lost. */
  readonly lost: number;
  readonly previous: AppliedRecord | null;
}

export interface OutboxRow {
  readonly records: number;
  readonly samples: number;
  readonly restored: boolean;
}

export interface HostRow {
  readonly generation: number;
  readonly standing: Standing;
  readonly outboxes: ReadonlyMap<string, OutboxRow>;
  readonly gaps: readonly { readonly from: number; readonly to: number }[];
  readonly applied: AppliedRecord | null;
  /** Batches stored. */
  readonly batches: readonly number[];
  /** Records that were said to be lost. */
  readonly lost: number;
}

export interface ControllerState {
  readonly epoch: number;
  /** In order of creation. */
  readonly commands: ReadonlyMap<string, KeptCommand>;
  readonly hosts: ReadonlyMap<string, HostRow>;
}

export function firstControllerState(hosts: readonly string[]): ControllerState {
  const row: HostRow = {
    generation: 0,
    standing: "approved",
    outboxes: new Map(),
    gaps: [],
    applied: null,
    batches: [],
    lost: 0,
  };
  return { epoch: 1, commands: new Map(), hosts: new Map(hosts.map((id) => [id, row])) };
}

export function withCommand(state: ControllerState, command: KeptCommand): ControllerState {
  return { ...state, commands: new Map(state.commands).set(command.id, command) };
}

export function withHost(state: ControllerState, id: string, row: HostRow): ControllerState {
  return { ...state, hosts: new Map(state.hosts).set(id, row) };
}

export function created(
  rules: Rules,
  state: ControllerState,
  {
    command,
    document,
    signaturesWanted,
  }: { command: Command; document: Uint8Array; signaturesWanted: number },
  at: number,
): ControllerState {
  return withCommand(state, {
    ...rules.controller.newCommandState(at),
    ...{ id: command.id, host: command.host, document, signatures: 0, signaturesWanted },
    changesState: effectOf(command) !== "read",
    notAfter: command.limits.notAfter ?? null,
    ...{ generation: null, outputEnd: 0, pieces: [] },
  });
}

export function applied(
  rules: Rules,
  state: ControllerState,
  id: string,
  event: CommandEvent,
  at: number,
): ControllerState {
  const before = state.commands.get(id);
  if (before === undefined) return state;
  const after = rules.controller.reduceCommand(before, event, at);
  return after === before ? state : withCommand(state, { ...before, ...after });
}

/** The host's session begins. */
export function connected(state: ControllerState, host: string, instance: string): ControllerState {
  const row = state.hosts.get(host)!;
  if (row.outboxes.has(instance)) return state;
  const outboxes = new Map(row.outboxes).set(instance, { records: 0, samples: 0, restored: false });
  return withHost(state, host, { ...row, outboxes });
}

export interface DueOffers {
  readonly state: ControllerState;
  readonly steps: readonly Step[];
  readonly rest: "none" | "next-round" | "in-flight";
}

export function offersDue(
  rules: Rules,
  before: ControllerState,
  host: string,
  sent: SentInSession,
  nowMs: number,
  at: number,
): DueOffers {
  const open = [...before.commands.values()].filter((each) => each.host === host && !isTerminal(each.state));
  const { steps, rest } = rules.controller.dueSteps(
    open.map((each) => ({ ...each, documentBytes: each.document.length })),
    before.hosts.get(host)!.standing,
    sent,
    nowMs,
  );
  let state = before;
  for (const { step, id } of steps) {
    if (step !== "offer") continue;
    const row = state.hosts.get(host)!;
    const command = state.commands.get(id)!;
    const assigned = rules.controller.assignGeneration(command, row.generation);
    state = withHost(state, host, { ...row, generation: assigned.host });
    state = withCommand(state, { ...command, generation: assigned.generation });
    state = applied(rules, state, id, { type: "offered" }, at);
  }
  return { state, steps, rest };
}

export interface Taken {
  readonly state: ControllerState;
  readonly status: "stored" | "known" | "hole";
  readonly mark: number;
  readonly lost: number;
}

export function recordTaken(
  rules: Rules,
  before: ControllerState,
  { host, instance }: { readonly host: string; readonly instance: string },
  { seq, body, uid }: WaitingRecord,
  place: "first" | "later",
  at: number,
): Taken {
  const row = before.hosts.get(host)!;
  const outbox = row.outboxes.get(instance);
  const verdict = rules.controller.judgeRecord(outbox, seq, place);
  if (verdict.status !== "next")
    return { state: before, status: verdict.status, mark: verdict.mark, lost: 0 };
  let state = before;
  if (body.type === "gap") {
    state = withHost(state, host, { ...row, gaps: [...row.gaps, { from: body.from, to: body.to }] });
  } else if ("command" in body) {
    const ignored = rules.controller.ignoredBecause(
      { command: body.command, host },
      { commandHost: state.commands.get(body.command)?.host, standing: row.standing },
    );
    if (ignored === undefined) {
      state =
        body.type === "output"
          ? printed(rules, state, body.command, {
              stream: body.stream,
              offset: body.offset,
              bytes: base64Bytes(body.data),
            })
          : applied(rules, state, body.command, body, at);
    }
  }
  const now = state.hosts.get(host)!;
  const outboxes = new Map(now.outboxes).set(instance, {
    records: verdict.mark,
    samples: outbox?.samples ?? 0,
    restored: false,
  });
  state = withHost(state, host, {
    ...{ ...now, outboxes, lost: now.lost + verdict.lost },
    applied: { uid, instance, seq, says: saysOnce(body), lost: verdict.lost, previous: now.applied },
  });
  return { state, status: "stored", mark: verdict.mark, lost: verdict.lost };
}

export function samplesTaken(
  state: ControllerState,
  { host, instance }: { readonly host: string; readonly instance: string },
  seq: number,
): ControllerState {
  const row = state.hosts.get(host)!;
  const outbox = row.outboxes.get(instance)!;
  const outboxes = new Map(row.outboxes).set(instance, { ...outbox, samples: Math.max(outbox.samples, seq) });
  return withHost(state, host, { ...row, outboxes, batches: [...row.batches, seq] });
}

function printed(rules: Rules, state: ControllerState, id: string, piece: OutputPiece): ControllerState {
  const command = state.commands.get(id)!;
  const verdict = rules.controller.judgeOutput(command.outputEnd, command.pieces.at(-1), piece);
  if (verdict.do === "nothing") return state;
  const fresh = { ...piece, offset: piece.offset + verdict.skip, bytes: piece.bytes - verdict.skip };
  const newest = command.pieces.at(-1);
  const pieces = verdict.merge
    ? [...command.pieces.slice(0, -1), { ...newest!, bytes: newest!.bytes + fresh.bytes }]
    : [...command.pieces, fresh];
  const surplus = rules.controller.surplusPieces(pieces.map(({ bytes }) => bytes));
  return withCommand(state, { ...command, outputEnd: verdict.end, pieces: pieces.slice(surplus) });
}

/**
 * As restoring a backup does it: the epoch goes up, each host's next record may leave a hole, once, and what waited may have
 * been sent since.
 */
export function restored(backup: ControllerState): ControllerState {
  const hosts = new Map(
    [...backup.hosts].map(([id, row]) => [
      id,
      {
        ...row,
        outboxes: new Map(
          [...row.outboxes].map(([instance, outbox]) => [instance, { ...outbox, restored: true }]),
        ),
      },
    ]),
  );
  const commands = new Map(
    [...backup.commands].map(([id, command]) => [
      id,
      command.state === "waiting" ? { ...command, setBack: true } : command,
    ]),
  );
  return { ...backup, epoch: backup.epoch + 1, hosts, commands };
}

function saysOnce(body: WaitingRecord["body"]): string | undefined {
  switch (body.type) {
    case "received":
    case "accepted":
    case "refused":
    case "result":
      return `${body.type} ${body.command}`;
    case "running":
      return `${body.type} ${body.run} ${body.command}`;
    default:
      return undefined;
  }
}

function base64Bytes(data: string): number {
  return (data.length / 4) * 3 - (data.endsWith("==") ? 2 : data.endsWith("=") ? 1 : 0);
}
