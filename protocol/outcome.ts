// How an operation can end, and with it each of several things that one is about.
import Type, { type Static } from "typebox";

export const Outcome = Type.Union([
  Type.Literal("succeeded"),
  Type.Literal("failed"),
  Type.Literal("cancelled"),
  Type.Literal("timed-out"),
  Type.Literal("indeterminate"),
]);
export type Outcome = Static<typeof Outcome>;
