#!/usr/bin/env node
// The program `bedplate`: refuses an old Node in plain words, then hands over.
import * as nodeModule from "node:module";

if (Number(process.versions.node.split(".")[0]) < 24) {
  console.error(
    `error: bedplate needs Node 24 or newer; this is ${process.version}.\nhint: Run it with npx or npm: they bring their own Node 24.`,
  );
  process.exit(2);
}

// Node's default place for compiled code is a shared one in /tmp, where another user could put code for us to run.
// CACHE_DIRECTORY is the one that systemd gives a service.
const { CACHE_DIRECTORY, XDG_CACHE_HOME, HOME } = process.env;
const own = XDG_CACHE_HOME ?? (HOME === undefined || HOME === "/" ? undefined : `${HOME}/.cache`);
const cache = CACHE_DIRECTORY ?? (own === undefined ? undefined : `${own}/bedplate`);
// The demo leaves nothing behind, so it leaves no cache either.
if (cache?.startsWith("/") && process.argv[2] !== "demo")
  nodeModule.enableCompileCache(`${cache}/compile-cache`);

const { main } = await import("./program.ts");
process.exitCode = await main(process.argv.slice(2));
