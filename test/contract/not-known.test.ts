// An executor that is only asked whether it knows a command says that it does not, by that very code.
import { expect, test } from "vitest";
import { attach, hostId, mintId, openExecutorHost, runRequest } from "../support/executor-host.ts";

test("who asks for a command that the journal does not know reads command.not-known, and nothing is kept", async () => {
  await using host = await openExecutorHost();
  await host.writePolicy("allowDisks = []\n");
  const id = mintId();
  const command = {
    id,
    host: hostId,
    kind: "host.inventory",
    mode: "apply",
    arguments: {},
    limits: {},
  } as const;
  for (let times = 0; times < 2; times++) {
    host.start({ ...runRequest(command), onlyKnown: true } as ReturnType<typeof runRequest>);
    const follower = await attach(host, id);
    expect(await follower.last).toMatchObject({ type: "refused", error: { code: "command.not-known" } });
    follower.close();
  }
});
