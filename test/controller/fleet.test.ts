// A controller with many hosts: how often they speak and how slowly they come back, from the first welcome on.
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { Fleet } from "../../controller/link/fleet.ts";
import { systemClock } from "../../controller/machine/system.ts";
import { testClock } from "../support/clock.ts";
import { testController } from "../support/controller.ts";
import { joinLink, newLinkKey } from "../support/link-client.ts";

test("the first agent that comes back to a restarted controller is told of the fleet that will follow", async () => {
  await using controller = await testController();
  const key = newLinkKey();
  const first = await joinLink(controller, { key, joinToken: await controller.joinToken() });
  expect(first.welcome).toMatchObject({ heartbeatMs: 10_000, reconnectWindowMs: 5000 });
  first.client[Symbol.dispose]();
  await controller.offline(async () => {
    const database = new DatabaseSync(join(controller.directory, "controller.db"));
    const insert = database.prepare(
      "insert into hosts (id, name, link_key, hostname, instance, boot_id, agent_version, joined_at, changed_at, last_seen_at, standing) values (?, ?, ?, '', '', '', '', 0, 0, ?, ?)",
    );
    database.exec("begin");
    for (let i = 0; i < 2500; i++) {
      const id = i.toString(16).padStart(64, "0");
      // Hosts that were not seen for days, or never will be, are not reckoned with.
      const [seenAt, standing] =
        i < 2000 ? [Date.now(), "approved"] : i < 2250 ? [0, "approved"] : [Date.now(), "revoked"];
      insert.run(id, `h${i}`, Buffer.from(id, "hex"), seenAt, standing);
    }
    database.exec("commit");
    database.close();
  });
  const again = await joinLink(controller, { key });
  expect(again.welcome).toMatchObject({ heartbeatMs: 40_020, reconnectWindowMs: 10_005 });
  // An agent that was told so is not given up on earlier.
  expect(again.client.socket.readyState).toBe(again.client.socket.OPEN);
  again.client[Symbol.dispose]();
});

test("the count is taken again when it is old, and never below those that are connected", async () => {
  const clock = testClock();
  let [hosts, connected, asked] = [10, 0, 0];
  const fleet = new Fleet({
    hosts: {
      countSeen: async (since) => {
        asked += 1;
        expect(since).toBeLessThanOrEqual(systemClock.now() - 86_000_000);
        return hosts;
      },
    },
    sessions: {
      get count() {
        return connected;
      },
    } as never,
    clock: { ...clock, now: () => systemClock.now() },
  });
  expect([fleet.size, await fleet.count(), fleet.size]).toEqual([0, 10, 10]);
  [hosts, connected] = [50, 12];
  expect([await fleet.count(), asked]).toEqual([12, 1]);
  clock.advance(11_000);
  expect([await fleet.count(), asked]).toEqual([50, 2]);
});
