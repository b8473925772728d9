// Who the executor is, as the agent finds it out and vouches for it: once for each change, and never for another host.
import { generateKeyPairSync, sign } from "node:crypto";
import { expect, test, vi } from "vitest";
import { systemClock } from "../../agent/host/clock.ts";
import { createIdentityWatch, identityLimits } from "../../agent/link/identity.ts";
import {
  attestationProofBytes,
  type ExecutorIdentity,
  identityDigest,
  verifyIdentity,
} from "../../protocol/identity.ts";
import { hostIdOf } from "../../protocol/link-proof.ts";
import type { RecordBody } from "../../protocol/messages.ts";
import { publicKeyLine, signMessage } from "../../protocol/ssh-sign.ts";

const keyOf = () => {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  return {
    publicKey: Uint8Array.from(publicKey.export({ format: "der", type: "spki" }).subarray(-32)),
    sign: (data: Uint8Array) => Uint8Array.from(sign(null, data, privateKey)),
  };
};
const linkKey = keyOf();
const hostId = await hostIdOf(linkKey.publicKey);
const attestation = keyOf();

async function identityOf(more: Partial<ExecutorIdentity> = {}): Promise<ExecutorIdentity> {
  return {
    ...{ bedplate: "identity/1", host: hostId, hostname: "h", chassisSerial: "S1", privilegeSplit: "absent" },
    attestationKey: publicKeyLine(attestation.publicKey, "bedplate-attestation"),
    proof: await signMessage(attestation, "bedplate-identity", attestationProofBytes(hostId)),
    ...{ policyState: "missing", policyDigest: null },
    ...more,
  };
}

/** A watch over a pretended file; time passes a thousand times as fast. */
function watched(hurry = 1000) {
  const records: Extract<RecordBody, { type: "identity" }>[] = [];
  const requests: unknown[] = [];
  let file: string | undefined;
  const disk = { full: false, refused: 0 };
  const missing = () => Object.assign(new Error("there is none"), { code: "ENOENT" });
  const log = { warn: vi.fn(), info: vi.fn(), debug: vi.fn(), error: vi.fn() };
  const watch = createIdentityWatch({
    path: "/run/identity.json",
    keys: { hostId, linkKey: linkKey.publicKey, instance: "i", sign: linkKey.sign },
    files: {
      readBytes: () => {
        if (file === undefined) throw missing();
        return Buffer.from(file);
      },
    },
    executors: {
      start: async (request) => {
        requests.push(request);
        return { ended: Promise.resolve(), logTail: () => "" };
      },
    },
    outbox: {
      append: (body) => {
        if (disk.full) {
          disk.refused += 1;
          throw Object.assign(new Error("database or disk is full"), { errcode: 13 });
        }
        if (body.type === "identity") records.push(body);
      },
    },
    clock: { ...systemClock, sleep: (ms, signal) => systemClock.sleep(ms / hurry, signal) },
    log: log as never,
    onChange: () => {},
  });
  const stopping = new AbortController();
  const running = watch.run(stopping.signal);
  return {
    watch,
    disk,
    records,
    requests,
    log,
    publish: (identity: ExecutorIdentity | string) => {
      file = typeof identity === "string" ? identity : JSON.stringify(identity);
      watch.executorRan();
    },
    async [Symbol.asyncDispose]() {
      stopping.abort();
      await running;
    },
  };
}
const until = (done: () => void) => vi.waitFor(done, { timeout: 10_000, interval: 5 });
const settle = () => new Promise((resolve) => setTimeout(resolve, 40));

test("what the executor publishes is vouched for by the link key and sent once the controller is known not to have it", async () => {
  await using host = watched();
  const identity = await identityOf({ policyState: "present", policyDigest: "cd".repeat(32) });
  host.publish(identity);
  await settle();
  expect(host.records).toEqual([]);
  host.watch.welcomed(undefined);
  await until(() => expect(host.records).toHaveLength(1));
  const sent = host.records[0]!.identity;
  expect(sent).toMatchObject(identity);
  expect(await verifyIdentity(sent, linkKey.publicKey)).toMatch(/^SHA256:/);
  // Known by now: neither reading it again nor the next welcome sends it again.
  host.publish(identity);
  host.watch.welcomed(await identityDigest(identity));
  await settle();
  expect(host.records).toHaveLength(1);
});

test("on a full disk it is tried again until there is room, and nothing ends by it", async () => {
  await using host = watched();
  host.disk.full = true;
  host.publish(await identityOf());
  host.watch.welcomed(undefined);
  await until(() => expect(host.disk.refused).toBeGreaterThan(2));
  expect(host.log.warn).toHaveBeenCalledOnce();
  host.disk.full = false;
  await until(() => expect(host.records).toHaveLength(1));
});

test("each change is sent, also one back to what was before; a controller that lost it gets it again", async () => {
  await using host = watched();
  const [a, b] = [await identityOf(), await identityOf({ hostname: "renamed" })];
  host.publish(a);
  host.watch.welcomed(await identityDigest(a));
  await settle();
  expect(host.records).toEqual([]);
  for (const [count, identity] of [b, a].entries()) {
    host.publish(identity);
    await until(() => expect(host.records).toHaveLength(count + 1));
  }
  expect(host.records.map(({ identity }) => identity.hostname)).toEqual(["renamed", "h"]);
  host.watch.welcomed(undefined);
  await until(() => expect(host.records).toHaveLength(3));
});

test(
  "an executor is asked soon after the start, and again each hour",
  async () => {
    await using host = watched(10_000);
    await until(() => expect(host.requests).toHaveLength(3));
    expect(host.requests[0]).toEqual({ request: "identify", host: hostId });
  },
  (identityLimits.firstAskMs + 2 * identityLimits.askEveryMs) / 10_000 + 10_000,
);

test("what another host's executor left there, and what is none, is not vouched for", async () => {
  await using host = watched();
  host.watch.welcomed(undefined);
  host.publish(await identityOf({ host: "ef".repeat(32) }));
  await settle();
  for (const text of ["", "{", "[]", '{"bedplate":"identity/2"}', "\0".repeat(100)]) {
    host.publish(text);
    await settle();
  }
  expect(host.records).toEqual([]);
  expect(host.log.warn).toHaveBeenCalled();
  // Complained of, but not each time.
  expect(host.log.warn.mock.calls.length).toBeLessThan(5);
  host.publish(await identityOf());
  await until(() => expect(host.records).toHaveLength(1));
});
