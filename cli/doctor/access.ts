// Whose rights we have, and what the host's policy file lets happen.
import { readFileSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import { parse } from "smol-toml";
import { type Check, missing, ok, reasonOf } from "./check.ts";
import { operatorsCheck } from "./operators.ts";

const policyFile = "/etc/bedplate/policy.toml";

export async function accessChecks(root: boolean): Promise<Check[]> {
  return [
    root
      ? ok("user", "root")
      : ok(
          "user",
          `uid ${process.geteuid?.()}`,
          "no block devices: only file-backed disks; SMBIOS serials stay unread",
        ),
    ...(await policyChecks(root)),
  ];
}

async function policyChecks(root: boolean): Promise<Check[]> {
  const name = "policy";
  let text: string;
  try {
    const problem =
      unsafe(dirname(policyFile), statSync(dirname(policyFile))) ?? unsafe(policyFile, statSync(policyFile));
    if (problem !== undefined)
      return [missing(name, problem, "the executor does not trust it and refuses every command that writes")];
    text = readFileSync(policyFile, "utf8");
  } catch (error) {
    const reason = reasonOf(error);
    if (reason === "ENOENT")
      return [
        missing(name, `no ${policyFile}`, "nothing may change this host: reads work, all else is refused"),
      ];
    if (reason === "EACCES" && !root)
      return [ok(name, `${policyFile} is root's`, "only root can look into it")];
    return [missing(name, `${policyFile}: ${reason}`, "nothing may change this host")];
  }
  try {
    const { checkPolicyFile } = await import("../../agent/host-tools.ts");
    const { kinds } = checkPolicyFile(policyFile);
    const { allowDisks } = parse(text) as { allowDisks?: unknown };
    const count = Array.isArray(allowDisks) ? allowDisks.length : 0;
    const disks =
      count === 0
        ? ok(name, "allows no disk", "reads work, deploys are refused until allowDisks names one")
        : ok(name, `allows ${count} disk${count === 1 ? "" : "s"}`);
    return [disks, operatorsCheck(kinds)];
  } catch (error) {
    const why = error instanceof Error ? error.message.split("\n")[0] : reasonOf(error);
    return [missing(name, `${policyFile}: ${why}`, "it cannot be read, so nothing may change this host")];
  }
}

function unsafe(path: string, { uid, mode }: Stats): string | undefined {
  if (uid !== 0) return `${path} belongs to uid ${uid}`;
  return (mode & 0o022) === 0 ? undefined : `others can write ${path}`;
}
