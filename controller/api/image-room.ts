// Removing an image, and freeing what no image has.
import type { ImageView } from "../../protocol/api.ts";
import {
  CollectionRequest,
  CollectionState,
  CollectionView,
  ImageRemoval,
  RemovedImage,
} from "../../protocol/api-images.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { ApiParts, App } from "./app.ts";
import { findImage } from "./images.ts";
import { ImageParameters, problemAnswers } from "./schemas.ts";

/** Commands that an error names. */
const namedMax = 8;

export function imageRoomRoutes(app: App, { images, mirrors, store, stopping, log }: ApiParts): void {
  app.post(
    "/v1/images/:root/remove",
    {
      config: { access: "operate" },
      schema: {
        params: ImageParameters,
        body: ImageRemoval,
        response: { 200: RemovedImage, ...problemAnswers },
      },
    },
    async (request) => {
      const image = await findImage(images, request.params.root);
      const { root, name } = image;
      request.auditObject = root;
      const commands = await store.images.openCommandsOf(root);
      if (commands.length > 0 && request.body.force !== true) throw inUse(image, commands);
      const freedBytes = await images.remove(root);
      await mirrors.forget(root);
      log.info({ image: root, name, freedBytes }, "an image was removed");
      return { root, name, freedBytes };
    },
  );

  app.post(
    "/v1/images/collect",
    {
      config: { access: "operate" },
      schema: { body: CollectionRequest, response: { 200: CollectionView, ...problemAnswers } },
    },
    async (request, reply) => {
      // Who asked and has gone wants it no more.
      const gone = new AbortController();
      reply.raw.once("close", () => gone.abort());
      const collected = await images.collect(request.body, AbortSignal.any([stopping, gone.signal]));
      log.info({ ...collected, dryRun: request.body.dryRun === true }, "the image store was looked through");
      return collected;
    },
  );

  // Not below /v1/images, where it would be an image's name.
  app.get(
    "/v1/image-collection",
    {
      config: { access: "read" },
      schema: { response: { 200: CollectionState, ...problemAnswers } },
    },
    () => ({ running: images.collection() }),
  );
}

function inUse({ name, root }: ImageView, commands: readonly string[]): BedplateError {
  const named = commands.slice(0, namedMax).join(", ");
  return new BedplateError(
    "image.in-use",
    `${commands.length === 1 ? "A command that has not ended names" : `${commands.length} commands that have not ended name`} the image ${name} (${root}): ${named}${commands.length > namedMax ? ", …" : ""}.`,
    {
      hint: "Wait for them, cancel them, or remove it all the same with --force: they then fail where they still need it.",
      details: { commands },
    },
  );
}
