// The transport of API clients: what becomes of a request on a connection that the server has just closed.
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openTransport } from "../../cli/api-transport.ts";
import { openAuthority } from "../../controller/authority/authority.ts";
import { systemRandom } from "../../controller/machine/system.ts";
import { type TestController, testController } from "../support/controller.ts";

let controller: TestController;
beforeAll(async () => {
  controller = await testController();
});
afterAll(() => controller[Symbol.asyncDispose]());

/** Answers once on each connection, and cuts it off at the second request: as one that closes it just then. */
async function forgetful() {
  const { keyPem, certificatePem } = await openAuthority(controller.directory, [], systemRandom);
  const asked: string[] = [];
  const served = new WeakSet<object>();
  const server = createServer({ key: keyPem, cert: certificatePem }, (request, response) => {
    asked.push(`${request.method} ${request.url}`);
    if (served.has(request.socket)) return void request.socket.destroy();
    served.add(request.socket);
    request.resume();
    response.setHeader("content-type", "application/json");
    response.end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return {
    asked,
    transport: openTransport({ url, token: "t", ca: controller.ca }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const { signal } = new AbortController();

test("a kept connection that is closed as it is used again: what may be asked twice is, the rest does not use it", async () => {
  await using server = await forgetful();
  using transport = server.transport;
  const get = () => transport.json({ method: "GET", path: "/v1/hosts", signal });
  expect(await get()).toEqual({});
  expect(await get()).toEqual({});
  expect(server.asked).toEqual(Array(3).fill("GET /v1/hosts"));
  const command = () => transport.json({ method: "POST", path: "/v1/commands", json: {}, signal });
  expect(await command()).toEqual({});
  await get();
  expect(await transport.json({ method: "POST", path: "/v1/tokens", json: {}, signal })).toEqual({});
  expect(server.asked.filter((each) => each === "POST /v1/tokens")).toHaveLength(1);
});

test("bytes that break off: the controller is told to be gone, with what it broke off by", async () => {
  const { keyPem, certificatePem } = await openAuthority(controller.directory, [], systemRandom);
  const server = createServer({ key: keyPem, cert: certificatePem }, (_, response) => {
    response.setHeader("content-length", 1000);
    response.write("the beginning", () => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const url = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
    using transport = openTransport({ url, token: "t", ca: controller.ca });
    const bytes = await transport.bytes({ method: "GET", path: "/v1/images/r/frames", signal });
    await expect(Array.fromAsync(bytes)).rejects.toMatchObject({
      code: "controller.unreachable",
      message: expect.stringContaining(url.host),
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
