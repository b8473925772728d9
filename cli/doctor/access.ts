// Whose rights we have, and what the host's policy file lets happen.
import { readFileSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import { parse } from "smol-toml";
import { type Check, missing, ok, reasonOf } from "./check.ts";

const policyFile = "/etc/bedplate/policy.toml";

export function accessChecks(root: boolean): Check[] {
  return [
    root
      ? ok("user", "root")
      : ok(
          "user",
          `uid ${process.geteuid?.()}`,
          "no block devices: only file-backed disks; SMBIOS serials stay unread",
        ),
    policyCheck(root),
  ];
}

function policyCheck(root: boolean): Check {
  const name = "policy";
  let text: string;
  try {
    const problem =
      unsafe(dirname(policyFile), statSync(dirname(policyFile))) ?? unsafe(policyFile, statSync(policyFile));
    if (problem !== undefined)
      return missing(name, problem, "the executor does not trust it and refuses every command that writes");
    text = readFileSync(policyFile, "utf8");
  } catch (error) {
    const reason = reasonOf(error);
    if (reason === "ENOENT")
      return missing(name, `no ${policyFile}`, "no disk is allowed: reads work, deploys are refused");
    if (reason === "EACCES" && !root)
      return ok(name, `${policyFile} is root's`, "only root can look into it");
    return missing(name, `${policyFile}: ${reason}`, "no disk is allowed");
  }
  try {
    const { allowDisks } = parse(text) as { allowDisks?: unknown };
    const count = Array.isArray(allowDisks) ? allowDisks.length : 0;
    return count === 0
      ? ok(name, "allows no disk", "reads work, deploys are refused until allowDisks names one")
      : ok(name, `allows ${count} disk${count === 1 ? "" : "s"}`);
  } catch (error) {
    return missing(
      name,
      `${policyFile}: ${reasonOf(error).split("\n")[0]}`,
      "it cannot be read, so no disk is allowed",
    );
  }
}

function unsafe(path: string, { uid, mode }: Stats): string | undefined {
  if (uid !== 0) return `${path} belongs to uid ${uid}`;
  return (mode & 0o022) === 0 ? undefined : `others can write ${path}`;
}
