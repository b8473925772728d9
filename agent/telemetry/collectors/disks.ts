// /proc/diskstats (Documentation/admin-guide/iostats.rst): what each whole disk did.
import type { Series } from "../../../protocol/messages.ts";
import { counter, type FileCollector, gauge, type SeriesOptions } from "./collector.ts";
import { describeLines, isNumber } from "./lines.ts";

/** node_exporter's default: memory, loop devices, floppies and partitions are left out. */
const excluded = /^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$/;

/** Sectors are of 512 bytes here, whatever the disk's own are. */
const sectorBytes = 512;
const tickSeconds = 0.001;

// The columns after the name. Kernels before 4.18 have 11 of them, before 5.5 15, now 17.
const columns: readonly ((options: SeriesOptions) => Series)[] = [
  (o) => counter("node_disk_reads_completed_total", "The total number of reads completed successfully.", o),
  (o) => counter("node_disk_reads_merged_total", "The total number of reads merged.", o),
  (o) =>
    counter("node_disk_read_bytes_total", "The total number of bytes read successfully.", {
      ...o,
      scale: sectorBytes,
    }),
  (o) =>
    counter("node_disk_read_time_seconds_total", "The total number of seconds spent by all reads.", {
      ...o,
      scale: tickSeconds,
    }),
  (o) => counter("node_disk_writes_completed_total", "The total number of writes completed successfully.", o),
  (o) => counter("node_disk_writes_merged_total", "The number of writes merged.", o),
  (o) =>
    counter("node_disk_written_bytes_total", "The total number of bytes written successfully.", {
      ...o,
      scale: sectorBytes,
    }),
  (o) =>
    counter(
      "node_disk_write_time_seconds_total",
      "This is the total number of seconds spent by all writes.",
      {
        ...o,
        scale: tickSeconds,
      },
    ),
  (o) => gauge("node_disk_io_now", "The number of I/Os currently in progress.", o),
  (o) =>
    counter("node_disk_io_time_seconds_total", "Total seconds spent doing I/Os.", {
      ...o,
      scale: tickSeconds,
    }),
  (o) =>
    counter("node_disk_io_time_weighted_seconds_total", "The weighted # of seconds spent doing I/Os.", {
      ...o,
      scale: tickSeconds,
    }),
  (o) =>
    counter("node_disk_discards_completed_total", "The total number of discards completed successfully.", o),
  (o) => counter("node_disk_discards_merged_total", "The total number of discards merged.", o),
  (o) =>
    counter("node_disk_discarded_sectors_total", "The total number of sectors discarded successfully.", o),
  (o) =>
    counter(
      "node_disk_discard_time_seconds_total",
      "This is the total number of seconds spent by all discards.",
      {
        ...o,
        scale: tickSeconds,
      },
    ),
  (o) =>
    counter("node_disk_flush_requests_total", "The total number of flush requests completed successfully", o),
  (o) =>
    counter(
      "node_disk_flush_requests_time_seconds_total",
      "This is the total number of seconds spent by all flush requests.",
      { ...o, scale: tickSeconds },
    ),
];

export const disks: FileCollector = {
  name: "disks",
  file: "diskstats",
  describe: (text) =>
    describeLines(text, ({ words, numbers }) => {
      const device = words[2];
      // "8 0 sda 1 2 …": only the name is no number. (One that is a number could change without the shape changing.)
      if (device === undefined || isNumber(device) || numbers.length !== words.length - 1) return [];
      if (excluded.test(device)) return [];
      return [null, null, ...columns.map((column) => column({ labels: { device } }))];
    }),
};
