// /v1/images: list, upload (manifest, then frames, streamed), and download with single ranges.
import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import Type from "typebox";
import { ImageList, ImageView } from "../../protocol/api.ts";
import { WantedGroups } from "../../protocol/api-images.ts";
import { BedplateError } from "../../protocol/errors.ts";
import { limits } from "../../protocol/limits.ts";
import { Digest } from "../../protocol/schema.ts";
import type { ImageStore } from "../images/store.ts";
import type { ApiParts, App } from "./app.ts";
import { parseRange } from "./range.ts";
import { answerOf, ImageParameters, Octets, octets, problemAnswers } from "./schemas.ts";

const RootParameters = Type.Object({ root: Digest });
const FramesQuery = Type.Object(
  { only: Type.Optional(Type.Literal("wanted")) },
  { additionalProperties: false },
);
/** Bodies are streams here; each route bounds its own. */
const bodyBytesMax = Number.MAX_SAFE_INTEGER;

export function imageRoutes(whole: App, parts: ApiParts): void {
  const { store, images, clock, log } = parts;
  // A scope of its own, so that streamed bodies are taken by these routes and no others.
  void whole.register(async (app: App) => {
    app.addContentTypeParser(
      "*",
      (_request: unknown, payload: IncomingMessage, done: (error: null, body: IncomingMessage) => void) =>
        done(null, payload),
    );

    app.get(
      "/v1/images",
      { config: { access: "read" }, schema: { response: { 200: ImageList, ...problemAnswers } } },
      async () => {
        await images.rescan();
        return { images: images.list() };
      },
    );

    app.get(
      "/v1/images/:root",
      {
        config: { access: "read" },
        schema: { params: ImageParameters, response: { 200: ImageView, ...problemAnswers } },
      },
      (request) => findImage(images, request.params.root),
    );

    app.put(
      "/v1/images/:root/manifest",
      {
        config: { access: "operate" },
        bodyLimit: bodyBytesMax,
        schema: {
          consumes: [octets],
          body: Octets,
          params: RootParameters,
          response: { 204: Type.Null(), ...problemAnswers },
        },
      },
      async (request, reply) => {
        await images.beginUpload(
          request.params.root,
          await readWhole(streamOf(request.body), limits.manifestBytesMax),
        );
        return reply.code(204).send(null);
      },
    );

    app.get(
      "/v1/images/:root/wanted",
      {
        config: { access: "operate" },
        schema: { params: RootParameters, response: { 200: WantedGroups, ...problemAnswers } },
      },
      async (request) => ({ wanted: await images.wantedGroups(request.params.root) }),
    );

    app.put(
      "/v1/images/:root/frames",
      {
        config: { access: "operate" },
        bodyLimit: bodyBytesMax,
        schema: {
          consumes: [octets],
          body: Octets,
          params: RootParameters,
          querystring: FramesQuery,
          response: { 201: ImageView, ...problemAnswers },
        },
      },
      async (request, reply) => {
        const gone = new AbortController();
        request.raw.once("close", () => {
          if (!request.raw.complete) gone.abort();
        });
        const image = await images.receiveFrames(
          request.params.root,
          streamOf(request.body),
          AbortSignal.any([gone.signal, parts.stopping]),
          request.query.only,
        );
        await store.events.append({ topic: "image", id: image.root, event: "added" }, clock.now());
        log.info({ image: image.root, name: image.name, bytes: image.storedBytes }, "an image was added");
        return reply.code(201).send(image);
      },
    );

    for (const part of ["manifest", "frames"] as const) {
      app.get(
        `/v1/images/:root/${part}`,
        {
          config: { access: "image" },
          schema: {
            params: ImageParameters,
            response: {
              200: answerOf(`The image's ${part}.`, octets),
              206: answerOf("The range asked for.", octets),
              ...problemAnswers,
            },
          },
        },
        async (request, reply) => {
          const image = await findOpened(images, request);
          const { sizeBytes, read } = await images.open(image.root, part);
          // What a root names never changes, so neither does its tag.
          void reply
            .header("accept-ranges", "bytes")
            .header("content-type", octets)
            .header("etag", `"${image.root}-${part}"`)
            .header("cache-control", "private, immutable");
          const range = parseRange(request.headers.range, sizeBytes);
          if (range === "unsatisfiable") {
            void reply.header("content-range", `bytes */${sizeBytes}`);
            return reply
              .code(416)
              .serializer((text: unknown) => String(text))
              .send("");
          }
          const { start, end } = range ?? { start: 0, end: sizeBytes - 1 };
          const body = sizeBytes === 0 ? Buffer.alloc(0) : await read({ start, end: end + 1 });
          void reply.header("content-length", end - start + 1);
          if (range !== undefined)
            void reply.code(206).header("content-range", `bytes ${start}-${end}/${sizeBytes}`);
          return reply.send(body);
        },
      );
    }
  });
}

/** Finds an image, also one that was just imported into the directory. @throws `image.unknown` */
export async function findImage(images: ImageStore, reference: string): Promise<ImageView> {
  try {
    return images.find(reference);
  } catch {
    await images.rescan();
    return images.find(reference);
  }
}

/** The same for who may show the bearer of one image. @throws `image.unknown`, `api.forbidden` */
export async function findOpened(
  images: ImageStore,
  {
    params,
    imageRoot,
  }: { readonly params: { readonly root: string }; readonly imageRoot: string | undefined },
): Promise<ImageView> {
  const image = await findImage(images, params.root);
  if (imageRoot !== undefined && imageRoot !== image.root)
    throw new BedplateError("api.forbidden", "The bearer is for another image.");
  return image;
}

function streamOf(body: unknown): Readable {
  if (body === null || typeof body !== "object" || !(Symbol.asyncIterator in body)) {
    throw new BedplateError("api.bad-request", "The request has no body of octets.", {
      hint: `Send the bytes as ${octets}.`,
    });
  }
  return body as Readable;
}

async function readWhole(body: Readable, bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Uint8Array>) {
    bytes += chunk.length;
    if (bytes > bytesMax)
      throw new BedplateError("api.too-large", `The body has more than ${bytesMax} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
