// /v1/images/{root}/signatures: what operators' keys say of an image, for hosts and people to verify.
import { ImageSignatureRemoval, ImageSignatureRequest, ImageSignatures } from "../../protocol/api-images.ts";
import type { ApiParts, App } from "./app.ts";
import { findImage, findOpened } from "./images.ts";
import { ImageParameters, problemAnswers } from "./schemas.ts";

export function imageSignatureRoutes(app: App, { images, store, clock, log }: ApiParts): void {
  app.get(
    "/v1/images/:root/signatures",
    {
      config: { access: "image" },
      schema: { params: ImageParameters, response: { 200: ImageSignatures, ...problemAnswers } },
    },
    async (request) => {
      const { root } = await findOpened(images, request);
      return { signatures: [...(await images.signatures(root))] };
    },
  );

  app.post(
    "/v1/images/:root/signatures",
    {
      config: { access: "operate" },
      schema: {
        params: ImageParameters,
        body: ImageSignatureRequest,
        response: { 201: ImageSignatures, ...problemAnswers },
      },
    },
    async (request, reply) => {
      const { root } = await findImage(images, request.params.root);
      request.auditObject = root;
      const { signatures, fingerprint } = await images.sign(root, request.body.signature, clock.now());
      await store.events.append({ topic: "image", id: root, event: "signed" }, clock.now());
      log.info({ image: root, fingerprint }, "an image was signed");
      return reply.code(201).send({ signatures: [...signatures] });
    },
  );
  app.post(
    "/v1/images/:root/signatures/remove",
    {
      config: { access: "operate" },
      schema: {
        params: ImageParameters,
        body: ImageSignatureRemoval,
        response: { 200: ImageSignatures, ...problemAnswers },
      },
    },
    async (request) => {
      const { fingerprint } = request.body;
      const { root } = await findImage(images, request.params.root);
      request.auditObject = `${root} ${fingerprint}`;
      const signatures = await images.unsign(root, fingerprint);
      await store.events.append({ topic: "image", id: root, event: "unsigned" }, clock.now());
      log.info({ image: root, fingerprint }, "a signature of an image was removed");
      return { signatures: [...signatures] };
    },
  );
}
