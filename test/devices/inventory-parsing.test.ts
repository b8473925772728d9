// The inventory's parsers, each with a sample and with garbage: firmware's tables, configuration space, pages, programs' output.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bootInterfaceOf } from "../../agent/devices/inventory/boot.ts";
import { parseBootNumbers, parseLoadOption } from "../../agent/devices/inventory/efi.ts";
import { parseDevicePath } from "../../agent/devices/inventory/efi-device-path.ts";
import { parseInformation } from "../../agent/devices/inventory/gpus.ts";
import { sectionOf } from "../../agent/devices/inventory/ids.ts";
import { taintsOf } from "../../agent/devices/inventory/kernel.ts";
import { parseCurrentMhz } from "../../agent/devices/inventory/moment.ts";
import { macOf, parseVlans } from "../../agent/devices/inventory/nics.ts";
import { parsePciConfig } from "../../agent/devices/inventory/pci-config.ts";
import { redactAddress, redactCommandLine } from "../../agent/devices/inventory/redact.ts";
import { parseIdentificationPage, parseRotationPage } from "../../agent/devices/inventory/scsi-pages.ts";
import { all, decodeSmbios, ipmiOf, uuidOf } from "../../agent/devices/inventory/smbios/decode.ts";
import { redfishInterfaces } from "../../agent/devices/inventory/smbios/redfish.ts";
import { parseEntryPoint, parseTables } from "../../agent/devices/inventory/smbios/tables.ts";
import { parseVpd } from "../../agent/devices/inventory/vpd.ts";
import { Smbios } from "../../protocol/inventory-machine.ts";
import { checker } from "../../protocol/schema.ts";
import { page83, pciConfig } from "../support/machines.ts";
import {
  body,
  redfishStructure,
  smbiosBytes,
  smbiosEntryPoint,
  smbiosTable,
} from "../support/smbios-bytes.ts";
import { textsOf } from "../support/texts.ts";

/** A true one with bytes changed, or cut short; or nothing like it. */
function damaged(...samples: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const changed = fc
    .tuple(
      fc.constantFrom(...samples),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 12 }),
      fc.option(fc.nat(), { freq: 3 }),
    )
    .map(([sample, changes, cut]) => {
      const bytes = Uint8Array.from(sample);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return cut === null ? bytes : bytes.subarray(0, cut % (bytes.length + 1));
    });
  return fc.oneof({ weight: 5, arbitrary: changed }, fc.uint8Array({ maxLength: 600 }));
}

const runs = { numRuns: 2000 };
function printable(value: unknown): void {
  expect(textsOf(value).filter((text) => /[\p{Cc}\u202a-\u202e\u2066-\u2069]/u.test(text))).toEqual([]);
}

describe("SMBIOS", () => {
  const check = checker(Smbios, "internal", "SMBIOS");
  const decode = (table: Uint8Array, version: readonly [number, number] = [3, 3]) =>
    parseTables(table, parseEntryPoint(smbiosEntryPoint(table.length, version)));

  test("the entry point of version 3, and of version 2; with another checksum neither", () => {
    expect(parseEntryPoint(smbiosEntryPoint(4711))).toEqual({ version: "3.3", length: 4711 });
    const two = Buffer.alloc(31);
    two.write("_SM_");
    two[5] = 31;
    two[6] = 2;
    two[7] = 8;
    two.writeUInt16LE(999, 0x16);
    two[4] = (256 - (two.reduce((sum, byte) => sum + byte, 0) & 0xff)) & 0xff;
    expect(parseEntryPoint(two)).toEqual({ version: "2.8", length: 999 });
    two[8]!++;
    expect(parseEntryPoint(two)).toBeNull();
    expect(parseEntryPoint(new Uint8Array(4))).toBeNull();
  });

  test("memory whose size is in kibibytes, in the double word, unknown; and a slot that is empty", () => {
    const sizes = [0x8400, 0x7fff, 0xffff, 0].map((size) => ({
      type: 17,
      body: body(0x5c, {
        12: [size, 2],
        28: [0x80_00_80_00, 4],
        18: [34, 1],
        21: [0xffff, 2],
        84: [70_000, 4],
      }),
    }));
    const { memory } = decodeSmbios(decode(smbiosBytes(sizes)));
    expect(memory.map(({ sizeBytes }) => sizeBytes)).toEqual([1 << 20, 0x8000 * (1 << 20), null, 0]);
    expect(memory[0]).toMatchObject({ type: "DDR5", speedMts: 70_000 });
  });

  test("a structure of an older version has nulls for what it lacks", () => {
    const { memory } = decodeSmbios(
      decode(smbiosBytes([{ type: 17, body: body(0x15, { 12: [512, 2], 16: [1, 1] }), texts: ["A"] }])),
    );
    expect(memory).toMatchObject([
      { locator: "A", sizeBytes: 512 << 20, speedMts: null, part: null, persistentBytes: null },
    ]);
  });

  test("the UUID in the order of its version", () => {
    const table = smbiosTable();
    expect(uuidOf(decode(table))).toBe("4c4c4544-0042-3510-8054-b7c04f4d3233");
    expect(uuidOf(decode(table, [2, 4]))).toBe("44454c4c-4200-1035-8054-b7c04f4d3233");
    const empty = { type: 1, body: Buffer.alloc(0x17, 0xff) };
    expect(uuidOf(decode(smbiosBytes([empty])))).toBeNull();
  });

  test("a table that is cut off gives what is before the cut, and says so", () => {
    const table = smbiosTable();
    const cut = decode(table.subarray(0, table.length - 40));
    expect(cut.structures.length).toBeGreaterThan(10);
    expect(cut.errors).toHaveLength(1);
    expect(decode(Uint8Array.from([17, 3, 0, 0, 0, 0])).errors).toEqual([
      "structure 0 (type 17) at byte 0 says that it has 3 bytes",
    ]);
  });

  test("Redfish over USB, over PCI; another kind of interface is none", () => {
    const [usb] = all(decode(smbiosBytes([redfishStructure()])), 42);
    expect(redfishInterfaces(usb!)).toMatchObject([
      { device: "USB", deviceId: "04b3:4010", serviceAddress: "169.254.0.17", servicePort: 443 },
    ]);
    const six = Buffer.from("fe80000000000000021b21fffea0b2c3", "hex");
    const record = Buffer.concat([
      Buffer.alloc(16),
      Buffer.from([3, 2]),
      six,
      Buffer.alloc(16),
      Buffer.from([4, 2]),
      six,
      Buffer.alloc(16),
      Buffer.from([0xbb, 1, 100, 0, 0, 0, 0]),
    ]);
    const data = Buffer.from([
      0x05, 24, 0x86, 0x80, 0x83, 0x15, 0x28, 0x10, 0xe1, 0x1f, 2, 0, 0, 0, 0, 1, 0, 0, 0x18, 0x03, 0, 0, 0,
      0,
    ]);
    const pci = decode(
      smbiosBytes([
        {
          type: 42,
          body: Buffer.concat([
            Buffer.from([0x40, data.length]),
            data,
            Buffer.from([1, 4, record.length]),
            record,
          ]),
        },
      ]),
    );
    expect(redfishInterfaces(all(pci, 42)[0]!)).toMatchObject([
      {
        device: "PCI",
        deviceId: "8086:1583:1028:1fe1",
        mac: "02:00:00:00:00:01",
        pciAddress: "0000:18:00.3",
        hostAssignment: "automatic",
        hostAddress: "fe80::21b:21ff:fea0:b2c3",
        serviceVlan: 100,
        serviceHostname: null,
      },
    ]);
    const kcs = decode(smbiosBytes([{ type: 42, body: Buffer.from([0x02, 0, 0]) }]));
    expect(redfishInterfaces(all(kcs, 42)[0]!)).toEqual([]);
  });

  test("whatever the bytes, nothing throws and everything fits its schema", () => {
    fc.assert(
      fc.property(
        damaged(smbiosTable(), smbiosBytes([redfishStructure()])),
        damaged(smbiosEntryPoint(4000)),
        (table, entry) => {
          const tables = parseTables(table, parseEntryPoint(entry));
          const decoded = check(decodeSmbios(tables));
          printable([decoded, uuidOf(tables), ipmiOf(tables), all(tables, 42).flatMap(redfishInterfaces)]);
          for (const structure of tables.structures) expect(structure.byte(3)).not.toBeNull();
        },
      ),
      runs,
    );
  });
});

describe("EFI", () => {
  const node = (type: number, subtype: number, data: Uint8Array) =>
    Buffer.concat([Buffer.from([type, subtype, (data.length + 4) & 0xff, (data.length + 4) >> 8]), data]);
  const wide = (text: string) => Buffer.from(`${text}\0`, "utf16le");
  const hd = Buffer.concat([
    Buffer.from([1, 0, 0, 0]),
    Buffer.from("0008000000000000", "hex"),
    Buffer.from("0020030000000000", "hex"),
    Buffer.from("3d2c1b0a5f4e614082738495a6b7c8d9", "hex"),
    Buffer.from([2, 2]),
  ]);
  const end = Buffer.from([0x7f, 0xff, 4, 0]);
  const disk = Buffer.concat([node(4, 1, hd), node(4, 4, wide("\\EFI\\debian\\shimx64.efi")), end]);
  const mac = Buffer.concat([Buffer.from("525400123456", "hex"), Buffer.alloc(26), Buffer.from([1])]);
  const network = Buffer.concat([
    node(2, 1, Buffer.from("d041030a00000000", "hex")),
    node(1, 1, Buffer.from([0, 0x1c])),
    node(3, 11, mac),
    node(3, 24, Buffer.from("https://user:secret@boot.example/ipxe.efi?token=t0p")),
    end,
  ]);
  const option = (description: string, paths: Uint8Array, attributes = 1, data = Buffer.alloc(0)) => {
    const head = Buffer.alloc(6);
    head.writeUInt32LE(attributes, 0);
    head.writeUInt16LE(paths.length, 4);
    return Buffer.concat([head, wide(description), paths, data]);
  };

  test("an entry of an installed system, without what its loader is given", () => {
    const entry = parseLoadOption("0003", option("debian", disk, 1, wide("password=hunter2")));
    expect(entry).toEqual({
      number: "0003",
      active: true,
      hidden: false,
      description: "debian",
      path: "HD(1,GPT,0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9,0x800,0x32000)/\\EFI\\debian\\shimx64.efi",
      partition: "0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9",
      file: "\\EFI\\debian\\shimx64.efi",
      mac: null,
    });
  });

  test("an entry of the network, without user, password and query", () => {
    expect(parseLoadOption("0001", option("PXE", network, 8))).toMatchObject({
      active: false,
      hidden: true,
      path: "PciRoot(0x0)/Pci(0x1c,0x0)/MAC(525400123456,0x1)/Uri(https://[redacted]@boot.example/ipxe.efi)",
      mac: "52:54:00:12:34:56",
    });
  });

  test("a node of unknown kind, and one that is too short, are told by their numbers", () => {
    const path = Buffer.concat([node(9, 1, Buffer.from([1, 2])), node(3, 23, Buffer.from([1])), end]);
    expect(parseDevicePath(path).text).toBe("Path(9,1,0102)/Path(3,23,01)");
  });

  test("numbers", () => {
    expect(parseBootNumbers(Buffer.from("010003000a00ff", "hex"))).toEqual(["0001", "0003", "000A"]);
    expect(parseLoadOption("0000", new Uint8Array(7))).toBeNull();
  });

  test("whatever the bytes, nothing throws", () => {
    fc.assert(
      fc.property(damaged(option("debian", disk), option("PXE", network)), (bytes) => {
        printable([parseLoadOption("0000", bytes), parseDevicePath(bytes), parseBootNumbers(bytes)]);
      }),
      runs,
    );
    fc.assert(
      fc.property(fc.nat(9), fc.nat(40), fc.uint8Array({ maxLength: 60 }), (type, subtype, data) => {
        printable(parseDevicePath(Buffer.concat([node(type, subtype, data), end])));
      }),
      runs,
    );
  });
});

describe("PCI", () => {
  const config = pciConfig({ vendor: 0x8086, device: 0x1583, class: 0x020000 });

  test("configuration space: ids, class, link", () => {
    expect(parsePciConfig(config)).toEqual({
      vendorId: "8086",
      deviceId: "1583",
      subsystemVendorId: "1028",
      subsystemId: "1fe1",
      class: "020000",
      revision: "02",
      link: "8 GT/s x8",
      linkMax: "16 GT/s x16",
      serial: null,
    });
    expect(parsePciConfig(config.subarray(0, 64))).toMatchObject({ vendorId: "8086", link: null });
    expect(parsePciConfig(new Uint8Array(256).fill(0xff))).toBeNull();
    expect(parsePciConfig(config.subarray(0, 63))).toBeNull();
  });

  test("a serial number behind another extended capability", () => {
    const large = Buffer.concat([config, Buffer.alloc(4096 - 256)]);
    large.writeUInt32LE(0x0001 | (1 << 16) | (0x140 << 20), 0x100);
    large.writeUInt32LE(0x0003 | (1 << 16), 0x140);
    large.writeUInt32LE(0xff010203, 0x144);
    large.writeUInt32LE(0xe4434bff, 0x148);
    expect(parsePciConfig(large)?.serial).toBe("e4-43-4b-ff-ff-01-02-03");
    // A chain that leads back to itself ends.
    large.writeUInt32LE(0x0001 | (1 << 16) | (0x100 << 20), 0x100);
    expect(parsePciConfig(large)?.serial).toBeNull();
  });

  test("vital product data", () => {
    const keyword = (name: string, value: string) =>
      Buffer.concat([Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]);
    const item = (tag: number, data: Uint8Array) =>
      Buffer.concat([Buffer.from([tag, data.length & 0xff, data.length >> 8]), data]);
    const vpd = Buffer.concat([
      item(0x82, Buffer.from("ConnectX-6 Dx")),
      item(
        0x90,
        Buffer.concat([
          keyword("PN", "MCX623106AN-CDAT"),
          keyword("SN", "MT2043X00001  "),
          keyword("RV", "\x12\x00"),
        ]),
      ),
      item(0x91, keyword("YA", "asset")),
      Buffer.from([0x78]),
    ]);
    expect(parseVpd(vpd)).toEqual({ name: "ConnectX-6 Dx", PN: "MCX623106AN-CDAT", SN: "MT2043X00001" });
    fc.assert(
      fc.property(damaged(vpd), (bytes) => printable(parseVpd(bytes))),
      runs,
    );
  });

  test("whatever the bytes, nothing throws", () => {
    fc.assert(
      fc.property(damaged(config, Buffer.concat([config, Buffer.alloc(512, 1)])), (bytes) =>
        printable(parsePciConfig(bytes)),
      ),
      runs,
    );
  });

  test("names of ids", () => {
    const text =
      "\n8086  Intel Corporation\n\t1583  Ethernet Controller XL710\n\t\t8086 0001  Adapter\n# a note\n\t1584  Another\n8087  Intel too\n\t1585  Not this\n";
    expect(sectionOf(text, "8086")).toBe(
      "  Intel Corporation\n\t1583  Ethernet Controller XL710\n\t\t8086 0001  Adapter\n# a note\n\t1584  Another",
    );
    expect(sectionOf(text, "1583")).toBe("");
    expect(sectionOf(text, "x")).toBe("");
  });
});

describe("pages of SCSI", () => {
  test("every name of the unit, none of its port", () => {
    expect(parseIdentificationPage(page83())).toEqual([
      "naa.6001405a1b2c3d4e5f60718293a4b5c6",
      "t10.LIO-ORG shared:5a1b2c3d-4e5f",
    ]);
    expect(parseIdentificationPage(new Uint8Array([0, 0x80, 0, 0]))).toEqual([]);
  });
  test("turns a minute: a disk's, none of what does not turn, not known", () => {
    const page = (rate: number) =>
      parseRotationPage(Uint8Array.from([0, 0xb1, 0, 0x3c, rate >> 8, rate & 0xff]));
    expect([page(7200), page(1), page(0), page(0xffff)]).toEqual([7200, 0, null, null]);
    expect(parseRotationPage(new Uint8Array(3))).toBeNull();
  });
  test("whatever the bytes, nothing throws", () => {
    fc.assert(
      fc.property(damaged(page83()), (bytes) =>
        printable([parseIdentificationPage(bytes), parseRotationPage(bytes)]),
      ),
      runs,
    );
  });
});

describe("the kernel's command line", () => {
  test.each([
    ["quiet rd.iscsi.password=hunter2 ro", "quiet rd.iscsi.password=[redacted] ro"],
    ["bedplate.join=bp1.abc root=/dev/sda2", "bedplate.join=[redacted] root=/dev/sda2"],
    ["inst.ks=https://admin:pw@srv/ks.cfg", "inst.ks=https://[redacted]@srv/ks.cfg"],
    ["netroot=iscsi:user:secret@192.0.2.1::3260:0:iqn.x", "netroot=iscsi:[redacted]@192.0.2.1::3260:0:iqn.x"],
    ["ds=nocloud;s=http://h/;token=abc;h=n", "ds=nocloud;s=http://h/;token=[redacted];h=n"],
    ["ks=http://h/k?arch=x&token=abc&b=1", "ks=http://h/k?arch=x&token=[redacted]&b=1"],
    ['systemd.set_credential="passwd.root: x y" b', "systemd.set_credential=[redacted] b"],
    [
      "api_key=1 rootpw=2 AUTH=3 vncpassword=4 my.secret.thing=5",
      "api_key=[redacted] rootpw=[redacted] AUTH=[redacted] vncpassword=[redacted] my.secret.thing=[redacted]",
    ],
    [
      "iommu.passthrough=1 keymap=de console=ttyS0,115200n8 root=UUID=6c8b",
      "iommu.passthrough=1 keymap=de console=ttyS0,115200n8 root=UUID=6c8b",
    ],
    ["ip=192.0.2.2::192.0.2.1:255.255.255.0:h:eth0:off", "ip=192.0.2.2::192.0.2.1:255.255.255.0:h:eth0:off"],
  ])("%s", (line, redacted) => expect(redactCommandLine(line)).toBe(redacted));
  test("addresses lose their query", () =>
    expect(redactAddress("http://a:b@h/p?x=1#y")).toBe("http://[redacted]@h/p"));
  test("the interface it was booted from", () => {
    expect(bootInterfaceOf("quiet BOOTIF=01-52-54-00-12-34-56 ro")).toBe("52:54:00:12:34:56");
    expect(bootInterfaceOf("BOOTIF=52:54:00:AB:CD:EF")).toBe("52:54:00:ab:cd:ef");
    expect(bootInterfaceOf("XBOOTIF=01-52-54-00-12-34-56")).toBeNull();
  });
  test("why it is tainted", () => {
    expect(taintsOf(0)).toEqual([]);
    expect(taintsOf(4097)).toEqual(["proprietary module", "externally built module"]);
  });
});

test("interfaces and clocks", () => {
  expect(
    parseVlans("VLAN Dev name\t | VLAN ID\nName-Type: X\nbond0.120      | 120  | bond0\n  a.1| 1 |a\n").get(
      "bond0.120",
    ),
  ).toEqual({ id: 120, over: "bond0" });
  expect(macOf("E4:43:4B:01:02:03")).toBe("e4:43:4b:01:02:03");
  expect([macOf("00:00:00:00:00:00"), macOf("e4:43:4b"), macOf(null)]).toEqual([null, null, null]);
  expect(macOf("80:00:02:08:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:7d:e8:11")).toHaveLength(59);
  expect(parseCurrentMhz("cpu MHz\t\t: 800.123\ncpu MHz\t\t: 3200.9\n")).toEqual({
    lowest: 800,
    highest: 3200,
  });
  expect(parseCurrentMhz("")).toBeNull();
  expect(parseInformation("Model: \t NVIDIA A100\nIRQ:\nGPU UUID: GPU-1\n").get("Model")).toBe("NVIDIA A100");
});
