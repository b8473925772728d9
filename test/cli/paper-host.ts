// A host on paper: its keys, and what its executor would sign with them. No process, no disk.
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import type { KnownHost, KnownHosts } from "../../cli/trust/known-hosts.ts";
import type { CommandView } from "../../protocol/api.ts";
import { hex } from "../../protocol/bytes.ts";
import { type Command, encodeCommand } from "../../protocol/commands.ts";
import { fingerprintOf } from "../../protocol/identifiers.ts";
import { attestationProofBytes, type HostIdentity, linkProofOfAttestation } from "../../protocol/identity.ts";
import { encodePlan, type Plan, type PlanArtefact } from "../../protocol/plans.ts";
import { publicKeyLine, type SigningKey, signMessage } from "../../protocol/ssh-sign.ts";

export function newKey(): SigningKey {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const raw = new Uint8Array(Buffer.from(publicKey.export({ format: "jwk" }).x!, "base64url"));
  return { publicKey: raw, sign: (data) => new Uint8Array(sign(null, data, privateKey)) };
}

export interface PaperHost {
  readonly id: string;
  readonly name: string;
  readonly fingerprint: string;
  readonly linkKey: string;
  readonly attestation: SigningKey;
  readonly attestationKey: string;
  readonly identity: HostIdentity & { readonly fingerprint: string; readonly since: number };
  readonly known: KnownHost;
  planFor(plan?: Partial<Plan>): Plan;
  artefactOf(plan: Plan, key?: SigningKey): Promise<PlanArtefact>;
}

export const nowMs = Date.UTC(2026, 10, 22, 8);
export const commandId = "01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90";
const planId = "01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f91";

const disk = {
  path: "/dev/sda",
  type: "ssd",
  sizeBytes: 480_103_981_056,
  logicalSectorBytes: 512,
  physicalSectorBytes: 4096,
  serial: "S3Z9NX0M",
  wwn: "0x5002538e40a1b2c3",
  model: "SAMSUNG MZ7LH480",
  vendor: null,
  firmware: null,
  hctl: "0:0:0:0",
  byId: [],
  transport: "sata",
  readOnly: false,
  removable: false,
  diskSequence: 9,
  backing: null,
  fileDisk: null,
  partitions: [],
  mounts: [],
  swap: false,
  holders: [],
  allowed: true,
};

/** As image.deploy's apply carries them. */
export const deployArguments = {
  image: { root: "34".repeat(32), sizeBytes: 201_326_592, name: "debian-12" },
  disk: { serial: "S3Z9NX0M" },
  fingerprint: {
    serial: "S3Z9NX0M",
    wwn: "0x5002538e40a1b2c3",
    backing: null,
    model: "SAMSUNG MZ7LH480",
    sizeBytes: 480_103_981_056,
    logicalSectorBytes: 512,
    physicalSectorBytes: 4096,
    diskSequence: 9,
    bootId: "8b1f0f0e-0000-4000-8000-000000000000",
    edges: "8a".repeat(32),
  },
};

export async function paperHost(name = "rack1-07"): Promise<PaperHost> {
  const [link, attestation] = [newKey(), newKey()];
  const id = createHash("sha256").update(link.publicKey).digest("hex");
  const attestationKey = publicKeyLine(attestation.publicKey, "bedplate-attestation");
  const identity = {
    bedplate: "identity/1",
    host: id,
    attestationKey,
    proof: await signMessage(attestation, "bedplate-identity", attestationProofBytes(id)),
    linkSignature: await signMessage(link, "bedplate-identity", linkProofOfAttestation(attestationKey)),
    policyState: "present",
    policyDigest: "ab".repeat(32),
    hostname: `${name}.example.net`,
    chassisSerial: "7XK2J93",
    privilegeSplit: "present",
    fingerprint: "SHA256:as-the-controller-says",
    since: nowMs,
  } as const;
  return {
    id,
    name,
    fingerprint: fingerprintOf(id),
    linkKey: hex(link.publicKey),
    attestation,
    attestationKey,
    identity,
    known: { id, name, attestationKey: publicKeyLine(attestation.publicKey, "") },
    planFor: (changes = {}) => ({
      bedplate: "plan/1",
      id: planId,
      nonce: "A".repeat(43),
      host: id,
      hostname: identity.hostname,
      chassisSerial: identity.chassisSerial,
      kind: "image.deploy",
      arguments: deployArguments,
      facts: { disk, bytesToFetchMax: 1 << 20, bytesToWriteMax: 1 << 21 },
      issuedAt: nowMs - 1000,
      expiresAt: nowMs + 3_600_000,
      policy: identity.policyDigest,
      requires: { k: 2, from: ["ops"], operators: ["alice", "bob", "carol"] },
      findings: [{ guard: "allowed", ok: true, finding: "the policy allows it" }],
      allowed: true,
      ...changes,
    }),
    artefactOf: async (plan, key = attestation) => {
      const bytes = encodePlan(plan);
      return {
        text: new TextDecoder().decode(bytes),
        signature: await signMessage(key, "bedplate-plan", bytes),
      };
    },
  };
}

export function commandFor(plan: Plan, changes: Partial<Command> = {}): Command {
  return {
    id: commandId,
    host: plan.host,
    kind: plan.kind,
    mode: "apply",
    arguments: plan.arguments,
    limits: { runForSeconds: 900 },
    plan: {
      id: plan.id,
      digest: createHash("sha256").update(encodePlan(plan)).digest("hex"),
      hostname: plan.hostname,
      chassisSerial: plan.chassisSerial,
    },
    ...changes,
  } as Command;
}

/** What the controller answers of it, as far as a reviewer looks. */
export function viewOf(
  command: Command,
  plan: PlanArtefact | null,
  hostName: string,
): Pick<CommandView, "document" | "plan" | "hostName"> {
  return { document: Buffer.from(encodeCommand(command)).toString("base64"), plan, hostName };
}

export const knows = (...hosts: readonly PaperHost[]): KnownHosts => ({
  path: "known_hosts",
  hosts: hosts.map(({ known }) => known),
});
