// The pins: what a host trusts, what makes it trust something else, and what never does.
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { openStateDirectory } from "../../agent/host/state-directory.ts";
import { openPins } from "../../agent/link/authority.ts";
import { type Authority, openAuthority } from "../../controller/authority/authority.ts";
import { openPrivateDirectory } from "../../controller/machine/files.ts";
import { systemRandom } from "../../controller/machine/system.ts";
import { formatJoinToken } from "../../protocol/join-token.ts";

let root: string;
let [a, b, c]: Authority[] = [];
let served: string;
let status = 200;
const server = { url: new URL("https://127.0.0.1:1"), stop: async () => {} };
const never = new AbortController().signal;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "bedplate-pins-"));
  [a, b, c] = await Promise.all(
    ["a", "b", "c"].map(async (name) => {
      await openPrivateDirectory(join(root, name));
      return openAuthority(join(root, name), [], systemRandom);
    }),
  );
  // Whoever it is: the first connection trusts nobody.
  const listener = createServer({ key: c!.keyPem, cert: c!.certificatePem }, (_request, response) => {
    response.statusCode = status;
    response.end(served);
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  server.url = new URL(`https://127.0.0.1:${(listener.address() as AddressInfo).port}`);
  server.stop = () => new Promise((resolve) => listener.close(() => resolve()));
});
afterAll(async () => {
  await server.stop();
  rmSync(root, { recursive: true });
});

let state: ReturnType<typeof openStateDirectory>;
beforeEach(() => {
  served = a!.caPem;
  status = 200;
  state = openStateDirectory(join(mkdtempSync(join(root, "host-")), "state"));
});
afterEach(() => rmSync(join(state.path, ".."), { recursive: true }));

const tokenFor = ({ caSha256 }: Authority) =>
  formatJoinToken({ id: "0123456789abcdef", secret: "s".repeat(43), caSha256 });
const pinned = async (authority: Authority) => {
  served = authority.caPem;
  const pins = openPins(state);
  await pins.adopt(server.url, tokenFor(authority), never);
  return pins;
};

test("the authority of the join token is pinned, and is still when the agent starts again", async () => {
  const pins = openPins(state);
  expect(pins.pem).toBeUndefined();
  expect(pins.isNews(tokenFor(a!))).toBe(true);
  expect(await pins.adopt(server.url, tokenFor(a!), never)).toBe(a!.caPem);
  expect(pins.pem).toBe(a!.caPem);
  expect(openPins(state).pem).toBe(a!.caPem);
  expect(openPins(state).isNews(tokenFor(a!))).toBe(false);
});

test("of several certificates that are shown, the one that the token names is pinned, and no other", async () => {
  served = b!.caPem + a!.caPem;
  const pins = openPins(state);
  await pins.adopt(server.url, tokenFor(a!), never);
  expect(pins.pem).toBe(a!.caPem);
});

test("another authority, a leaf, rubbish and silence are refused, and nothing is pinned", async () => {
  const pins = openPins(state);
  const refused = async (text: string, code = "controller.untrusted", token = tokenFor(a!)) => {
    served = text;
    await expect(pins.adopt(server.url, token, never)).rejects.toMatchObject({ code });
    expect(existsSync(join(state.path, "controller-ca.pem"))).toBe(false);
  };
  await refused(b!.caPem);
  await refused("");
  await refused("hello");
  await refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  await refused(a!.certificatePem);
  await refused(a!.caPem.repeat(5));
  status = 404;
  await refused(a!.caPem, "controller.unreachable");
  status = 200;
  await refused("x".repeat(100_000), "controller.unreachable");
  expect(pins.pem).toBeUndefined();
});

test("authorities that the controller names take the place of those before; who was given up is never trusted again", async () => {
  const pins = await pinned(a!);
  expect(pins.replace(b!.caPem + a!.caPem)).toBe("changed");
  expect(pins.pem).toBe(b!.caPem + a!.caPem);
  expect(pins.replace(b!.caPem + a!.caPem)).toBe("same");
  expect(openPins(state).pem).toBe(b!.caPem + a!.caPem);
  expect(pins.replace(b!.caPem)).toBe("changed");
  expect(openPins(state).pem).toBe(b!.caPem);
  // A token of the old authority, left in a configuration file, and a server with the stolen key.
  served = a!.caPem;
  expect(pins.isNews(tokenFor(a!))).toBe(true);
  await expect(pins.adopt(server.url, tokenFor(a!), never)).rejects.toMatchObject({
    ...{ code: "controller.untrusted", message: expect.stringContaining("given up") },
    hint: expect.stringContaining("join-token create"),
  });
  await expect(openPins(state).adopt(server.url, tokenFor(a!), never)).rejects.toThrow();
  expect(openPins(state).pem).toBe(b!.caPem);
  // A new one is welcome.
  served = c!.caPem;
  await pins.adopt(server.url, tokenFor(c!), never);
  expect(openPins(state).pem).toBe(c!.caPem);
});

test("authorities of which none is trusted, and what is none, are not taken from any controller", async () => {
  const pins = await pinned(a!);
  for (const text of [b!.caPem, b!.caPem + c!.caPem, "", "rubbish", a!.certificatePem, a!.caPem.repeat(5)])
    expect(() => pins.replace(text)).toThrow(expect.objectContaining({ code: "controller.untrusted" }));
  expect(openPins(state).pem).toBe(a!.caPem);
  expect(existsSync(join(state.path, "controller-ca-dropped.json"))).toBe(false);
});

test("who dies between the two files trusts what it trusted, and is told again", async () => {
  const pins = await pinned(a!);
  pins.replace(b!.caPem + a!.caPem);
  const dropped = () => JSON.parse(readFileSync(join(state.path, "controller-ca-dropped.json"), "utf8"));
  // Only the first of the two was written.
  state.write("controller-ca-dropped.json", Buffer.from(JSON.stringify([a!.caSha256])));
  const again = openPins(state);
  expect(again.pem).toBe(b!.caPem + a!.caPem);
  expect(again.replace(b!.caPem)).toBe("changed");
  expect(again.pem).toBe(b!.caPem);
  expect(dropped()).toContain(a!.caSha256);
});

test("a list of given-up authorities that cannot be read opens no door that the token does not open", async () => {
  await pinned(a!);
  state.write("controller-ca-dropped.json", Buffer.from("{"));
  served = b!.caPem;
  const pins = openPins(state);
  await expect(pins.adopt(server.url, tokenFor(c!), never)).rejects.toMatchObject({
    code: "controller.untrusted",
  });
  await pins.adopt(server.url, tokenFor(b!), never);
  expect(pins.pem).toBe(b!.caPem);
});
