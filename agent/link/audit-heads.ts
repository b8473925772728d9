// Where this host's audit stood, as its executor signed it and as the controller signed it back: kept for
// `bedplate audit verify`, which an administrator runs on the host without asking anyone.
import { AuditHead, auditHeadBytes } from "../../protocol/audit.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { checker } from "../../protocol/schema.ts";
import { parsePublicKey } from "../../protocol/ssh-keys.ts";
import { verifySignature } from "../../protocol/sshsig.ts";
import { errnoOf } from "../host/files.ts";
import type { Log } from "../host/log.ts";
import type { StateDirectory } from "../host/state-directory.ts";

export const auditHeadsFile = "audit-heads.jsonl";
/** Lines that are kept: of a head mostly two, by the executor and by the controller. */
const linesMax = 2000;
/** Lines beyond which the file is written anew. */
const linesSlack = 500;

export interface AuditHeads {
  /** The furthest that is known. */
  newest(): Pick<AuditHead, "seq" | "hash"> | undefined;
  /** The executor has signed it, and it is on its way to the controller. */
  sent(head: AuditHead): void;
  /**
   * The controller has it. What it signed must be what this host said, or did not say yet: else there are two audits.
   * @param auditKey the controller's, from the welcome
   */
  countersigned(head: AuditHead, auditKey: string | undefined): Promise<void>;
}

const check = checker(AuditHead, "message.invalid", "audit head");

export function openAuditHeads(options: {
  readonly host: string;
  readonly state: StateDirectory;
  readonly log: Pick<Log, "warn" | "error">;
}): AuditHeads {
  const { host, state, log } = options;
  let lines = readLines(state);
  const hashes = new Map<number, string>();
  let newest: Pick<AuditHead, "seq" | "hash"> | undefined;
  const note = ({ seq, hash }: AuditHead) => {
    hashes.set(seq, hash);
    if (hashes.size > linesMax) hashes.delete(hashes.keys().next().value!);
    if (newest === undefined || seq > newest.seq) newest = { seq, hash };
  };
  /** The line that the controller signed last: it says its newest again at each welcome. */
  let signedBack: string | undefined;
  for (const line of lines) {
    const head = JSON.parse(line);
    note(check(head));
    if (head.by === "controller") signedBack = line;
  }

  /** On a full disk a part of a line may stand at the file's end: the next one writes it anew. */
  let torn = false;
  const keep = (line: string) => {
    lines.push(line);
    try {
      if (!torn && lines.length <= linesMax + linesSlack) return state.append(auditHeadsFile, `${line}\n`);
      lines = lines.slice(-linesMax);
      state.write(auditHeadsFile, Buffer.from(`${lines.join("\n")}\n`));
      torn = false;
    } catch (error) {
      // Nobody is kept from talking by it, and the controller says its newest again at each welcome.
      if (errnoOf(error) !== "ENOSPC") throw error;
      if (!torn)
        log.warn({ err: error }, "the disk is full: heads of this host's audit are not kept for now");
      torn = true;
    }
  };

  return {
    newest: () => newest,
    sent({ seq, hash, signature }) {
      note({ seq, hash, signature });
      keep(JSON.stringify({ seq, hash, signature, by: "host" }));
    },
    async countersigned(head, auditKey) {
      const { seq, hash, signature } = head;
      if (auditKey === undefined) return;
      try {
        await verifySignature(signature, {
          namespace: "bedplate-audit",
          message: auditHeadBytes(host, head),
          keys: [parsePublicKey(auditKey)],
        });
      } catch (error) {
        if (!(error instanceof BedplateError)) throw error;
        return log.warn(
          { code: error.code, seq },
          "the controller's signature over an audit head does not hold",
        );
      }
      const ours = hashes.get(seq);
      if (ours !== undefined && ours !== hash) {
        log.error(
          { code: "audit.broken", seq, hash: ours, countersigned: hash },
          "the controller has signed another head of this host's audit than this host said: there are two audits. Run `bedplate audit verify` here.",
        );
      }
      note({ seq, hash: ours ?? hash, signature });
      const line = JSON.stringify({ seq, hash, signature, by: "controller", auditKey });
      if (line !== signedBack) keep(line);
      signedBack = line;
    },
  };
}

// A power cut may have left a part of a line, or of the file nothing at all.
function readLines(state: StateDirectory): string[] {
  const kept = state.read(auditHeadsFile);
  if (kept === undefined) return [];
  const text = Buffer.from(kept).toString("utf8");
  const lines = text.split("\n").filter(isHead).slice(-linesMax);
  const whole = lines.length === 0 ? "" : `${lines.join("\n")}\n`;
  if (whole !== text) state.write(auditHeadsFile, Buffer.from(whole));
  return lines;
}

function isHead(line: string): boolean {
  try {
    check(JSON.parse(line));
    return true;
  } catch {
    return false;
  }
}
