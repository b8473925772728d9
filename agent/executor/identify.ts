// Who this host's executor is, published where the agent can read it: attestation key, policy, the machine's names.
import { utf8 } from "../../protocol/bytes.ts";
import { attestationProofBytes, type ExecutorIdentity } from "../../protocol/identity.ts";
import type { MachineNames } from "../devices/machine-names.ts";
import { identityPath } from "../door/contract.ts";
import { errnoOf, type Files } from "../host/files.ts";
import type { AttestationKey } from "./attestation.ts";

export interface IdentityFacts extends MachineNames {
  readonly host: string;
  readonly key: AttestationKey;
  readonly policyState: ExecutorIdentity["policyState"];
  readonly policyDigest: string | null;
  /** Whether this process has rights that its agent has not. */
  readonly separated: boolean;
}

const identityBytesMax = 64 * 1024;

export function identityOf(facts: IdentityFacts): ExecutorIdentity {
  const { host, key, policyState, policyDigest, hostname, chassisSerial, separated } = facts;
  return {
    bedplate: "identity/1",
    host,
    attestationKey: key.line,
    proof: key.sign("bedplate-identity", attestationProofBytes(host)),
    policyState,
    policyDigest,
    hostname,
    chassisSerial,
    privilegeSplit: separated ? "present" : "absent",
  };
}

/** Writes RUN/identity.json, where what is there differs. Ed25519 signs the same bytes alike, so a file of now stays. */
export function publishIdentity(files: Files, runDirectory: string, identity: ExecutorIdentity): void {
  const path = identityPath(runDirectory);
  const bytes = utf8(`${JSON.stringify(identity)}\n`);
  if (Buffer.compare(bytes, readOr(files, path)) === 0) return;
  files.replace(path, bytes, 0o644);
}

function readOr(files: Files, path: string): Uint8Array {
  try {
    return files.readBytes(path, identityBytesMax);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return new Uint8Array();
    throw error;
  }
}
