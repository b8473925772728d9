// What lies on a disk: every signature from its documented layout, partition tables good and broken, and garbage.
import { readFileSync } from "node:fs";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isSharedType } from "../../agent/devices/signatures/partition-types.ts";
import { detectors, findSignatures, probeDisk } from "../../agent/devices/signatures/probe.ts";
import { spotsOf, stretchesOf } from "../../agent/devices/signatures/spots.ts";
import { DiskContent } from "../../protocol/disk-content.ts";
import { checker } from "../../protocol/schema.ts";
import { layouts } from "../support/signature-layouts.ts";
import { putGpt, putMbr, type SparseDisk, sparseDisk } from "../support/sparse-disk.ts";
import { textsOf } from "../support/texts.ts";

const mib = 1 << 20;
const linux = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const check = checker(DiskContent, "internal", "content of a disk");
const never = new AbortController().signal;

async function probe(disk: SparseDisk, sectorBytes = 512) {
  return check(
    await probeDisk({
      sizeBytes: disk.sizeBytes,
      sectorBytes,
      read: async (stretch) => disk.read(stretch),
      signal: never,
    }),
  );
}

describe("every signature is found by its documented layout, on a disk and in a partition", () => {
  test.each(Object.entries(layouts))("%s", async (name, { put, found }) => {
    const kind = name.split(" ")[0]!;
    const size = 64 * mib + 12_288;
    const disk = sparseDisk(size);
    put(disk, 0, size);
    expect((await probe(disk)).signatures).toMatchObject([{ kind, ...found }]);

    const partitioned = putGpt(sparseDisk(256 * mib), 512, [
      { type: linux, startBytes: mib, sizeBytes: 64 * mib },
      { type: linux, startBytes: 65 * mib, sizeBytes: 64 * mib },
    ]);
    put(partitioned, 65 * mib, 64 * mib);
    const { partitions, signatures } = await probe(partitioned);
    expect(signatures).toEqual([]);
    // A partition table overwrites the names of a disk's first label, never those of a partition's.
    if (name === "zfs_member ring only") return;
    expect(partitions.map((partition) => partition.signatures.map((each) => each.kind))).toEqual([
      [],
      [kind],
    ]);
    const [signature] = partitions[1]!.signatures;
    expect(signature!.offset).toBeGreaterThanOrEqual(65 * mib);
    expect(signature!.offset).toBeLessThan(129 * mib);
  });

  test("none is without a layout here", () => {
    const tested = new Set(Object.keys(layouts).map((name) => name.split(" ")[0]));
    expect(detectors.map(({ kind }) => kind).filter((kind) => !tested.has(kind))).toEqual([]);
  });

  test("a disk of zeroes has none", async () => {
    expect(await probe(sparseDisk(64 * mib))).toEqual({
      table: null,
      partitions: [],
      signatures: [],
      errors: [],
    });
  });
});

interface Superblock {
  readonly sizeBytes: number;
  readonly blkid: { readonly type: string; readonly uuid: string | null; readonly label: string | null };
  readonly sectors: { readonly [offset: string]: string };
}
const superblocks = JSON.parse(
  readFileSync(new URL("../fixtures/superblocks.json", import.meta.url), "utf8"),
) as Record<string, Superblock>;
/** These keep their label or number behind pointers, which are not followed. */
const labelNotRead = ["exfat", "ntfs", "udf"];
const uuidNotRead = ["iso9660", "udf"];

describe("what the makers' own programs wrote is found as libblkid finds it", () => {
  test.each(Object.entries(superblocks))("%s", async (_, { sizeBytes, blkid, sectors }) => {
    const disk = sparseDisk(sizeBytes);
    for (const [offset, bytes] of Object.entries(sectors))
      disk.put(Number(offset), Buffer.from(bytes, "base64"));
    const { signatures } = await probe(disk);
    expect(signatures.map(({ kind }) => kind)).toEqual([blkid.type]);
    const [{ uuid, label } = { uuid: null, label: null }] = signatures;
    if (!uuidNotRead.includes(blkid.type)) expect(uuid).toBe(blkid.uuid);
    // libblkid gives no name of a volume group.
    if (blkid.type === "LVM2_member") expect(label).toBe("vg-data");
    else if (!labelNotRead.includes(blkid.type)) expect(label).toBe(blkid.label);
  });
});

test("shared storage says so", async () => {
  const shared = detectors.filter((detector) => detector.shared).map(({ kind }) => kind);
  expect(shared).toEqual(
    expect.arrayContaining([
      "VMFS",
      "VMFS_volume_member",
      "gpfs",
      "gfs2",
      "ocfs2",
      "ceph_bluestore",
      "zfs_member",
      "drbd",
    ]),
  );
  const disk = sparseDisk(64 * mib);
  layouts.gfs2!.put(disk, 0, 64 * mib);
  expect((await probe(disk)).signatures[0]).toMatchObject({ kind: "gfs2", shared: true });
});

test.each([
  "37AFFC90-EF7D-4E96-91C3-2D7AE055B174",
  "37affc90-ef7d-4e96-91c3-2d7ae055b174",
  "aa31e02a-400f-11db-9590-000c2911d1b8",
  "4fbd7e29-9d25-41b8-afd0-062c0ceff05d",
  "0xfb",
])("a partition of type %s is shared storage, in either case", (type) =>
  expect([isSharedType(type), isSharedType(linux)]).toEqual([true, false]),
);

test("several signatures on one disk are all told, in their order", async () => {
  const disk = sparseDisk(64 * mib);
  layouts["zfs_member third label"]!.put(disk, 0, 64 * mib);
  layouts.ext4!.put(disk, 0, 64 * mib);
  layouts["linux_raid_member 1.0"]!.put(disk, 0, 64 * mib);
  expect((await probe(disk)).signatures.map(({ kind }) => kind)).toEqual([
    "ext4",
    "zfs_member",
    "linux_raid_member",
  ]);
});

describe("GPT", () => {
  const partitions = [
    {
      type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
      startBytes: mib,
      sizeBytes: 16 * mib,
      name: "EFI-System",
    },
    {
      type: linux,
      startBytes: 17 * mib,
      sizeBytes: 32 * mib,
      name: "root",
      uuid: "11111111-2222-4333-8444-555555555555",
    },
  ];
  test.each([512, 4096])("of %i-byte sectors", async (sectorBytes) => {
    const found = await probe(putGpt(sparseDisk(128 * mib), sectorBytes, partitions), sectorBytes);
    expect(found).toMatchObject({
      table: {
        type: "gpt",
        sectorBytes,
        uuid: "0a1b2c3d-4e5f-4061-8273-8495a6b7c8d9",
        primary: "good",
        backup: "good",
      },
      partitions: [
        { number: 1, startBytes: mib, sizeBytes: 16 * mib, typeName: "EFI system", name: "EFI-System" },
        {
          number: 2,
          startBytes: 17 * mib,
          sizeBytes: 32 * mib,
          uuid: "11111111-2222-4333-8444-555555555555",
        },
      ],
      errors: [],
    });
  });

  test("for other sectors than the disk's is told: the kernel sees none", async () => {
    const found = await probe(putGpt(sparseDisk(128 * mib), 512, partitions), 4096);
    expect(found.table).toMatchObject({ sectorBytes: 512, primary: "good" });
    expect(found.errors).toEqual(["the table counts in sectors of 512 bytes; the disk's have 4096"]);
  });

  test("with a broken beginning is read from its end", async () => {
    const disk = putGpt(sparseDisk(128 * mib), 512, partitions).put(512 + 56, "\xff\xff\xff\xff");
    const found = await probe(disk);
    expect(found.table).toMatchObject({ primary: "bad", backup: "good" });
    expect(found.partitions).toHaveLength(2);
    expect(found.errors).toEqual(["the checksum of the primary header is wrong"]);
  });

  test("with a changed entry is bad in that copy only", async () => {
    const found = await probe(putGpt(sparseDisk(128 * mib), 512, partitions).put(1024 + 60, "x"));
    expect(found.table).toMatchObject({ primary: "bad", backup: "good" });
    expect(found.errors).toEqual(["the checksum of the primary table's entries is wrong"]);
  });

  test("cut off at its end, as an image on a larger disk, has no backup there", async () => {
    const small = putGpt(sparseDisk(128 * mib), 512, partitions);
    const large = sparseDisk(256 * mib).put(0, small.read({ offset: 0, length: mib }));
    expect((await probe(large)).table).toMatchObject({ primary: "good", backup: "missing" });
  });

  test("a header that tells of a billion entries is not believed", async () => {
    const disk = putGpt(sparseDisk(128 * mib), 512, partitions);
    const header = Buffer.from(disk.read({ offset: 512, length: 92 }));
    header.writeUInt32LE(1_000_000_000, 80);
    header.writeUInt32LE(0, 16);
    header.writeUInt32LE(crc32(header), 16);
    const found = await probe(disk.put(512, header));
    expect(found.table).toMatchObject({ primary: "bad", backup: "good" });
  });

  test("however large the entries that a header tells of, little is read", async () => {
    const disk = putGpt(sparseDisk(2 ** 40), 512, partitions);
    const header = Buffer.from(disk.read({ offset: 512, length: 92 }));
    header.writeUInt32LE(1_000_000, 80);
    header.writeUInt32LE(0, 16);
    header.writeUInt32LE(crc32(header), 16);
    disk.put(512, header);
    let most = 0;
    await probeDisk({
      sizeBytes: disk.sizeBytes,
      sectorBytes: 512,
      read: async (stretch) => {
        most = Math.max(most, stretch.length);
        return disk.read(stretch);
      },
      signal: never,
    });
    expect(most).toBeLessThanOrEqual(256 * 1024);
  });
});

describe("MBR", () => {
  test("with logical partitions, chained", async () => {
    const disk = putMbr(sparseDisk(256 * mib), [
      { type: 0x83, startSector: 2048, sectors: 32_768, active: true },
      { type: 0x05, startSector: 65_536, sectors: 262_144 },
    ]).put(440, "\x04\x03\x02\x01");
    putMbr(
      disk,
      [
        { type: 0x82, startSector: 2048, sectors: 4096 },
        { type: 0x05, startSector: 8192, sectors: 8192 },
      ],
      65_536 * 512,
    );
    putMbr(disk, [{ type: 0x8e, startSector: 2048, sectors: 4096 }], (65_536 + 8192) * 512);
    layouts.swap!.put(disk, (65_536 + 2048) * 512, 4096 * 512);
    const found = await probe(disk);
    expect(found.table).toEqual({
      type: "mbr",
      sectorBytes: 512,
      uuid: "01020304",
      primary: "good",
      backup: "missing",
    });
    expect(found.partitions.map(({ number, type, startBytes }) => [number, type, startBytes / 512])).toEqual([
      [1, "0x83", 2048],
      [2, "0x05", 65_536],
      [5, "0x82", 67_584],
      [6, "0x8e", 75_776],
    ]);
    expect(found.partitions[2]!.signatures).toMatchObject([{ kind: "swap" }]);
  });

  test("whose chain leads back ends", async () => {
    const disk = putMbr(sparseDisk(256 * mib), [{ type: 0x0f, startSector: 65_536, sectors: 262_144 }]);
    putMbr(
      disk,
      [
        { type: 0x83, startSector: 63, sectors: 100 },
        { type: 0x05, startSector: 8192, sectors: 1 },
      ],
      65_536 * 512,
    );
    putMbr(
      disk,
      [
        { type: 0x83, startSector: 63, sectors: 100 },
        { type: 0x05, startSector: 8192, sectors: 1 },
      ],
      (65_536 + 8192) * 512,
    );
    expect((await probe(disk)).partitions).toHaveLength(3);
  });

  test("that ends past the disk's end is looked into up to there, as the kernel does", async () => {
    const disk = putMbr(sparseDisk(256 * mib), [{ type: 0x8e, startSector: 20_480, sectors: 2_048_000 }]);
    layouts.LVM2_member!.put(disk, 10 * mib, 1000 * mib);
    const found = await probe(disk);
    expect(found.partitions[0]!.signatures).toMatchObject([{ kind: "LVM2_member" }]);
    expect(found.errors).toEqual(["1 partitions end past the disk's end"]);
  });

  test("that an image has brought beside the backup of an older GPT is the one that counts; both are looked into", async () => {
    const disk = putGpt(sparseDisk(256 * mib), 512, [
      { type: linux, startBytes: 200 * mib, sizeBytes: 16 * mib },
    ]).put(512, new Uint8Array(33 * 512));
    layouts.zfs_member!.put(disk, 200 * mib, 16 * mib);
    putMbr(disk, [{ type: 0x8e, startSector: 20_480, sectors: 204_800 }]);
    layouts.LVM2_member!.put(disk, 10 * mib, 100 * mib);
    const found = await probe(disk);
    expect(found.table).toMatchObject({ type: "mbr" });
    const kinds = found.partitions.map(({ signatures }) => signatures.map(({ kind }) => kind));
    expect(kinds).toEqual([["LVM2_member"], ["zfs_member"]]);
  });

  test("beside a GPT of which no copy is whole, it does not count: that is told as lost", async () => {
    const disk = putGpt(sparseDisk(256 * mib), 512, [
      { type: linux, startBytes: 200 * mib, sizeBytes: 16 * mib },
    ])
      .put(512, new Uint8Array(33 * 512))
      .put(256 * mib - 512 + 16, "\x00");
    putMbr(disk, [{ type: 0x8e, startSector: 20_480, sectors: 204_800 }]);
    layouts.LVM2_member!.put(disk, 10 * mib, 100 * mib);
    const found = await probe(disk);
    expect(found.table).toMatchObject({ type: "gpt", primary: "missing", backup: "bad" });
    expect(found.partitions[0]!.signatures).toMatchObject([{ kind: "LVM2_member" }]);
  });

  test("a hybrid one's own partitions are looked into beside those of the GPT, each once", async () => {
    const disk = putGpt(sparseDisk(256 * mib), 512, [{ type: linux, startBytes: mib, sizeBytes: 16 * mib }]);
    putMbr(disk, [
      { type: 0xee, startSector: 1, sectors: 2047 },
      { type: 0x83, startSector: 2048, sectors: 32_768 },
      { type: 0x8e, startSector: 65_536, sectors: 65_536 },
    ]);
    layouts.LVM2_member!.put(disk, 32 * mib, 32 * mib);
    const found = await probe(disk);
    expect(found.table).toMatchObject({ type: "gpt", primary: "good" });
    expect(found.partitions.map(({ startBytes }) => startBytes / mib)).toEqual([1, 32]);
    expect(found.partitions[1]!.signatures).toMatchObject([{ kind: "LVM2_member" }]);
  });

  test("with more logical partitions than are followed: what lies in the others is told not to be known", async () => {
    const disk = putMbr(sparseDisk(256 * mib), [{ type: 0x0f, startSector: 2048, sectors: 262_144 }]);
    for (let link = 0; link <= 64; link++)
      putMbr(
        disk,
        [
          { type: 0x83, startSector: 1, sectors: 8 },
          { type: 0x05, startSector: (link + 1) * 64, sectors: 64 },
        ],
        (2048 + link * 64) * 512,
      );
    const found = await probe(disk);
    expect(found.unread).toEqual(["only the first 64 logical partitions were looked into"]);
  });

  test.each([63, 2048])(
    "what claims the whole disk is found though a table from before it has a partition there (sector %d)",
    async (startSector) => {
      for (const [name, { put }] of Object.entries(layouts)) {
        const size = 64 * mib + 12_288;
        const disk = sparseDisk(size);
        put(disk, 0, size);
        const [alone] = (await probe(disk)).signatures;
        putMbr(disk, [{ type: 0x83, startSector, sectors: size / 512 - startSector }]);
        const { signatures, partitions } = await probe(disk);
        const all = [...signatures, ...partitions.flatMap((each) => each.signatures)];
        expect(
          all.filter(({ kind, offset }) => kind === alone!.kind && offset === alone!.offset),
          name,
        ).toEqual([alone]);
      }
    },
  );

  test("the boot sector of a FAT file system is none", async () => {
    const disk = sparseDisk(64 * mib).put(446, "BOOTMGR is missing, press any key");
    layouts.vfat!.put(disk, 0, 64 * mib);
    expect(await probe(disk)).toMatchObject({ table: null, signatures: [{ kind: "vfat" }] });
  });
});

test("what cannot be read is told, and the rest is found", async () => {
  const disk = sparseDisk(64 * mib);
  layouts.ext4!.put(disk, 0, 64 * mib);
  const found = await probeDisk({
    sizeBytes: disk.sizeBytes,
    sectorBytes: 512,
    read: async (stretch) => {
      if (stretch.offset > 32 * mib) throw Object.assign(new Error("i/o error, read"), { code: "EIO" });
      return disk.read(stretch);
    },
    signal: never,
  });
  expect(found.signatures).toMatchObject([{ kind: "ext4" }]);
  expect(found.errors.length).toBeGreaterThan(0);
  expect(found.errors.every((error) => error.endsWith("EIO"))).toBe(true);
  expect(found.unread).toEqual(found.errors);
});

test("names that a disk gives are one printable line", async () => {
  const disk = sparseDisk(64 * mib);
  layouts.xfs!.put(disk, 0, 64 * mib);
  disk.put(108, "a\x1b[2J\x07\nb\xff\x00cd");
  expect((await probe(disk)).signatures[0]!.label).toBe("a [2J b");
});

/** Garbage at the places that are read, or a true layout with bytes changed. */
const hostileDisk = fc
  .tuple(
    fc.constantFrom(...Object.values(layouts)),
    fc.array(fc.tuple(fc.nat(2 * mib + 4096), fc.uint8Array({ minLength: 1, maxLength: 24 })), {
      maxLength: 24,
    }),
    fc.array(fc.tuple(fc.nat(140_000), fc.uint8Array({ minLength: 1, maxLength: 24 })), { maxLength: 8 }),
    fc.constantFrom(1, 511, 4096, 70_000, mib, 3 * mib + 512, 64 * mib, 2 ** 40 + 512),
    fc.constantFrom(512, 4096),
    fc.constantFrom("none", "gpt", "mbr"),
  )
  .map(([layout, head, tail, sizeBytes, sectorBytes, table]) => {
    const disk = sparseDisk(sizeBytes);
    const partition = { type: linux, startBytes: mib, sizeBytes: 16 * mib };
    if (table === "gpt" && sizeBytes >= 64 * mib) putGpt(disk, sectorBytes, [partition]);
    if (table === "mbr") putMbr(disk, [{ type: 0x05, startSector: 63, sectors: 1000 }]);
    layout.put(disk, 0, sizeBytes);
    for (const [offset, bytes] of head) disk.put(offset, bytes);
    for (const [offset, bytes] of tail) disk.put(sizeBytes - offset, bytes);
    return { disk, sectorBytes };
  });

test("garbage never throws, whatever the size", async () => {
  await fc.assert(
    fc.asyncProperty(hostileDisk, async ({ disk, sectorBytes }) => {
      const found = await probe(disk, sectorBytes);
      expect(textsOf(found).filter((text) => /\p{C}/u.test(text))).toEqual([]);
    }),
    { numRuns: 300 },
  );
});

test("what is read has no overlap and lies within the disk, whatever its size", () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.nat(4 * mib), fc.nat(2 ** 46)),
      fc.constantFrom("disk", "part"),
      (sizeBytes, region) => {
        let end = 0;
        for (const { offset, length } of stretchesOf(sizeBytes, region)) {
          expect(offset).toBeGreaterThanOrEqual(end);
          expect(length).toBeGreaterThan(0);
          end = offset + length;
        }
        expect(end).toBe(sizeBytes);
        const read = stretchesOf(sizeBytes, region).map(({ offset, length }) => ({
          offset,
          bytes: new Uint8Array(length),
        }));
        expect(findSignatures(spotsOf(sizeBytes, read), 0)).toEqual([]);
      },
    ),
  );
});
