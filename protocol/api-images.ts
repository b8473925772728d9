// The API's schemas for what belongs to an image: its mirrors, its signatures, and the room that the store takes.
import Type, { type Static } from "typebox";
import { Count, Digest, Fingerprint, Name, UnixMs } from "./schema.ts";
import { signatureBytesMax } from "./sshsig-format.ts";

/** An offer carries eight sources: these, and the controller itself. */
export const mirrorsMax = 7;
/** Of one image. */
export const imageSignaturesMax = 16;

const Layout = Type.Union([Type.Literal("bedplate"), Type.Literal("raw")]);

/** Groups of an upload whose frames no image of the controller has: first and last of each stretch. */
export const WantedGroups = Type.Object({ wanted: Type.Array(Type.Tuple([Count, Count])) });
export type WantedGroups = Static<typeof WantedGroups>;

/** Body of `POST /v1/images/{root}/mirrors`. */
export const MirrorRequest = Type.Object(
  {
    url: Type.String({ minLength: 1, maxLength: 2048 }),
    /** `bedplate`, also if absent: `manifest` and `frames` lie under `url`. `raw`: `url` is the raw image itself. */
    layout: Type.Optional(Layout),
    /** Hosts ask it before the controller, not after it. */
    first: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type MirrorRequest = Static<typeof MirrorRequest>;

/** Body of `POST /v1/images/{root}/mirrors/remove`. */
export const MirrorRemoval = Type.Object(
  { url: Type.String({ minLength: 1, maxLength: 2048 }) },
  { additionalProperties: false },
);

export const ImageMirror = Type.Object({
  root: Digest,
  /** Of the image. */
  name: Name,
  url: Type.String(),
  layout: Layout,
  first: Type.Boolean(),
  addedAt: UnixMs,
});
export type ImageMirror = Static<typeof ImageMirror>;
export const MirrorList = Type.Object({ mirrors: Type.Array(ImageMirror) });

/** Body of `POST /v1/images/{root}/signatures`: armored SSHSIG over the manifest's bytes, namespace `bedplate-image`. */
export const ImageSignatureRequest = Type.Object(
  { signature: Type.String({ minLength: 1, maxLength: signatureBytesMax }) },
  { additionalProperties: false },
);

/** Body of `POST /v1/images/{root}/signatures/remove`. */
export const ImageSignatureRemoval = Type.Object(
  { fingerprint: Fingerprint },
  { additionalProperties: false },
);

export const ImageSignature = Type.Object({
  /** Armored SSHSIG. */
  signature: Type.String({ maxLength: signatureBytesMax }),
  /** Of the key that made it, `SHA256:…`. Whether that key's word counts, whoever reads it decides. */
  fingerprint: Fingerprint,
  addedAt: UnixMs,
});
export type ImageSignature = Static<typeof ImageSignature>;
/** Also the file `signatures` beside a manifest. */
export const ImageSignatures = Type.Object({
  signatures: Type.Array(ImageSignature, { maxItems: imageSignaturesMax }),
});
export type ImageSignatures = Static<typeof ImageSignatures>;

/** Body of `POST /v1/images/{root}/remove`. */
export const ImageRemoval = Type.Object(
  {
    /** Also while a command that has not ended names it. */
    force: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);

/** What was removed. */
export const RemovedImage = Type.Object({
  root: Digest,
  name: Name,
  /** At once: what it had alone. The rest when its other images go, or by `POST /v1/images/collect`. */
  freedBytes: Count,
});
export type RemovedImage = Static<typeof RemovedImage>;

/** Body of `POST /v1/images/collect`. */
export const CollectionRequest = Type.Object(
  {
    dryRun: Type.Optional(Type.Boolean()),
    /** Also what lies among much that is in use, which costs more writing than it frees. */
    all: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
export type CollectionRequest = Static<typeof CollectionRequest>;

export const CollectionView = Type.Object({
  images: Count,
  /** Bytes of frames that the store held, each counted once however many images have it. */
  storedBytes: Count,
  /** Of them in no image. */
  deadBytes: Count,
  /** What was freed, or with `dryRun` would be. */
  freedBytes: Count,
  /** What was written anew to free that. */
  copiedBytes: Count,
  /**
   * What stays, and why: dead bytes of files of which less than a quarter is dead, and what `all` would write anew to free
   * them.
   */
  left: Type.Object({ files: Count, bytes: Count, copyBytes: Count }),
});
export type CollectionView = Static<typeof CollectionView>;

/** How far a collection is. */
export const CollectionProgress = Type.Object({
  files: Count,
  filesDone: Count,
  copyBytes: Count,
  copiedBytes: Count,
  freedBytes: Count,
});
export type CollectionProgress = Static<typeof CollectionProgress>;

/** Of `GET /v1/image-collection`. Null when none runs. */
export const CollectionState = Type.Object({ running: Type.Union([CollectionProgress, Type.Null()]) });
