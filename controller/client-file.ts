// client.json: how the CLI on this machine reaches and trusts the controller. Holds the first API token, so mode 0600.
import { join } from "node:path";
import { ClientFile } from "../protocol/api.ts";
import { checker } from "../protocol/schema.ts";
import { createApiToken, findApiToken } from "./api/api-tokens.ts";
import { readPrivateFile, writePrivateFile } from "./machine/files.ts";
import type { Clock, Random } from "./machine/system.ts";
import type { TokenStore } from "./store/token-store.ts";

export const clientFileName = "client.json";
const check = checker(ClientFile, "config.invalid", "client.json");

/** Writes the file with the address of now; its token is made once, and again only when the store does not know it. */
export async function refreshClientFile(
  directory: string,
  address: { readonly url: string; readonly caPem: string },
  parts: { readonly tokens: TokenStore; readonly clock: Clock; readonly random: Random },
): Promise<void> {
  const path = join(directory, clientFileName);
  const kept = await readKept(path);
  const createdAt = parts.clock.now();
  const known = kept !== undefined && (await findApiToken(parts.tokens, kept.token, createdAt)) !== undefined;
  const token = known
    ? kept.token
    : (
        await createApiToken(parts.tokens, parts.random, {
          label: clientFileName,
          scope: "admin",
          createdAt,
          expiresAt: null,
        })
      ).text;
  const file: ClientFile = { url: address.url, token, ca: address.caPem };
  await writePrivateFile(path, `${JSON.stringify(file, undefined, 2)}\n`);
}

// What cannot be read as ours is written anew: nothing in it is needed.
async function readKept(path: string): Promise<ClientFile | undefined> {
  const text = await readPrivateFile(path);
  if (text === undefined) return undefined;
  try {
    return check(JSON.parse(text));
  } catch {
    return undefined;
  }
}
