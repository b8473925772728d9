// The handler of every kind of command that runs in an executor: a kind without one does not compile.
import type { Command, ExecutorKind } from "./command.ts";
import { hostExec } from "./host-exec.ts";
import { hostInventory } from "./host-inventory.ts";
import { hostPowerOff } from "./host-poweroff.ts";
import { hostReboot } from "./host-reboot.ts";
import { imageDeploy } from "./image-deploy.ts";
import { imageVerify } from "./image-verify.ts";

export const commands: { readonly [K in ExecutorKind]: Command<K> } = {
  "host.exec": hostExec,
  "host.inventory": hostInventory,
  "host.poweroff": hostPowerOff,
  "host.reboot": hostReboot,
  "image.deploy": imageDeploy,
  "image.verify": imageVerify,
};
