// The policy of the simulated hosts: what the commands of a plan need, and no operator signs.
import type { PolicyRules } from "../../agent/policy/rules.ts";

export const program = "/usr/bin/work";

export const policyRules: PolicyRules = {
  denyKinds: [],
  unsigned: ["host.exec", "host.reboot", "image.deploy"],
  destructivePerDay: null,
  signers: [],
  kinds: {
    "host.exec": {
      signatures: null,
      window: null,
      exec: { argv: [[program, "**"]], shell: false, environment: [], directories: [] },
    },
  },
};
