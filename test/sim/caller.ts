// Those who ask for things over the API: they retry what was not answered, with the same id, and change their minds.
import { type Command, encodeCommand } from "../../protocol/commands.ts";
import type { Checker } from "./checker.ts";
import type { History } from "./history.ts";
import type { ControllerHouse } from "./house.ts";
import { beginsAt, type PlannedCommand } from "./plan.ts";
import { program } from "./policy.ts";
import type { Random } from "./random.ts";
import type { World } from "./world.ts";

const retryMs = { low: 1_000, high: 8_000 } as const;
const triesMax = 40;

export interface CallerParts {
  readonly world: World;
  readonly random: Random;
  readonly history: History;
  readonly house: ControllerHouse;
  readonly checker: Checker;
}

export function ask(planned: PlannedCommand, host: string, parts: CallerParts): void {
  const { world, house, checker, history } = parts;
  const document = encodeCommand(commandOf(planned, host));
  const { id, signedAfterMs, cancelAfterMs, pause } = planned;
  world.after(planned.at, undefined, () =>
    insist(
      parts,
      (answered) => house.controller?.submit(document, signedAfterMs === undefined ? 0 : 1, () => answered()),
      () => {
        history.note("caller", "knows that the command is taken", id);
        checker.callerTold(id);
        if (signedAfterMs !== undefined) world.after(signedAfterMs, undefined, () => sign(id, parts));
        if (cancelAfterMs !== undefined)
          world.after(cancelAfterMs, undefined, () =>
            insist(
              parts,
              (answered) => house.controller?.ask(id, { type: "ask-cancel" }, () => answered()),
              () => history.note("caller", "knows that the cancel is taken", id),
            ),
          );
        if (pause !== undefined) {
          const resume = () => setPause(id, false, parts);
          const pauses = () => setPause(id, true, parts, () => world.after(pause.ms, undefined, resume));
          world.after(pause.afterMs, undefined, pauses);
        }
      },
    ),
  );
}

export function setPause(id: string, paused: boolean, parts: CallerParts, then = () => {}): void {
  insist(
    parts,
    (answered) => parts.house.controller?.ask(id, { type: "ask-pause", paused }, answered),
    () => {
      parts.history.note("caller", `knows that ${paused ? "pausing" : "resuming"} is taken`, id);
      then();
    },
  );
}

/** Whoever signs does so again where the controller has forgotten it. */
export function sign(id: string, parts: CallerParts): void {
  insist(
    parts,
    (answered) => parts.house.controller?.sign(id, answered),
    () => {},
  );
}

/** A request may be lost on its way there or back; it is made again until it is answered. */
function insist(
  { world, random }: CallerParts,
  request: (answered: () => void) => void,
  done: () => void,
): void {
  let answered = false;
  const attempt = (tries: number) => {
    if (answered || tries === triesMax) return;
    const lostOnTheWay = random.chance(0.05);
    const lostOnTheWayBack = random.chance(0.05);
    world.after(random.between(1, 50), undefined, () => {
      if (lostOnTheWay) return;
      request(() => {
        world.after(random.between(1, 50), undefined, () => {
          if (lostOnTheWayBack || answered) return;
          answered = true;
          done();
        });
      });
    });
    world.after(random.between(retryMs.low, retryMs.high), undefined, () => attempt(tries + 1));
  };
  attempt(0);
}

function commandOf(planned: PlannedCommand, host: string): Command {
  const { id, kind, startWithinSeconds, notAfterMs, onLinkLost, at } = planned;
  const envelope = {
    id,
    host,
    mode: "apply",
    limits: {
      ...(startWithinSeconds === undefined ? {} : { startWithinSeconds }),
      ...(notAfterMs === undefined ? {} : { notAfter: beginsAt + at + notAfterMs }),
      ...(onLinkLost === undefined ? {} : { onLinkLost }),
    },
  } as const;
  switch (kind) {
    case "agent.ping":
    case "host.inventory":
      return { ...envelope, kind, arguments: {} };
    case "host.exec":
      return { ...envelope, kind, arguments: { argv: [program, id] } };
    case "host.reboot":
      return { ...envelope, kind, arguments: { deadlineSeconds: 900 } };
    case "image.deploy":
      return {
        ...envelope,
        kind,
        arguments: {
          image: { root: "a".repeat(64), sizeBytes: 1 << 20 },
          disk: { serial: "S1" },
          fingerprint: {
            ...{ serial: "S1", wwn: null, backing: null, model: null, sizeBytes: 1 << 30 },
            ...{ logicalSectorBytes: 512, physicalSectorBytes: 512, diskSequence: 1, bootId: "b" },
            edges: "b".repeat(64),
          },
        },
      };
  }
}
