// API tokens: random text for the caller, its hash for the store.
import { createHash, timingSafeEqual } from "node:crypto";
import type { Scope } from "../../protocol/api.ts";
import { hex } from "../../protocol/bytes.ts";
import type { Random } from "../machine/system.ts";
import type { StoredToken, TokenStore } from "../store/token-store.ts";

export interface NewToken {
  readonly label: string;
  readonly scope: Scope;
  readonly createdAt: number;
  readonly expiresAt: number | null;
}

/** Makes a token; the text is told here and never again. */
export async function createApiToken(
  store: TokenStore,
  random: Random,
  token: NewToken,
): Promise<{ readonly id: string; readonly text: string }> {
  const id = hex(random.bytes(8));
  const text = `bedplate-api.${id}.${Buffer.from(random.bytes(32)).toString("base64url")}`;
  await store.createApiToken({ ...token, id, hash: hashOf(text) });
  return { id, text };
}

/** The token that the text is; undefined when there is none, or it has expired or was revoked. */
export async function findApiToken(
  store: TokenStore,
  text: string,
  at: number,
): Promise<StoredToken | undefined> {
  const match = /^bedplate-api\.([0-9a-f]{16})\.[A-Za-z0-9_-]{43}$/.exec(text);
  const token = match === null ? undefined : await store.apiToken(match[1]!);
  if (token === undefined || !timingSafeEqual(token.hash, hashOf(text))) return undefined;
  return isInForce(token, at) ? token : undefined;
}

/** Neither revoked nor expired: by the clock as it is. One that has jumped ahead ends what opens doors, never prolongs it. */
export function isInForce({ revokedAt, expiresAt }: StoredToken, at: number): boolean {
  return revokedAt === null && (expiresAt === null || expiresAt > at);
}

function hashOf(text: string): Uint8Array {
  return Uint8Array.from(createHash("sha256").update(text).digest());
}
