// The mirrors of images, and the sources that an offer of an image names: the controller itself, and those.
import { type MirrorRequest, mirrorsMax } from "../../protocol/api-images.ts";
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageSource } from "../../protocol/messages.ts";
import type { Clock } from "../machine/system.ts";
import type { ImageRecordStore, StoredMirror } from "../store/store.ts";

export interface MirrorParts {
  readonly store: { readonly images: ImageRecordStore };
  readonly clock: Clock;
}

/** Held in memory too: an offer is sent without waiting for the store. */
export class ImageMirrors {
  readonly #parts: MirrorParts;
  #all: readonly StoredMirror[];

  private constructor(parts: MirrorParts, all: readonly StoredMirror[]) {
    this.#parts = parts;
    this.#all = all;
  }

  static async open(parts: MirrorParts): Promise<ImageMirrors> {
    return new ImageMirrors(parts, await parts.store.images.mirrors());
  }

  /** In the order in which they were added. */
  list(): readonly StoredMirror[] {
    return this.#all;
  }

  /**
   * Again with the same address changes that one.
   * @throws `api.bad-request`, `image.too-many`
   */
  async add(root: string, request: MirrorRequest): Promise<StoredMirror> {
    const { url, layout = "bedplate", first = false } = request;
    const fault = faultOfMirror(request);
    if (fault !== undefined)
      throw new BedplateError("api.bad-request", `${url} cannot be a mirror: ${fault}.`);
    const { store, clock } = this.#parts;
    const answer = await store.images.addMirror({ root, url, layout, first, addedAt: clock.now() });
    if (answer === "full") {
      throw new BedplateError("image.too-many", `The image has ${mirrorsMax} mirrors, and takes no more.`, {
        hint: "Remove one: bedplate image mirror remove IMAGE URL",
      });
    }
    await this.#refresh();
    return this.#all.find((mirror) => mirror.root === root && mirror.url === url)!;
  }

  /** @throws `api.not-found` */
  async remove(root: string, url: string): Promise<void> {
    const { store, clock } = this.#parts;
    if ((await store.images.removeMirror(root, url, clock.now())) === "unknown")
      throw new BedplateError("api.not-found", `The image has no mirror ${url}.`, {
        hint: "See those that it has: bedplate image mirror list",
      });
    await this.#refresh();
  }

  /** The image is gone. */
  async forget(root: string): Promise<void> {
    const { store, clock } = this.#parts;
    await store.images.removed(root, clock.now());
    await this.#refresh();
  }

  /** In the order in which hosts are to ask them. */
  sourcesOf(root: string, own: ImageSource): ImageSource[] {
    const mirrors = this.#all.filter((mirror) => mirror.root === root);
    const offered = (first: boolean) =>
      mirrors.filter((mirror) => mirror.first === first).map(({ url, layout }) => sourceOf(url, layout));
    return [...offered(true), own, ...offered(false)];
  }

  async #refresh(): Promise<void> {
    this.#all = await this.#parts.store.images.mirrors();
  }
}

function sourceOf(url: string, layout: StoredMirror["layout"]): ImageSource {
  return { url, mirror: true, ...(layout === "raw" ? { layout } : {}) };
}

/** Why no host could use the address as a mirror; undefined when it can. Which mirrors a host does use, its policy says. */
function faultOfMirror({ url, layout }: Pick<MirrorRequest, "url" | "layout">): string | undefined {
  const parsed = URL.parse(url);
  if (parsed === null || !["http:", "https:", "file:"].includes(parsed.protocol))
    return "it is no http, https or file address";
  if (parsed.username !== "" || parsed.password !== "" || /[?#]/.test(url))
    return "it carries a password, query or fragment";
  // As it was written, and by the rules that hosts go by: one that none of them would take helps nobody.
  const path = url.replace(/^[a-z]+:(\/\/[^/]*)?/i, "");
  if (/%2e|%2f|%5c|%00|\\|(^|\/)\.{1,2}(\/|$)/i.test(path) || /[\s\p{C}]/u.test(url))
    return "its path has a step up, an encoded separator, a space, or what nobody can see";
  if (path.includes("//")) return "its path has an empty segment";
  if (!isDecodable(parsed.pathname)) return "its path is not encoded as UTF-8";
  if (parsed.protocol === "file:" && (parsed.host !== "" || layout !== "raw"))
    return "a file of the hosts themselves is taken as a raw image only";
  return undefined;
}

function isDecodable(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}
