// What the controller keeps of tokens: those that hosts join with, and those of the API.
import type { Scope } from "../../protocol/api.ts";

export interface StoredToken {
  readonly id: string;
  readonly hash: Uint8Array;
  readonly scope: Scope;
  readonly label: string;
  readonly createdAt: number;
  readonly expiresAt: number | null;
  readonly lastUsedAt: number | null;
  readonly revokedAt: number | null;
}

export interface NewJoinToken {
  readonly id: string;
  readonly secretHash: Uint8Array;
  readonly createdAt: number;
  readonly expiresAt: number;
  readonly uses: number;
  readonly approve: "auto" | "manual";
  /** The host whose place the new key takes. */
  readonly forHost: string | null;
  /** Checked by `isCidr` before. */
  readonly cidr: string | null;
}

export interface StoredJoinToken extends Omit<NewJoinToken, "secretHash"> {
  readonly used: number;
  readonly revokedAt: number | null;
}

export interface TokenStore {
  createJoinToken(token: NewJoinToken): Promise<void>;
  /** Newest first, at most 1000. */
  joinTokens(): Promise<readonly StoredJoinToken[]>;
  /** Undefined when there is none. Again is no change. */
  revokeJoinToken(id: string, at: number): Promise<StoredJoinToken | undefined>;
  createApiToken(token: Omit<StoredToken, "lastUsedAt" | "revokedAt">): Promise<void>;
  apiToken(id: string): Promise<StoredToken | undefined>;
  /** Newest first, at most 1000. */
  apiTokens(): Promise<readonly StoredToken[]>;
  useApiToken(id: string, at: number): Promise<void>;
  /** Undefined when there is none. Again is no change. */
  revokeApiToken(id: string, at: number): Promise<StoredToken | undefined>;
}
