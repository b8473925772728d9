// Telling systemd that the daemon is ready or stopping; nothing where no service manager listens.
import { spawn } from "node:child_process";
import { cleanEnvironment } from "./processes.ts";

/** Node has no datagram sockets of the unix family; systemd-notify sends for its parent (NotifyAccess=all). */
export function notifyService(state: "READY=1" | "STOPPING=1"): void {
  const socket = process.env.NOTIFY_SOCKET;
  if (socket === undefined) return;
  const child = spawn("systemd-notify", ["--no-block", `--pid=${process.pid}`, state], {
    env: { ...cleanEnvironment, NOTIFY_SOCKET: socket },
    stdio: "ignore",
  });
  child.on("error", () => undefined);
}
