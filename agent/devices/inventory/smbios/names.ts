// Names for the numbers in SMBIOS structures (DSP0134 3.7): those that servers have; others stay numbers.

type Names = { readonly [number: number]: string };

const chassisTypes: Names = {
  1: "other",
  3: "desktop",
  4: "low-profile desktop",
  6: "mini tower",
  7: "tower",
  9: "laptop",
  10: "notebook",
  13: "all in one",
  16: "lunch box",
  17: "main server chassis",
  23: "rack mount",
  24: "sealed-case PC",
  25: "multi-system chassis",
  28: "blade",
  29: "blade enclosure",
  35: "mini PC",
};

const memoryTypes: Names = {
  1: "other",
  3: "DRAM",
  7: "RAM",
  9: "flash",
  15: "SDRAM",
  18: "DDR",
  19: "DDR2",
  20: "DDR2 FB-DIMM",
  24: "DDR3",
  26: "DDR4",
  27: "LPDDR",
  28: "LPDDR2",
  29: "LPDDR3",
  30: "LPDDR4",
  31: "non-volatile",
  32: "HBM",
  33: "HBM2",
  34: "DDR5",
  35: "LPDDR5",
  36: "HBM3",
};

const formFactors: Names = {
  1: "other",
  3: "SIMM",
  5: "chip",
  6: "DIP",
  9: "DIMM",
  11: "row of chips",
  12: "RIMM",
  13: "SODIMM",
  15: "FB-DIMM",
  16: "die",
  17: "CAMM",
};

const errorCorrections: Names = {
  1: "other",
  3: "none",
  4: "parity",
  5: "single-bit",
  6: "multi-bit",
  7: "CRC",
};

const slotTypes: Names = {
  6: "PCI",
  15: "AGP",
  18: "PCI-X",
  20: "M.2",
  31: "PCIe SFF-8639 (U.2)",
  32: "PCIe SFF-8639 (U.2)",
  33: "PCIe SFF-8639 (U.2)",
  34: "PCIe mini",
  38: "PCIe OCP NIC 3.0 small",
  39: "PCIe OCP NIC 3.0 large",
  40: "PCIe OCP NIC",
  165: "PCIe",
  166: "PCIe x1",
  167: "PCIe x2",
  168: "PCIe x4",
  169: "PCIe x8",
  170: "PCIe x16",
  171: "PCIe 2",
  172: "PCIe 2 x1",
  173: "PCIe 2 x2",
  174: "PCIe 2 x4",
  175: "PCIe 2 x8",
  176: "PCIe 2 x16",
  177: "PCIe 3",
  178: "PCIe 3 x1",
  179: "PCIe 3 x2",
  180: "PCIe 3 x4",
  181: "PCIe 3 x8",
  182: "PCIe 3 x16",
  184: "PCIe 4",
  185: "PCIe 4 x1",
  186: "PCIe 4 x2",
  187: "PCIe 4 x4",
  188: "PCIe 4 x8",
  189: "PCIe 4 x16",
  190: "PCIe 5",
  191: "PCIe 5 x1",
  192: "PCIe 5 x2",
  193: "PCIe 5 x4",
  194: "PCIe 5 x8",
  195: "PCIe 5 x16",
  196: "PCIe 6 and later",
};

const onboardTypes: Names = {
  1: "other",
  3: "video",
  4: "SCSI controller",
  5: "Ethernet",
  6: "token ring",
  7: "sound",
  8: "PATA controller",
  9: "SATA controller",
  10: "SAS controller",
  11: "wireless LAN",
  12: "Bluetooth",
  13: "WWAN",
  14: "eMMC",
  15: "NVMe controller",
  16: "UFS controller",
};

const ipmiInterfaces: Names = { 1: "KCS", 2: "SMIC", 3: "BT", 4: "SSIF" };
const powerStates: Names = { 1: "other", 3: "ok", 4: "non-critical", 5: "critical" };
const assignments: Names = { 1: "static", 2: "DHCP", 3: "automatic", 4: "host selected" };

const tables = {
  chassisTypes,
  memoryTypes,
  formFactors,
  errorCorrections,
  slotTypes,
  onboardTypes,
  ipmiInterfaces,
  powerStates,
  assignments,
};

/** Null for null, for 0 and for 2 (the specification's "unknown" in all of these); a number without a name as `0x2a`. */
export function nameOf(table: keyof typeof tables, number: number | null): string | null {
  if (number === null || number === 0) return null;
  const names: Names = tables[table];
  return names[number] ?? (number === 2 ? null : `0x${number.toString(16).padStart(2, "0")}`);
}
