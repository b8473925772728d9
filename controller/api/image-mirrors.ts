// /v1/mirrors and an image's own: where hosts may have its bytes from besides this controller.
import Type from "typebox";
import { ImageMirror, MirrorList, MirrorRemoval, MirrorRequest } from "../../protocol/api-images.ts";
import type { ImageStore } from "../images/store.ts";
import type { StoredMirror } from "../store/store.ts";
import type { ApiParts, App } from "./app.ts";
import { findImage } from "./images.ts";
import { ImageParameters, problemAnswers } from "./schemas.ts";

export function imageMirrorRoutes(app: App, { images, mirrors, log }: ApiParts): void {
  const viewOf = (mirror: StoredMirror): ImageMirror => ({
    ...mirror,
    // One whose image another process took away.
    name: images.list().find(({ root }) => root === mirror.root)?.name ?? mirror.root.slice(0, 16),
  });

  app.get(
    "/v1/mirrors",
    { config: { access: "read" }, schema: { response: { 200: MirrorList, ...problemAnswers } } },
    async () => ({ mirrors: mirrors.list().map(viewOf) }),
  );

  app.post(
    "/v1/images/:root/mirrors",
    {
      config: { access: "operate" },
      schema: {
        params: ImageParameters,
        body: MirrorRequest,
        response: { 201: ImageMirror, ...problemAnswers },
      },
    },
    async (request, reply) => {
      const { root } = await findImage(images, request.params.root);
      request.auditObject = root;
      const mirror = await mirrors.add(root, request.body);
      log.info({ image: root, mirror: mirror.url, first: mirror.first }, "an image has a mirror");
      return reply.code(201).send(viewOf(mirror));
    },
  );

  app.post(
    "/v1/images/:root/mirrors/remove",
    {
      config: { access: "operate" },
      schema: {
        params: ImageParameters,
        body: MirrorRemoval,
        response: { 204: Type.Null(), ...problemAnswers },
      },
    },
    async (request, reply) => {
      const root = await rootOf(images, request.params.root);
      request.auditObject = root;
      await mirrors.remove(root, request.body.url);
      log.info({ image: root, mirror: request.body.url }, "an image's mirror was removed");
      return reply.code(204).send(null);
    },
  );
}

/** Of an image that another process took away only the root is known. */
async function rootOf(images: ImageStore, reference: string): Promise<string> {
  if (/^[0-9a-f]{64}$/.test(reference)) return reference;
  return (await findImage(images, reference)).root;
}
