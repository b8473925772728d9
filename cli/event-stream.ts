// Server-sent events (WHATWG HTML, section 9.2): bytes in, whole events out. Pure.
import { BedplateError } from "../protocol/errors.ts";

export interface StreamEvent {
  readonly event: string;
  readonly data: string;
  /** The id of this event or the last one before it. */
  readonly id: string;
}

const eventCharactersMax = 8 << 20;

/** Takes text in any pieces; returns the events that each piece completes. */
export function createEventParser(): (text: string) => StreamEvent[] {
  let rest = "";
  let event = "";
  let data: string[] = [];
  let id = "";
  let held = 0;
  return (text) => {
    const complete: StreamEvent[] = [];
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0)
          complete.push({ event: event === "" ? "message" : event, data: data.join("\n"), id });
        event = "";
        data = [];
        held = 0;
        continue;
      }
      held += line.length;
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "event") event = value;
      else if (field === "data") data.push(value);
      else if (field === "id") id = value;
    }
    if (rest.length + held > eventCharactersMax) {
      throw new BedplateError(
        "message.invalid",
        `An event of the controller is longer than ${eventCharactersMax} characters.`,
      );
    }
    return complete;
  };
}
