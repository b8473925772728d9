// The operator's own record of hosts: what is written, what contradicts it, who else may write it.
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ApiClient } from "../../cli/api-client.ts";
import { addKnownHost } from "../../cli/known-host.ts";
import { openTerminal } from "../../cli/terminal.ts";
import { requireFingerprint, verifyHost } from "../../cli/trust/identity.ts";
import {
  formatKnownHost,
  knownHostOf,
  parseKnownHosts,
  requireUnchanged,
  withKnownHost,
  withoutKnownHost,
} from "../../cli/trust/known-hosts.ts";
import { changeKnownHosts, knownHostsPath, readKnownHosts } from "../../cli/trust/known-hosts-file.ts";
import { knows, type PaperHost, paperHost } from "./paper-host.ts";

const { signal } = new AbortController();
let web: PaperHost;
let db: PaperHost;
let directory: string;
beforeAll(async () => {
  [web, db] = [await paperHost("web-1"), await paperHost("db-1")];
  directory = await mkdtemp(join(tmpdir(), "bedplate-known-"));
});
afterAll(() => rm(directory, { recursive: true }));

const codeOf = (code: string) => expect.objectContaining({ code });

describe("the text", () => {
  test("has a line a host, and keeps comments and the other lines", () => {
    const first = withKnownHost("# mine\n\n", web.known);
    const both = withKnownHost(first, db.known);
    expect(both).toBe(`# mine\n\n${formatKnownHost(web.known)}\n${formatKnownHost(db.known)}\n`);
    expect(parseKnownHosts(both, "f")).toEqual([web.known, db.known]);
    expect(withoutKnownHost(both, web.id)).toBe(`# mine\n\n${formatKnownHost(db.known)}\n`);
    expect(withoutKnownHost(formatKnownHost(web.known), web.id)).toBe("");
  });

  test("a host that is renamed is there once", () => {
    const renamed = { ...web.known, name: "web-9" };
    expect(parseKnownHosts(withKnownHost(withKnownHost("", web.known), renamed), "f")).toEqual([renamed]);
  });

  test.each([
    ["deadbeef web-1 ssh-ed25519 AAAA", /line 1: .*host id/],
    [`${"a".repeat(64)} web-1`, /line 1: .*public key/],
    [`${"a".repeat(64)} web-1 ssh-rsa AAAAB3NzaC1yc2E=`, /line 1/],
    [`\n# x\n${"a".repeat(64)} -web ssh-ed25519 AAAA`, /line 3: .*name/],
  ])("%j is refused with its line", (text, message) => {
    expect(() => parseKnownHosts(text, "f")).toThrow(
      expect.objectContaining({ code: "config.invalid", message: expect.stringMatching(message) }),
    );
  });

  test("two lines of one host, or of one name, are no answer", () => {
    const line = formatKnownHost(web.known);
    expect(() => parseKnownHosts(`${line}\n${line}\n`, "f")).toThrow(/line 2: .*twice/);
    const other = formatKnownHost({ ...db.known, name: "web-1" });
    expect(() => parseKnownHosts(`${line}\n${other}\n`, "f")).toThrow(/line 2: .*name web-1 is there twice/);
  });

  test("a fleet's file is read in a time that grows with its hosts, not with their square", () => {
    const key = formatKnownHost(web.known).split(" ").slice(2).join(" ");
    const fileOf = (hosts: number) =>
      Array.from({ length: hosts }, (_, i) => `${`${i}`.padStart(64, "0")} host-${i} ${key}`).join("\n");
    const msOf = (text: string) => {
      const since = performance.now();
      parseKnownHosts(text, "f");
      return performance.now() - since;
    };
    const [few, many] = [fileOf(3000), fileOf(24_000)];
    msOf(few);
    // Eight times as many take eight times as long, or sixty-four.
    const ratio = Math.min(msOf(many), msOf(many)) / Math.max(msOf(few), msOf(few));
    expect(ratio).toBeLessThan(24);
  });
});

describe("what the controller says", () => {
  test("of a known host and of a stranger", async () => {
    expect(await knownHostOf(knows(web), web)).toEqual(web.known);
    expect(await knownHostOf(knows(web), { ...web, identity: null })).toEqual(web.known);
    expect(await knownHostOf(knows(web), db)).toBeUndefined();
  });

  test("another attestation key is refused loudly, with both fingerprints and what to do", async () => {
    const imposter = { ...web, identity: { ...web.identity, attestationKey: db.attestationKey } };
    const error = await knownHostOf(knows(web), imposter).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "host.key-changed",
      message: expect.stringMatching(/HAS CHANGED.*SHA256:\S+;.*SHA256:\S+\./),
      hint: expect.stringContaining("bedplate known-hosts remove web-1"),
    });
    const [known, found] = [...(error as Error).message.matchAll(/SHA256:[A-Za-z0-9+/]{43}/g)];
    expect(known![0]).not.toBe(found![0]);
    await expect(
      requireUnchanged(knows(web), { ...web.known, attestationKey: db.known.attestationKey }),
    ).rejects.toThrow(codeOf("host.key-changed"));
    const garbage = { ...web, identity: { attestationKey: "ssh-ed25519 ????" } };
    await expect(knownHostOf(knows(web), garbage)).rejects.toThrow(codeOf("host.key-changed"));
  });

  test("another host under a known name, or a known one under another, is refused", async () => {
    await expect(knownHostOf(knows(web, db), { ...db, name: "web-1" })).rejects.toThrow(
      codeOf("host.key-changed"),
    );
    await expect(knownHostOf(knows(web), { ...web, name: "web-2" })).rejects.toThrow(/known as web-1/);
    await expect(requireUnchanged(knows(web), { ...db.known, name: "web-1" })).rejects.toThrow(
      codeOf("host.key-changed"),
    );
    await requireUnchanged(knows(web), { ...web.known, name: "web-2" });
  });
});

describe("verifying a host from its fingerprint", () => {
  test("gives the line to keep", async () => {
    const { known, attestationFingerprint } = await verifyHost(web, web.fingerprint);
    expect(known).toEqual(web.known);
    expect(attestationFingerprint).toMatch(/^SHA256:/);
    await verifyHost(web, web.id);
    await verifyHost(web, web.fingerprint.toLowerCase().replaceAll("-", ":"));
  });

  test.each([
    ["another fingerprint", () => db.fingerprint],
    ["too few digits", () => web.fingerprint.slice(0, 14)],
    ["nothing", () => ""],
    ["more digits than agree", () => `${web.id.slice(0, 16)}${web.id[16] === "0" ? "1" : "0"}`],
  ])("%s is refused", (_, given) => {
    expect(() => requireFingerprint(web, given())).toThrow(codeOf("enrol.fingerprint-mismatch"));
  });

  test("each link of the chain is checked", async () => {
    const lie = (changes: Partial<PaperHost["identity"]>) => ({
      ...web,
      identity: { ...web.identity, ...changes },
    });
    for (const host of [
      // The whole identity of another host.
      { ...web, identity: db.identity },
      { ...web, identity: db.identity, linkKey: db.linkKey },
      { ...web, linkKey: db.linkKey },
      lie({ attestationKey: db.attestationKey }),
      lie({ attestationKey: db.attestationKey, proof: db.identity.proof }),
      lie({ proof: db.identity.proof }),
      lie({ linkSignature: db.identity.linkSignature }),
    ])
      await expect(verifyHost(host, web.fingerprint)).rejects.toThrow(codeOf("identity.invalid"));
    await expect(verifyHost({ ...web, identity: null }, web.fingerprint)).rejects.toThrow(
      codeOf("identity.missing"),
    );
  });
});

describe("the file", () => {
  test("lies in the user's configuration, unless said otherwise", () => {
    expect(knownHostsPath("x", {})).toBe("x");
    expect(knownHostsPath(undefined, { HOME: "/home/a" })).toBe("/home/a/.config/bedplate/known_hosts");
    expect(knownHostsPath(undefined, { HOME: "/home/a", XDG_CONFIG_HOME: "/c" })).toBe(
      "/c/bedplate/known_hosts",
    );
  });

  test("of two machines that are made known by one name at once, one is refused", async () => {
    const path = join(directory, "race", "known_hosts");
    const other = await paperHost("web-1");
    const terminal = openTerminal({ json: false });
    const quiet = { ...terminal, print: () => {}, document: () => {} };
    const add = (host: PaperHost) =>
      addKnownHost({
        client: { host: async () => host } as unknown as ApiClient,
        ...{ terminal: quiet, signal, reference: "web-1", fingerprint: host.fingerprint, path },
      });
    const [first, second] = await Promise.allSettled([add(web), add(other)]);
    expect([first.status, second.status].sort()).toEqual(["fulfilled", "rejected"]);
    const { reason } = [first, second].find(({ status }) => status === "rejected") as PromiseRejectedResult;
    expect(reason).toEqual(codeOf("host.key-changed"));
    const kept = first.status === "fulfilled" ? web : other;
    expect((await readKnownHosts(path)).hosts).toEqual([kept.known]);
  });

  test("is made private, changed whole, and many changes at once are all kept", async () => {
    const path = join(directory, "own", "bedplate", "known_hosts");
    expect(await readKnownHosts(path)).toEqual({ path, hosts: [] });
    const hosts = await Promise.all(Array.from({ length: 8 }, (_, i) => paperHost(`h-${i}`)));
    await Promise.all(
      hosts.map(({ known }) => changeKnownHosts(path, (text) => withKnownHost(text, known), signal)),
    );
    expect((await readKnownHosts(path)).hosts.map(({ name }) => name).sort()).toEqual(
      hosts.map(({ name }) => name).sort(),
    );
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(join(directory, "own", "bedplate"))).toEqual(["known_hosts"]);
  });

  test("a change that fails leaves it as it was", async () => {
    const path = join(directory, "kept");
    await changeKnownHosts(path, () => withKnownHost("", web.known), signal);
    const before = await readFile(path, "utf8");
    const throws = () => {
      throw new Error("no");
    };
    await expect(changeKnownHosts(path, throws, signal)).rejects.toThrow();
    await expect(changeKnownHosts(path, () => "nonsense\n", signal)).rejects.toThrow(
      codeOf("config.invalid"),
    );
    expect(await readFile(path, "utf8")).toBe(before);
    await changeKnownHosts(path, (text) => text, signal);
  });

  test("is not believed where others could have written it", async () => {
    const path = join(directory, "open");
    await writeFile(path, `${formatKnownHost(web.known)}\n`);
    await chmod(path, 0o666);
    await expect(readKnownHosts(path)).rejects.toThrow(codeOf("state.unsafe"));
    await chmod(path, 0o644);
    await readKnownHosts(path);
    const shared = join(directory, "shared");
    await mkdir(shared);
    await writeFile(join(shared, "known_hosts"), "");
    await chmod(shared, 0o777);
    await expect(readKnownHosts(join(shared, "known_hosts"))).rejects.toThrow(codeOf("state.unsafe"));
  });
});
