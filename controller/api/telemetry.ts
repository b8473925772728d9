// /v1/hosts/{host}/telemetry/history: what a host read in the past, as long as it is kept.
import Type from "typebox";
import { TelemetryHistoryView } from "../../protocol/api.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { UnixMs } from "../../protocol/schema.ts";
import { historyLimits, readHistory } from "../telemetry/history.ts";
import type { ApiParts, App } from "./app.ts";
import { findHost } from "./hosts.ts";
import { HostParameters, problemAnswers } from "./schemas.ts";

const Query = Type.Object(
  {
    /** Names of series, with commas between them; each with all its labels. */
    series: Type.String({
      minLength: 1,
      maxLength: 4096,
      pattern: "^[a-zA-Z_][a-zA-Z0-9_]*(,[a-zA-Z_][a-zA-Z0-9_]*)*$",
    }),
    /** By the controller's clock, in whole minutes; a quarter of an hour before `to` if absent. */
    from: Type.Optional(UnixMs),
    /** Now, if absent. */
    to: Type.Optional(UnixMs),
    /** Of each series the last value within so many seconds; all of them if absent. */
    stepSeconds: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
  },
  { additionalProperties: false },
);
const rangeMsDefault = 900_000;
/** Decoding takes the processor that the agents' connections need too. */
const readersMax = 2;

export function telemetryRoutes(app: App, { store, clock }: ApiParts): void {
  let readers = 0;
  app.get(
    "/v1/hosts/:host/telemetry/history",
    {
      config: { access: "read" },
      schema: {
        params: HostParameters,
        querystring: Query,
        response: { 200: TelemetryHistoryView, ...problemAnswers },
      },
    },
    async (request) => {
      const { series, stepSeconds = 0, to = clock.now(), from = to - rangeMsDefault } = request.query;
      const names = new Set(series.split(","));
      if (from > to || to - from > historyLimits.rangeMs)
        throw new BedplateError(
          "api.bad-request",
          `From ${from} to ${to} is no time of at most ${historyLimits.rangeMs / 3_600_000} hours.`,
        );
      if (names.size > historyLimits.names)
        throw new BedplateError("api.bad-request", `At most ${historyLimits.names} names are read at once.`);
      const { id } = await findHost(store, request.params.host);
      if (readers >= readersMax)
        throw new BedplateError("api.rate-limited", "Others read telemetry of the past just now.");
      readers += 1;
      try {
        const query = { host: id, from, to, names, stepMs: stepSeconds * 1000 };
        const pause = () => new Promise<void>((resolve) => void clock.after(0, resolve));
        return { from, to, series: await readHistory(store.telemetry, query, pause) };
      } finally {
        readers -= 1;
      }
    },
  );
}
