// What every route file needs: the parts it may use, and Fastify typed by our schemas.
import type { Server } from "node:https";
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyTypeProvider,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
} from "fastify";
import type { Static, TSchema } from "typebox";
import type { BackupView, Scope } from "../../protocol/api.ts";
import type { AuditKey } from "../authority/audit-key.ts";
import type { AuthorityKeeper } from "../authority/authority-keeper.ts";
import type { OutputNews } from "../commands/output-news.ts";
import type { CommandService } from "../commands/service.ts";
import type { HostService } from "../hosts/service.ts";
import type { ImageBearers } from "../images/image-bearers.ts";
import type { ImageMirrors } from "../images/image-mirrors.ts";
import type { ImageStore } from "../images/store.ts";
import type { LinkMeters } from "../link/meters.ts";
import type { Sessions } from "../link/sessions.ts";
import type { Strangers } from "../link/strangers.ts";
import type { Log } from "../machine/log.ts";
import type { Clock, Random } from "../machine/system.ts";
import type { Store } from "../store/store.ts";
import type { StoredToken } from "../store/token-store.ts";
import type { LiveTelemetry } from "../telemetry/live.ts";
import type { ProgressBoard } from "../telemetry/progress.ts";

export interface ApiParts {
  readonly store: Store;
  readonly images: ImageStore;
  readonly commands: CommandService;
  readonly hosts: HostService;
  readonly backups: { make(): Promise<BackupView> };
  readonly outputs: OutputNews;
  readonly progress: ProgressBoard;
  readonly live: LiveTelemetry;
  readonly sessions: Sessions;
  readonly strangers: Strangers;
  readonly bearers: ImageBearers;
  readonly mirrors: ImageMirrors;
  readonly meters: LinkMeters;
  readonly authority: AuthorityKeeper;
  readonly auditKey: AuditKey;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Aborts when the controller stops: streams end then. */
  readonly stopping: AbortSignal;
}

interface SchemaTypes extends FastifyTypeProvider {
  validator: this["schema"] extends TSchema ? Static<this["schema"]> : unknown;
  serializer: this["schema"] extends TSchema ? Static<this["schema"]> : unknown;
}

export type App = FastifyInstance<
  Server,
  RawRequestDefaultExpression<Server>,
  RawReplyDefaultExpression<Server>,
  FastifyBaseLogger,
  SchemaTypes
>;

/** Who may call a route: a scope; `image`, read or the bearer of that image; `anyone`. */
export type Access = Scope | "image" | "anyone";

declare module "fastify" {
  interface FastifyContextConfig {
    access?: Access;
  }
  interface FastifyRequest {
    /** The image that the caller's bearer opens, when that is what was shown. */
    imageRoot: string | undefined;
    /** Where the call comes from, also when the caller has gone before it is answered. Empty when it had gone at once. */
    callerAddress: string;
    /** The token that the caller showed. */
    apiToken: StoredToken | undefined;
    /** What the call was about, where its path does not say it. */
    auditObject: string | undefined;
    /** The code of the problem that it was answered with. */
    problemCode: string | undefined;
  }
}
