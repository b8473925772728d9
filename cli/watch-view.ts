// The live view as lines of text for a terminal of a given size. Pure.
import { formatBytes, formatSeconds, formatTime, table } from "./output.ts";
import { busyShare, type Figures, figuresOf, type WatchState } from "./watch-figures.ts";

/** A sample is due each second: beyond this something is wrong. */
const quietSecondsMax = 3;
const barColumnsMax = 40;
const cpuCellColumns = 20;

/** At most `height` lines of at most `width` characters, without control characters. What is least needed goes first. */
export function renderWatch(state: WatchState, width: number, height: number): string[] {
  if (height <= 0 || width <= 0) return [];
  const figures = figuresOf(state);
  const lines = [headLine(state, figures)];
  const footer = "q quits";
  if (figures === null) {
    lines.push("", state.online ? "Waiting for the first sample." : "The host is offline; waiting for it.");
  } else {
    const room = () => height - lines.length - 1;
    lines.push(...summaryLines(figures, width));
    const cpus = cpuLines(figures, width);
    // A machine of 256 processors must not push its disks out of sight: at most half of what is left.
    const cpuRoom = Math.max(0, Math.floor(room() / 2) - 1);
    if (cpus.length > 0 && cpuRoom > 0) lines.push("", ...cut(cpus, cpuRoom, "rows of processors"));
    const [disks, networks] = [diskLines(figures), networkLines(figures)];
    const diskRoom = Math.max(0, Math.max(Math.floor(room() / 2), room() - networks.length - 1) - 1);
    if (disks.length > 0 && diskRoom > 1) lines.push("", ...cut(disks, diskRoom, "disks"));
    const networkRoom = room() - 1;
    if (networks.length > 0 && networkRoom > 1) lines.push("", ...cut(networks, networkRoom, "interfaces"));
  }
  const shown = lines.slice(0, Math.max(1, height - 1));
  if (height > 1) {
    while (shown.length < height - 1) shown.push("");
    shown.push(footer);
  }
  return shown.map((line) => printable(line).slice(0, width).trimEnd());
}

function headLine({ host, quietSeconds }: WatchState, figures: Figures | null): string {
  const parts = [
    `bedplate  ${host}`,
    ...(figures === null ? [] : [formatTime(figures.at)]),
    ...(figures === null || figures.uptimeSeconds === null
      ? []
      : [`up ${formatSeconds(figures.uptimeSeconds)}`]),
    ...(quietSeconds > quietSecondsMax ? [`NO SAMPLE FOR ${Math.floor(quietSeconds)} s`] : []),
  ];
  return parts.join("   ");
}

function summaryLines(figures: Figures, width: number): string[] {
  const { cpu, memory, swap, loads, pressure, running, blocked, contextSwitches, interrupts, forks } =
    figures;
  const lines: string[] = [];
  const barColumns = Math.max(8, Math.min(barColumnsMax, width - 50));
  if (cpu !== null) {
    const modes = (["user", "system", "irq", "steal", "iowait"] as const).map(
      (mode) => `${mode} ${percent(cpu[mode]).trim()}`,
    );
    lines.push(
      `cpu       ${bar(busyShare(cpu), barColumns)} ${percent(busyShare(cpu))}   ${modes.join("  ")}`,
    );
  }
  if (memory !== null && memory.total > 0) {
    const share = memory.used / memory.total;
    lines.push(
      `memory    ${bar(share, barColumns)} ${percent(share)}   ${formatBytes(memory.used)} of ${formatBytes(memory.total)}, cached ${formatBytes(memory.cached)}`,
    );
  }
  if (swap !== null && swap.total > 0) {
    const share = swap.used / swap.total;
    lines.push(
      `swap      ${bar(share, barColumns)} ${percent(share)}   ${formatBytes(swap.used)} of ${formatBytes(swap.total)}`,
    );
  }
  if (loads.length > 0) lines.push(`load      ${loads.map((load) => load.toFixed(2)).join("  ")}`);
  if (pressure.length > 0) {
    lines.push(
      `pressure  ${pressure.map(({ resource, share }) => `${resource} ${(share * 100).toFixed(1)}%`).join("  ")}`,
    );
  }
  const tasks = [
    ...(running === null ? [] : [`${running} running`]),
    ...(blocked === null ? [] : [`${blocked} blocked`]),
    ...(forks === null ? [] : [`${count(forks)} forks/s`]),
    ...(contextSwitches === null ? [] : [`${count(contextSwitches)} switches/s`]),
    ...(interrupts === null ? [] : [`${count(interrupts)} interrupts/s`]),
  ];
  if (tasks.length > 0) lines.push(`tasks     ${tasks.join("  ")}`);
  return lines;
}

/** As many processors beside each other as fit. */
function cpuLines({ cpus }: Figures, width: number): string[] {
  if (cpus.length < 2) return [];
  const columns = Math.max(1, Math.floor(width / (cpuCellColumns + 2)));
  const digits = Math.min(6, Math.max(...cpus.map(({ cpu }) => cpu.length)));
  const cells = cpus.map(({ cpu, shares }) => {
    const share = busyShare(shares);
    return `${cpu.slice(0, digits).padStart(digits)} ${bar(share, cpuCellColumns - digits - 6)} ${percent(share)}`;
  });
  const rows = Math.ceil(cells.length / columns);
  return Array.from({ length: rows }, (_, row) => cells.slice(row * columns, (row + 1) * columns).join("  "));
}

function diskLines({ disks }: Figures): string[] {
  if (disks.length === 0) return [];
  return table(
    busiestFirst(disks, (disk) => disk.busy),
    [
      { title: "DISK", of: (disk) => disk.device },
      { title: "READ", of: (disk) => perSecond(disk.readBytes), align: "right" },
      { title: "WRITTEN", of: (disk) => perSecond(disk.writtenBytes), align: "right" },
      { title: "OPERATIONS", of: (disk) => `${count(disk.operations)}/s`, align: "right" },
      { title: "BUSY", of: (disk) => percent(disk.busy), align: "right" },
    ],
  ).split("\n");
}

function networkLines({ networks }: Figures): string[] {
  if (networks.length === 0) return [];
  return table(
    busiestFirst(networks, (one) => one.receivedBytes + one.transmittedBytes),
    [
      { title: "INTERFACE", of: (one) => one.device },
      { title: "RECEIVED", of: (one) => perSecond(one.receivedBytes), align: "right" },
      { title: "TRANSMITTED", of: (one) => perSecond(one.transmittedBytes), align: "right" },
      {
        title: "PACKETS",
        of: (one) => `${count(one.receivedPackets)}/${count(one.transmittedPackets)}`,
        align: "right",
      },
      { title: "LOST", of: (one) => `${count(one.lost)}/s`, align: "right" },
    ],
  ).split("\n");
}

/** The order of the host while nothing moves, so that rows stand still. */
function busiestFirst<T>(rows: readonly T[], measure: (row: T) => number): T[] {
  return rows.toSorted((a, b) => measure(b) - measure(a));
}

function cut(lines: readonly string[], room: number, what: string): string[] {
  if (lines.length <= room) return [...lines];
  const kept = Math.max(0, room - 1);
  return [...lines.slice(0, kept), `… and ${lines.length - kept} more ${what}`];
}

function bar(share: number, columns: number): string {
  const filled = Math.max(0, Math.min(columns, Math.round(share * columns)));
  return `[${"#".repeat(filled)}${".".repeat(columns - filled)}]`;
}

function percent(share: number): string {
  return `${`${Math.round(share * 100)}`.padStart(3)}%`;
}

function perSecond(bytes: number): string {
  return `${formatBytes(Math.round(bytes))}/s`;
}

/** `0`, `0.4`, `12`, `1.2k`, `34M`. */
function count(rate: number): string {
  if (rate > 0 && rate < 9.95) return rate.toFixed(1).replace(/\.0$/, "");
  if (rate < 999.5) return `${Math.round(rate)}`;
  const [unit, size] = rate < 999_500 ? (["k", 1e3] as const) : (["M", 1e6] as const);
  const value = rate / size;
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)}${unit}`;
}

/** One column for each character: names come from hosts, and could carry what a terminal obeys or shows wider. */
function printable(line: string): string {
  return line.replace(/[^\u0020-\u007e…]/gu, "·");
}
