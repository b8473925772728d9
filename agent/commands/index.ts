// Where the handler of every kind of command is that runs in an executor: a kind without one does not compile. An executor
// runs one command, and is there sooner without the code of the others.
import type { Command, ExecutorKind } from "./command.ts";

const handlers: { readonly [K in ExecutorKind]: () => Promise<Command<K>> } = {
  "host.exec": async () => (await import("./host-exec.ts")).hostExec,
  "host.inventory": async () => (await import("./host-inventory.ts")).hostInventory,
  "host.poweroff": async () => (await import("./host-poweroff.ts")).hostPowerOff,
  "host.reboot": async () => (await import("./host-reboot.ts")).hostReboot,
  "image.deploy": async () => (await import("./image-deploy.ts")).imageDeploy,
  "image.verify": async () => (await import("./image-verify.ts")).imageVerify,
};

export async function handlerOf<K extends ExecutorKind>(kind: K): Promise<Command<K>> {
  return await handlers[kind]();
}
