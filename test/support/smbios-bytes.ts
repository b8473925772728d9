// SMBIOS tables for tests, built from DSP0134's layouts: a rack server's, with what the inventory reads of it.

export interface SmbiosStructure {
  readonly type: number;
  /** Without type, length and handle. */
  readonly body: Uint8Array;
  readonly texts?: readonly string[];
}

export function smbiosBytes(structures: readonly SmbiosStructure[]): Uint8Array {
  return Buffer.concat(
    structures.map(({ type, body, texts = [] }, index) => {
      const header = Buffer.from([type, 4 + body.length, index & 0xff, index >> 8]);
      const strings = texts.length === 0 ? "\0\0" : `${texts.map((text) => `${text}\0`).join("")}\0`;
      return Buffer.concat([header, body, Buffer.from(strings, "latin1")]);
    }),
  );
}

/** Version 3, with its checksum. */
export function smbiosEntryPoint(
  tableBytes: number,
  version: readonly [number, number] = [3, 3],
): Uint8Array {
  const bytes = Buffer.alloc(24);
  bytes.write("_SM3_");
  bytes[6] = 24;
  bytes[7] = version[0];
  bytes[8] = version[1];
  bytes.writeUInt32LE(tableBytes, 12);
  bytes[5] = (256 - (bytes.reduce((sum, byte) => sum + byte, 0) & 0xff)) & 0xff;
  return bytes;
}

/** Puts numbers at the offsets that the specification counts from the structure's beginning. */
export function body(
  length: number,
  fields: { readonly [offset: number]: readonly [value: number | bigint, bytes: 1 | 2 | 4 | 8] },
): Buffer {
  const bytes = Buffer.alloc(length - 4);
  for (const [offset, [value, size]] of Object.entries(fields)) {
    const view = Buffer.alloc(8);
    view.writeBigUInt64LE(BigInt(value));
    view.copy(bytes, Number(offset) - 4, 0, size);
  }
  return bytes;
}

const uuid = Buffer.from("44454c4c420010358054b7c04f4d3233", "hex");

function dimm(locator: string, sizeMib: number, texts: readonly string[]): SmbiosStructure {
  return {
    type: 17,
    body: body(0x5c, {
      8: [72, 2],
      10: [64, 2],
      12: [sizeMib === 0 ? 0 : sizeMib > 0x7ffe ? 0x7fff : sizeMib, 2],
      14: [9, 1],
      16: [1, 1],
      18: [sizeMib === 0 ? 2 : 26, 1],
      21: [sizeMib === 0 ? 0 : 3200, 2],
      ...(sizeMib === 0 ? {} : { 23: [2, 1], 24: [3, 1], 26: [4, 1], 25: [5, 1] }),
      27: [sizeMib === 0 ? 0 : 2, 1],
      28: [sizeMib > 0x7ffe ? sizeMib : 0, 4],
      32: [sizeMib === 0 ? 0 : 2933, 2],
      52: [0, 8],
      60: [BigInt(sizeMib) << 20n, 8],
    }),
    texts: [locator, ...texts],
  };
}

/** DSP0270: a USB network interface to the BMC, Redfish on 169.254.0.17. */
export function redfishStructure(): SmbiosStructure {
  const device = Buffer.from([
    0x04, 17, 0xb3, 0x04, 0x10, 0x40, 1, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0, 0, 0xff, 0xff,
  ]);
  const address = (text: string) =>
    Buffer.concat([Buffer.from(text.split(".").map(Number)), Buffer.alloc(12)]);
  const hostname = Buffer.from("idrac-7B5T3M2");
  const record = Buffer.concat([
    Buffer.from("2f3ba4f1d0f3ea11aca9e5b8d327f39f", "hex"),
    Buffer.from([1, 1]),
    address("169.254.0.18"),
    address("255.255.0.0"),
    Buffer.from([1, 1]),
    address("169.254.0.17"),
    address("255.255.0.0"),
    Buffer.from([0xbb, 0x01, 0, 0, 0, 0]),
    Buffer.from([hostname.length]),
    hostname,
  ]);
  return {
    type: 42,
    body: Buffer.concat([
      Buffer.from([0x40, device.length]),
      device,
      Buffer.from([1, 0x04, record.length]),
      record,
    ]),
    texts: ["BMC-USB-0001"],
  };
}

export function smbiosTable(): Uint8Array {
  return smbiosBytes([
    {
      type: 0,
      body: body(0x1a, { 4: [1, 1], 5: [2, 1], 8: [3, 1] }),
      texts: ["Dell Inc.", "2.19.1", "06/04/2023"],
    },
    {
      type: 1,
      body: Buffer.concat([body(8, { 4: [1, 1], 5: [2, 1], 7: [3, 1] }), uuid, Buffer.from([6, 4, 5])]),
      texts: ["Dell Inc.", "PowerEdge R650", "7B5T3M2", "SKU=0A6B;ModelName=PowerEdge R650", "PowerEdge"],
    },
    {
      type: 2,
      body: body(0x0f, { 4: [1, 1], 5: [2, 1], 7: [3, 1] }),
      texts: ["Dell Inc.", "0PYXKY", ".7B5T3M2.CNFCP0081B00AB."],
    },
    {
      type: 3,
      body: body(0x16, { 4: [1, 1], 5: [23, 1], 7: [2, 1], 8: [3, 1] }),
      texts: ["Dell Inc.", "7B5T3M2", "rack12-u07"],
    },
    ...["CPU1", "CPU2"].map(
      (socket): SmbiosStructure => ({
        type: 4,
        body: body(0x30, {
          4: [1, 1],
          5: [3, 1],
          7: [2, 1],
          16: [3, 1],
          20: [4000, 2],
          22: [2000, 2],
          24: [0x41, 1],
          25: [0x3e, 1],
          35: [0xff, 1],
          36: [0xff, 1],
          37: [0xff, 1],
          42: [32, 2],
          44: [32, 2],
          46: [64, 2],
        }),
        texts: [socket, "Intel", "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"],
      }),
    ),
    {
      type: 9,
      body: body(0x11, { 4: [1, 1], 5: [0xbe, 1], 7: [4, 1], 13: [0, 2], 15: [0x31, 1], 16: [0, 1] }),
      texts: ["PCIe Slot 1"],
    },
    {
      type: 11,
      body: body(5, { 4: [1, 1] }),
      texts: ["io.systemd.credential:passwd.hashed-password.root=secret"],
    },
    { type: 16, body: body(0x17, { 6: [6, 1], 7: [0x80000000, 4], 13: [4, 2], 15: [12n << 40n, 8] }) },
    dimm("A1", 65_536, ["00CE063200CE", "03A1B2C3", "M393A8G40BB4-CWE   ", "00212311"]),
    dimm("A2", 16_384, ["Hynix Semiconductor", "2C3D4E5F", "HMA82GR7CJR8N-XN", "00212311"]),
    dimm("B1", 0, []),
    { type: 38, body: body(0x12, { 4: [1, 1], 5: [0x20, 1], 6: [0x20, 1], 8: [0xca3, 8] }) },
    {
      type: 39,
      body: body(0x16, {
        5: [1, 1],
        6: [2, 1],
        7: [3, 1],
        8: [4, 1],
        10: [5, 1],
        11: [6, 1],
        12: [1400, 2],
        14: [0x3 | (3 << 7), 2],
      }),
      texts: ["PSU.Slot.1", "PWR SPLY,1400WP,RDNT,LTON", "DELL", "CNLOD0011223344", "01CMMF", "A00"],
    },
    { type: 39, body: body(0x16, { 5: [1, 1], 12: [0x8000, 2], 14: [0x1, 2] }), texts: ["PSU.Slot.2"] },
    {
      type: 41,
      body: body(0x0b, { 4: [1, 1], 5: [0x85, 1], 6: [1, 1], 7: [0, 2], 9: [0x18, 1], 10: [0x00, 1] }),
      texts: ["Integrated NIC 1"],
    },
    redfishStructure(),
    { type: 127, body: Buffer.alloc(0) },
  ]);
}
