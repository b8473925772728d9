// What an operator signs is read from its bytes: whatever is swapped on the way, it is not signed.
import { describe, expect, test } from "vitest";
import { changePairs, confirmationsFor } from "../../cli/change-text.ts";
import { reviewText } from "../../cli/sign.ts";
import { type CommandReview, type ReviewOptions, reviewCommand } from "../../cli/trust/command-review.ts";
import type { KnownHosts } from "../../cli/trust/known-hosts.ts";
import { quoteOf, readPlan, requirePlanFor } from "../../cli/trust/plan-review.ts";
import type { Command } from "../../protocol/commands.ts";
import type { Plan, PlanArtefact } from "../../protocol/plans.ts";
import {
  commandFor,
  commandId,
  deployArguments,
  knows,
  newKey,
  nowMs,
  paperHost,
  viewOf,
} from "./paper-host.ts";

const web = await paperHost("web-1");
const db = await paperHost("db-1");
const plan = web.planFor();
const artefact = await web.artefactOf(plan);

interface Given {
  readonly command?: Command;
  readonly artefact?: PlanArtefact | null;
  readonly hostName?: string;
  readonly knownHosts?: KnownHosts;
  readonly options?: Partial<ReviewOptions>;
}

function review(given: Given = {}): Promise<CommandReview> {
  return reviewCommand({
    id: commandId,
    view: viewOf(
      given.command ?? commandFor(plan),
      given.artefact === undefined ? artefact : given.artefact,
      given.hostName ?? "web-1",
    ),
    knownHosts: given.knownHosts ?? knows(web, db),
    nowMs,
    ...given.options,
  });
}

const refused = async (code: string, given: Given) => {
  await expect(review(given)).rejects.toThrow(expect.objectContaining({ code }));
};
const withArguments = (changes: Record<string, unknown>) => ({ ...deployArguments, ...changes });
const planned = async (changes: Partial<Plan>, key = web.attestation) => {
  const changed = web.planFor(changes);
  return { command: commandFor(changed), artefact: await web.artefactOf(changed, key) };
};

test("a true command is shown from its bytes", async () => {
  const found = await review();
  expect(found.command).toEqual({ ...commandFor(plan) });
  const text = reviewText(found, { signatures: [{ fingerprint: "SHA256:abc", addedAt: 1 }] });
  for (const part of [
    "web-1  ",
    web.fingerprint,
    "web-1.example.net, chassis serial 7XK2J93",
    "serial S3Z9NX0M",
    "/dev/sda",
    "447 GiB ssd SAMSUNG MZ7LH480",
    "debian-12",
    deployArguments.image.root,
    "192 MiB",
    "2 of ops (alice, bob, carol)",
    "SHA256:abc (as the controller says)",
    "runs 15 min at most",
    found.digest,
    "the policy allows it",
  ])
    expect(text).toContain(part);
  expect(confirmationsFor(found.plan.plan, "web-1")).toMatchObject([{ expected: "S3Z9NX0M" }]);
});

describe("a controller that lies", () => {
  test("gives the document of another command", () =>
    refused("plan.changed", { command: commandFor(plan, { id: commandId.replace("0198", "0199") }) }));

  test.each([
    ["image", withArguments({ image: { ...deployArguments.image, root: "ff".repeat(32) } })],
    ["image's size", withArguments({ image: { ...deployArguments.image, sizeBytes: 1 } })],
    ["disk", withArguments({ disk: { serial: "OTHER" } })],
    ["fingerprint", withArguments({ fingerprint: { ...deployArguments.fingerprint, serial: "OTHER" } })],
  ])("swaps the %s in the document", (_, changed) =>
    refused("plan.changed", { command: commandFor(plan, { arguments: changed } as Partial<Command>) }),
  );

  test("swaps the host in the document", async () => {
    // Under its own name, so that only the plan can tell.
    await refused("host.key-changed", { command: commandFor(plan, { host: db.id }), hostName: "db-1" });
    await refused("host.key-changed", { command: commandFor(plan, { host: db.id }) });
  });

  test("swaps the kind", () =>
    refused("plan.changed", {
      command: commandFor(plan, { kind: "host.poweroff", arguments: {} } as Partial<Command>),
    }));

  test("swaps names and serials in the quote", async () => {
    const { plan: quote } = commandFor(plan);
    await refused("command.wrong-host", {
      command: commandFor(plan, { plan: { ...quote!, hostname: "other.example.net" } }),
    });
    await refused("command.wrong-host", {
      command: commandFor(plan, { plan: { ...quote!, chassisSerial: null } }),
    });
    await refused("plan.changed", {
      command: commandFor(plan, { plan: { ...quote!, digest: "0".repeat(64) } }),
    });
    await refused("plan.changed", {
      command: commandFor(plan, { plan: { ...quote!, id: commandId } }),
    });
  });

  test("gives a plan that fits the document and is changed since the host signed it", async () => {
    const arguments_ = withArguments({ disk: { serial: "OTHER" } });
    const forged = web.planFor({ arguments: arguments_ });
    await refused("signature.invalid", {
      command: commandFor(forged),
      artefact: { ...(await web.artefactOf(forged)), signature: artefact.signature },
    });
  });

  test("signs the plan with another key: a stranger's, another host's", async () => {
    await refused("host.key-changed", await planned({}, newKey()));
    await refused("host.key-changed", await planned({}, db.attestation));
  });

  test("gives another known host's true plan and document under this name", async () => {
    const other = db.planFor();
    await refused("host.key-changed", { command: commandFor(other), artefact: await db.artefactOf(other) });
    // Under its own name it is what it says it is: the operator sees which host it is.
    const found = await review({
      command: commandFor(other),
      artefact: await db.artefactOf(other),
      hostName: "db-1",
    });
    expect(reviewText(found, { signatures: [] })).toContain(db.fingerprint);
  });

  test("gives a plan of this host that names another", async () => {
    await refused(
      "command.wrong-host",
      await planned({ host: db.id }).then(({ artefact: other }) => ({
        artefact: other,
        command: { ...commandFor(web.planFor({ host: db.id })), host: web.id } as Command,
      })),
    );
  });

  test("takes the plan out, or the quote", async () => {
    await refused("plan.unknown", { artefact: null });
    const { plan: _, ...bare } = commandFor(plan);
    await refused("plan.required", { command: bare as Command });
  });

  test("gives bytes that are no document", async () => {
    const view = { document: "!!", plan: artefact, hostName: "web-1" };
    await expect(review({ options: { view } })).rejects.toThrow(/base64/);
    const text = Buffer.from("{}").toString("base64");
    await expect(review({ options: { view: { ...view, document: text } } })).rejects.toThrow(
      expect.objectContaining({ code: "command.bad-arguments" }),
    );
  });

  test("gives another document than the one another operator told of", () =>
    refused("plan.changed", { options: { digest: "0".repeat(64) } }));
});

test("what is too late, changes nothing, or is of a stranger is not signed", async () => {
  await refused("plan.expired", { options: { nowMs: plan.expiresAt + 1 } });
  await refused("command.expired", { command: commandFor(plan, { limits: { notAfter: nowMs - 1 } }) });
  await refused("command.bad-arguments", {
    command: commandFor(plan, {
      mode: "plan",
      arguments: { image: deployArguments.image, disk: deployArguments.disk },
    } as Partial<Command>),
  });
  await refused("host.not-known", { knownHosts: knows() });
  await refused("host.not-known", { knownHosts: knows(db) });
});

describe("a plan just asked for", () => {
  const wanted = {
    id: plan.id,
    host: web.id,
    kind: "image.deploy",
    arguments: { image: deployArguments.image, disk: deployArguments.disk },
    added: ["fingerprint"],
  };

  test("is that of the question, in whatever order its members come", async () => {
    const trusted = await readPlan(artefact, web.known, "f");
    requirePlanFor(trusted, wanted);
    requirePlanFor(trusted, {
      ...wanted,
      arguments: {
        disk: deployArguments.disk,
        image: Object.fromEntries(Object.entries(deployArguments.image).reverse()),
      },
    });
    expect(quoteOf(trusted)).toEqual(commandFor(plan).plan);
    expect((await readPlan(artefact, undefined, "f")).signedBy).toBeNull();
  });

  test.each([
    ["id", { id: commandId }],
    ["host", { host: db.id }],
    ["kind", { kind: "host.exec" }],
    [
      "image",
      { arguments: { ...wanted.arguments, image: { ...deployArguments.image, root: "00".repeat(32) } } },
    ],
    ["disk", { arguments: { ...wanted.arguments, disk: { serial: "X" } } }],
    ["additions", { added: [] }],
  ])("another %s is refused", async (_, changes) => {
    const trusted = await readPlan(artefact, web.known, "f");
    expect(() => requirePlanFor(trusted, { ...wanted, ...changes })).toThrow(
      expect.objectContaining({ code: "plan.changed" }),
    );
  });
});

test("nothing in a plan can steer the terminal it is shown on", async () => {
  const nasty = "x\u001b[2J\nhost:  db-1";
  const found = await review(await planned({ hostname: nasty }));
  const text = reviewText(found, { signatures: [] });
  expect(text).not.toContain("\u001b");
  expect(text).not.toMatch(/^host: +db-1/m);
});

test("that a deploy waits for a disk which is not there yet is shown", () => {
  const plan = web.planFor();
  const pairs = changePairs({ ...plan, arguments: { ...plan.arguments, waitSeconds: 90 } });
  expect(pairs.find(([name]) => name === "may come")?.[1]).toMatch(/^up to .* late/);
});

test("guards that a deploy overrides are shown, also where nothing needs that now", () => {
  const plan = web.planFor();
  const names = (of: Plan) => changePairs(of).map(([name]) => name);
  expect(names(plan)).not.toContain("OVERRIDES");
  const asked = { ...plan, arguments: { ...plan.arguments, overrides: ["member", "shared-storage"] } };
  expect(changePairs(asked)).toContainEqual(["OVERRIDES", "the guards member, shared-storage"]);
});

describe("several disks", () => {
  const second = { ...deployArguments.fingerprint, serial: "S3Z9NX1K", diskSequence: 10 };
  const also = [{ disk: { serial: "S3Z9NX1K" }, overrides: ["member"], fingerprint: second }];
  const severalOf = (changes: object = {}) => {
    const plan = web.planFor();
    const { disk, bytesToFetchMax, bytesToWriteMax } = plan.facts as { [name: string]: object };
    const other = {
      disk: { ...disk, path: "/dev/sdb", serial: "S3Z9NX1K" },
      bytesToFetchMax,
      bytesToWriteMax,
    };
    return web.planFor({
      arguments: { ...deployArguments, also, limits: { fetchBytesPerSecondMax: 50 << 20 } },
      facts: { ...plan.facts, also: [other] },
      findings: ["/dev/sda", "/dev/sdb"].map((path) => ({
        ...{ guard: "mounted", ok: true, finding: "nothing of it is mounted", disk: path },
      })),
      ...changes,
    });
  };

  test("all of them are shown from the bytes, each with its overrides and its guards, and each serial is asked for", async () => {
    const plan = severalOf();
    const found = await review({
      command: { ...commandFor(plan), arguments: plan.arguments } as never,
      artefact: await web.artefactOf(plan),
    });
    const text = reviewText(found, { signatures: [] });
    expect(text).toMatch(/^disk 1 of 2: +\/dev\/sda/m);
    expect(text).toMatch(/^disk 2 of 2: +\/dev\/sdb/m);
    expect(text).toContain("serial S3Z9NX1K");
    expect(text).toMatch(/^OVERRIDES: +the guards member$/m);
    expect(text).toContain("fetches at most 50 MiB a second");
    expect(text).toMatch(/^\/dev\/sda:$[\s\S]*^\/dev\/sdb:$/m);
    expect(confirmationsFor(plan, "web-1").map(({ expected }) => expected)).toEqual(["S3Z9NX0M", "S3Z9NX1K"]);
  });

  test("a disk more in the document than in the plan, or another one, is not signed", async () => {
    const artefact = await web.artefactOf(severalOf());
    const swapped = [{ ...also[0], fingerprint: { ...second, serial: "OTHER" } }];
    for (const given of [swapped, [...also, ...also], undefined]) {
      const command = { ...commandFor(severalOf()), arguments: { ...deployArguments, also: given } } as never;
      await refused("plan.changed", { command, artefact });
    }
  });

  test("a plan that tells of fewer disks than it is for is invalid", () => {
    expect(() => changePairs(severalOf({ facts: web.planFor().facts }))).toThrow(
      expect.objectContaining({ code: "plan.invalid" }),
    );
  });

  test("the plan adds a fingerprint to each, and nothing else", () => {
    const wanted = (given: readonly object[]) => ({
      ...{ id: severalOf().id, host: web.id, kind: "image.deploy", added: ["fingerprint"] },
      arguments: {
        ...{ image: deployArguments.image, disk: deployArguments.disk },
        ...{ also: given, limits: { fetchBytesPerSecondMax: 50 << 20 } },
      },
    });
    const plan = { plan: severalOf(), digest: "", signedBy: null };
    const { fingerprint: _, ...asked } = also[0]!;
    requirePlanFor(plan, wanted([asked]));
    for (const other of [[{ disk: asked.disk }], [asked, asked], [{ ...asked, disk: { serial: "OTHER" } }]])
      expect(() => requirePlanFor(plan, wanted(other))).toThrow(
        expect.objectContaining({ code: "plan.changed" }),
      );
  });
});
