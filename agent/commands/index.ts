// The handler of every kind of command that runs in an executor: a kind without one does not compile.
import type { Command, ExecutorKind } from "./command.ts";
import { hostInventory } from "./host-inventory.ts";
import { imageDeploy } from "./image-deploy.ts";
import { imageVerify } from "./image-verify.ts";

export const commands: { readonly [K in ExecutorKind]: Command<K> } = {
  "host.inventory": hostInventory,
  "image.deploy": imageDeploy,
  "image.verify": imageVerify,
};
