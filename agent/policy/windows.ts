// Maintenance windows of the policy, in UTC: whether one is open, and when it opens or closes next. Pure.

export const days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;
export type Day = (typeof days)[number];

export interface Window {
  readonly name: string;
  /** Days on which it opens; one that crosses midnight belongs to the day before. */
  readonly days: readonly Day[];
  /** Minutes after midnight. `toMinute` at or before `fromMinute` means the day after. */
  readonly fromMinute: number;
  readonly toMinute: number;
}

export type WindowNow =
  | { readonly open: true; readonly closesAt: number }
  | { readonly open: false; readonly opensAt: number };

const minuteMs = 60_000;
const dayMs = 86_400_000;
export const minutesOfDay = 1440;

/** Minutes after midnight of `22:00`; undefined when the text is no time of day. `24:00` is the day's end. */
export function minuteOf(text: string): number | undefined {
  const match = /^(\d\d):(\d\d)$/.exec(text);
  if (match === null) return undefined;
  const [hours, minutes] = [Number(match[1]), Number(match[2])];
  const minute = hours * 60 + minutes;
  return minutes < 60 && minute <= minutesOfDay ? minute : undefined;
}

/** The window at `nowMs`, which opens within the next week if it is not open. */
export function windowAt({ days: on, fromMinute, toMinute }: Window, nowMs: number): WindowNow {
  const minutes = toMinute > fromMinute ? toMinute - fromMinute : toMinute + minutesOfDay - fromMinute;
  const today = Math.floor(nowMs / dayMs);
  let opensAt = Number.POSITIVE_INFINITY;
  // From yesterday, whose window may still be open, to this day of next week.
  for (let day = today - 1; day <= today + 7; day++) {
    // 1970-01-01 was a Thursday.
    if (!on.includes(days[(((day + 4) % 7) + 7) % 7]!)) continue;
    const begin = day * dayMs + fromMinute * minuteMs;
    const end = begin + minutes * minuteMs;
    if (begin <= nowMs && nowMs < end) return { open: true, closesAt: end };
    if (begin > nowMs) opensAt = Math.min(opensAt, begin);
  }
  return { open: false, opensAt };
}
