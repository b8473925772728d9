// Pieces that schemas share, and checking a value against one.
import Type, { type Static, type TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { utf8 } from "./bytes.ts";
import type { Code } from "./codes.ts";
import { BedplateError, type ErrorReport, reportOf } from "./errors.ts";
import { limits } from "./limits.ts";

/** A whole number that a JavaScript number holds exactly. */
export const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
/** Milliseconds since 1970-01-01 UTC by the sender's clock. */
export const UnixMs = Type.Integer({ minimum: -8_640_000_000_000_000, maximum: 8_640_000_000_000_000 });
export const Name = Type.String({
  minLength: 1,
  maxLength: limits.nameLengthMax,
  pattern: "^[A-Za-z0-9][A-Za-z0-9._:-]*$",
});
/** SHA-256 or BLAKE3 as lower-case hexadecimal. */
export const Digest = Type.String({ pattern: "^[0-9a-f]{64}$" });
/** SHA-256 of a host's 32-byte Ed25519 link key, lower-case hexadecimal: the host's name in everything signed. */
export const HostId = Digest;
/** Of an SSH key, as `ssh-keygen -lf` prints it. */
export const Fingerprint = Type.String({ pattern: "^SHA256:[A-Za-z0-9+/]{43}$" });
/**
 * Whether a host may work: it waits for approval, it was approved, two machines answer with its key and it may only be
 * read from, or its key is good for nothing any more.
 */
export const Standing = Type.Union([
  Type.Literal("pending"),
  Type.Literal("approved"),
  Type.Literal("quarantined"),
  Type.Literal("revoked"),
]);
export type Standing = Static<typeof Standing>;
/** A UUID version 7 (RFC 9562), minted by whoever asks. */
export const CommandId = Type.String({
  pattern: "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
});
const lineLengthMax = 4096;
/** Free text that people read. */
export const Line = Type.String({ maxLength: lineLengthMax });

/** An error as it travels; `code` is open, since a newer peer may know more of them. */
export const Report = Type.Object({
  code: Type.String({ pattern: "^[a-z0-9.-]{1,64}$" }),
  message: Line,
  hint: Type.Optional(Line),
  details: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
});

/** What was thrown, as an error that fits `Report` and leaves a result room for the rest. */
export function boundedReport(error: unknown): ErrorReport {
  const report = reportOf(error);
  const small = utf8(JSON.stringify(report.details ?? {})).length <= limits.resultBytesMax / 2;
  return {
    code: report.code,
    message: report.message.slice(0, lineLengthMax),
    ...(report.hint === undefined ? {} : { hint: report.hint.slice(0, lineLengthMax) }),
    ...(report.details === undefined || !small ? {} : { details: report.details }),
  };
}

const unchecked = (length: number) =>
  Type.Refine(
    Type.Unknown(),
    (value) => value instanceof Uint8Array && (length < 0 || value.length === length),
    () => `must be ${length < 0 ? "" : `${length} `}bytes`,
  );

/** A byte string (MessagePack bin) of exactly `length` bytes. */
export function FixedBytes(length: number) {
  return Type.Unsafe<Uint8Array>(unchecked(length));
}
/** A byte string (MessagePack bin) of any length. */
export const Bytes = Type.Unsafe<Uint8Array>(unchecked(-1));

/**
 * A checker for `schema`: returns the value typed, unknown members kept.
 * @throws `code` naming the first member that does not fit and why
 */
export function checker<T extends TSchema>(
  schema: T,
  code: Code,
  what: string,
): (value: unknown) => Static<T> {
  // When first needed: a process knows many schemas and meets few.
  let compiled: ReturnType<typeof Compile<T>> | undefined;
  return (value) => {
    compiled ??= Compile(schema);
    if (compiled.Check(value)) return value as Static<T>;
    const [first] = compiled.Errors(value);
    const where =
      first === undefined || first.instancePath === "" ? "" : ` at ${first.instancePath.slice(0, 200)}`;
    throw new BedplateError(
      code,
      `The ${what} is not valid${where}: ${first?.message ?? "it does not match its schema"}.`,
    );
  };
}
