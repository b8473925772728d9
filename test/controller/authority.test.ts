// The CA and the server's certificate: private, for ever, reissued for new names, and never to be imitated.
import { execFileSync } from "node:child_process";
import { createPrivateKey, X509Certificate } from "node:crypto";
import {
  chmod,
  copyFile,
  link,
  mkdir,
  mkdtemp,
  open as openFile,
  readdir,
  readFile,
  rm,
  stat,
} from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, createServer } from "node:tls";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  type Authority,
  beginRotation,
  finishRotation,
  openAuthority,
  sha256OfCertificate,
} from "../../controller/authority/authority.ts";
import { Backups } from "../../controller/backup.ts";
import { openPrivateDirectory, writePrivateFile } from "../../controller/machine/files.ts";
import { silentLog } from "../../controller/machine/log.ts";
import { systemClock, systemRandom } from "../../controller/machine/system.ts";
import type { Store } from "../../controller/store/store.ts";
import { tlsServerName } from "../../protocol/messages.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-authority-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const open = (names: string[] = []) => openAuthority(directory, names, systemRandom);
const hasOpenssl = (() => {
  try {
    execFileSync("openssl", ["version"]);
    return true;
  } catch {
    return false;
  }
})();

test("it is made once, with keys that nobody else can read", async () => {
  const first = await open(["10.1.2.3", "controller.example.org"]);
  expect(await open(["10.1.2.3", "controller.example.org"])).toEqual(first);
  for (const key of ["ca.key", "server.key"])
    expect((await stat(join(directory, key))).mode & 0o777).toBe(0o600);
  expect(first.caSha256).toBe(sha256OfCertificate(await readFile(join(directory, "ca.pem"), "utf8")));
  const leaf = new X509Certificate(first.certificatePem);
  expect(leaf.checkHost(tlsServerName)).toBe(tlsServerName);
  expect(leaf.checkHost("controller.example.org")).toBeDefined();
  expect(leaf.checkHost("other.example.org")).toBeUndefined();
  expect([leaf.checkIP("127.0.0.1"), leaf.checkIP("10.1.2.3"), leaf.checkIP("10.1.2.4")]).toEqual([
    "127.0.0.1",
    "10.1.2.3",
    undefined,
  ]);
  expect(leaf.ca).toBe(false);
  expect(leaf.verify(new X509Certificate(first.caPem).publicKey)).toBe(true);
});

test("new names get a new server certificate of the same authority", async () => {
  const before = await open();
  const after = await open(["10.9.8.7"]);
  expect(after.caPem).toBe(before.caPem);
  expect(after.certificatePem).not.toBe(before.certificatePem);
  expect(new X509Certificate(after.certificatePem).checkIP("10.9.8.7")).toBeDefined();
  // A server certificate that lost its key, or has another's, is made again.
  await rm(join(directory, "server.key"));
  await open(["10.9.8.7"]);
  await copyFile(join(directory, "ca.key"), join(directory, "server.key"));
  const mended = await open(["10.9.8.7"]);
  expect(new X509Certificate(mended.certificatePem).checkPrivateKey(createPrivateKey(mended.keyPem))).toBe(
    true,
  );
});

test("a first start that was cut off in the middle is begun again; a lost key is not papered over", async () => {
  await open();
  await Promise.all(["ca.pem", "server.pem", "server.key"].map((name) => rm(join(directory, name))));
  const again = await open();
  expect(new X509Certificate(again.certificatePem).checkIssued(new X509Certificate(again.caPem))).toBe(true);
  await rm(join(directory, "ca.key"));
  await expect(open()).rejects.toMatchObject({ code: "state.unsafe" });
});

test("a key or directory that others can read is refused", async () => {
  await open();
  await chmod(join(directory, "ca.key"), 0o640);
  await expect(open()).rejects.toMatchObject({ code: "state.unsafe" });
  const loose = join(directory, "loose");
  await mkdir(loose);
  await chmod(loose, 0o750);
  await expect(openPrivateDirectory(loose)).rejects.toMatchObject({
    code: "state.unsafe",
    hint: expect.stringContaining("chmod 700"),
  });
  await chmod(loose, 0o700);
  await openPrivateDirectory(loose);
  await openPrivateDirectory(join(directory, "made", "deep"));
  expect((await stat(join(directory, "made", "deep"))).mode & 0o777).toBe(0o700);
});

test.runIf(hasOpenssl)("OpenSSL takes it strictly in 1971, 2000, 2040, 2051 and 9990", async () => {
  await open();
  for (const year of [1971, 2000, 2040, 2051, 9990]) {
    const at = Date.UTC(year, 0, 1) / 1000;
    const said = execFileSync(
      "openssl",
      [
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        tlsServerName,
        "-attime",
        `${at}`,
        "-CAfile",
        join(directory, "ca.pem"),
        join(directory, "server.pem"),
      ],
      { encoding: "utf8" },
    );
    expect(said).toContain("OK");
  }
  const dates = new X509Certificate(await readFile(join(directory, "server.pem")));
  expect([dates.validFrom, dates.validTo]).toEqual(["Jan  1 00:00:00 1970 GMT", "Dec 31 23:59:59 9999 GMT"]);
});

async function connectTo(server: { key: string; cert: string }, ca: string): Promise<string> {
  const listener = createServer({ ...server, minVersion: "TLSv1.3" }, (socket) => socket.end());
  listener.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = listener.address() as AddressInfo;
    return await new Promise((resolve) => {
      const socket = connect(
        { port, host: "127.0.0.1", ca, servername: tlsServerName, minVersion: "TLSv1.3" },
        () => {
          resolve("connected");
          socket.destroy();
        },
      );
      socket.on("error", (error: Error & { code?: string }) => resolve(error.code ?? error.message));
    });
  } finally {
    await new Promise((resolve) => listener.close(resolve));
  }
}

test("a forged server certificate shown together with the true CA is refused", async () => {
  const real = await open();
  const forgerDirectory = join(directory, "forger");
  await openPrivateDirectory(forgerDirectory);
  // The forger's CA has the very same name; the chain it shows ends in the true certificate.
  const forged = await openAuthority(forgerDirectory, [], systemRandom);
  expect(await connectTo({ key: real.keyPem, cert: real.certificatePem }, real.caPem)).toBe("connected");
  const chains = [
    forged.certificatePem + real.caPem,
    forged.certificatePem + forged.caPem + real.caPem,
    forged.certificatePem + real.caPem + forged.caPem,
    forged.certificatePem,
  ];
  for (const cert of chains) {
    expect(await connectTo({ key: forged.keyPem, cert }, real.caPem)).not.toBe("connected");
  }
});

async function overlap() {
  const before = await open();
  await beginRotation(directory, systemRandom, 1000);
  return { before, during: await open() };
}
const served = ({ keyPem, certificatePem }: Authority) => ({ key: keyPem, cert: certificatePem });

test("while authorities overlap, who knows either or both trusts the server; afterwards who knows the new one", async () => {
  const { before, during } = await overlap();
  expect(during.rotation).toEqual({ state: "overlapping", startedAt: 1000 });
  expect(during.trusted).toEqual([during.caSha256, before.caSha256]);
  expect(during.trustedPem).toBe(during.caPem + before.caPem);
  expect(await open()).toEqual(during);
  for (const ca of [before.caPem, during.caPem, during.trustedPem])
    expect(await connectTo(served(during), ca)).toBe("connected");
  // Both in one text are both taken, the second too.
  expect(await connectTo(served(before), during.trustedPem)).toBe("connected");
  await finishRotation(directory);
  const after = await open();
  expect(after).toMatchObject({ caSha256: during.caSha256, trusted: [during.caSha256] });
  expect(after.rotation).toEqual({ state: "finished", startedAt: 1000 });
  for (const ca of [after.caPem, during.trustedPem])
    expect(await connectTo(served(after), ca)).toBe("connected");
  expect(await connectTo(served(after), before.caPem)).not.toBe("connected");
  // Another one may follow.
  await beginRotation(directory, systemRandom, 2000);
  const next = await open();
  expect(next.trusted).toEqual([next.caSha256, after.caSha256]);
  expect(await connectTo(served(next), after.caPem)).toBe("connected");
  expect(await connectTo(served(next), before.caPem)).not.toBe("connected");
});

test("a certificate that ties authorities ties these two and no others", async () => {
  const { before, during } = await overlap();
  const strange = join(directory, "strange");
  await openPrivateDirectory(strange);
  const forged = await openAuthority(strange, [], systemRandom);
  const cross = during.certificatePem.slice(during.certificatePem.lastIndexOf("-----BEGIN"));
  // The forger's leaf with the true tie after it, and the other way round.
  expect(await connectTo({ key: forged.keyPem, cert: forged.certificatePem + cross }, before.caPem)).not.toBe(
    "connected",
  );
  expect(await connectTo(served(during), forged.caPem)).not.toBe("connected");
  expect(new X509Certificate(cross).verify(new X509Certificate(before.caPem).publicKey)).toBe(true);
});

test("a rotation is begun once and finished once, and a controller that dies in between goes on", async () => {
  await expect(finishRotation(directory)).rejects.toMatchObject({ code: "authority.not-overlapping" });
  const { during } = await overlap();
  await expect(beginRotation(directory, systemRandom, 2000)).rejects.toMatchObject({
    code: "authority.overlapping",
  });
  const kept = JSON.parse(await readFile(join(directory, "rotation.json"), "utf8"));
  expect((await stat(join(directory, "rotation.json"))).mode & 0o777).toBe(0o600);
  // Dead after the first or the second file of the end, before the last: it is under way still.
  for (const [name, content] of [
    ["ca.key", kept.newKey],
    ["ca.pem", kept.newCertificate],
  ] as const) {
    await writePrivateFile(join(directory, name), content);
    expect(await open()).toEqual(during);
  }
  await finishRotation(directory);
  await expect(finishRotation(directory)).rejects.toMatchObject({ code: "authority.not-overlapping" });
  expect((await open()).trusted).toEqual([during.caSha256]);
  // Nothing of the old key is left.
  for (const name of await readdir(directory))
    expect(await readFile(join(directory, name), "utf8")).not.toContain(kept.oldCertificate);
});

test("a rotation that cannot be read is no reason to serve with whatever there is", async () => {
  await overlap();
  await writePrivateFile(join(directory, "rotation.json"), '{"state":"overlapping"}');
  await expect(open()).rejects.toMatchObject({ code: "state.unsafe" });
});

test.runIf(hasOpenssl)("OpenSSL takes the tied chain strictly", async () => {
  const { before, during } = await overlap();
  await writePrivateFile(join(directory, "chain.pem"), during.certificatePem);
  for (const [name, ca] of [
    ["old.pem", before.caPem],
    ["new.pem", during.caPem],
    ["both.pem", during.trustedPem],
  ] as const) {
    await writePrivateFile(join(directory, name), ca);
    const chain = ["-untrusted", join(directory, "chain.pem"), "-CAfile", join(directory, name)];
    const wanted = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", tlsServerName];
    const said = execFileSync("openssl", ["verify", ...wanted, ...chain, join(directory, "server.pem")], {
      encoding: "utf8",
    });
    expect(said).toContain("OK");
  }
});

test("a backup that is made while a rotation finishes has one authority, whole: the new one", async () => {
  const [from, to] = [join(directory, "from"), join(directory, "to")];
  for (const each of [from, to]) await openPrivateDirectory(each);
  await openAuthority(from, [], systemRandom);
  await beginRotation(from, systemRandom, 1000);
  const { caSha256 } = await openAuthority(from, [], systemRandom);
  // Whoever reads the old key waits until we give it, also when another took its place meanwhile.
  const [keyFile, pipe] = [join(from, "ca.key"), join(directory, "pipe")];
  const oldKey = await readFile(keyFile, "utf8");
  await rm(keyFile);
  execFileSync("mkfifo", ["-m", "600", keyFile]);
  await link(keyFile, pipe);
  let kept: Readonly<Record<string, string>> = {};
  const store = {
    epoch: async () => 1,
    events: { append: async () => {} } as unknown as Store["events"],
    backup: async (file: string, files: Readonly<Record<string, string>>) => {
      kept = files;
      await writePrivateFile(file, "database");
    },
  };
  const made = new Backups({
    ...{ store, directory: from, clock: systemClock, random: systemRandom, log: silentLog },
  }).make();
  // Opened when the backup reads it.
  const writer = await openFile(pipe, "w");
  await finishRotation(from);
  await writer.writeFile(oldKey);
  await writer.close();
  await made;
  for (const [name, content] of Object.entries(kept)) await writePrivateFile(join(to, name), content);
  expect((await openAuthority(to, [], systemRandom)).caSha256).toBe(caSha256);
});
