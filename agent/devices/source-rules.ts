// Which sources of an image the host's policy allows: pure, over parsed URLs, path by whole segments.
import { BedplateError } from "../../protocol/errors.ts";
import type { ImageSource } from "../../protocol/messages.ts";

/** An entry of the policy's `imageSources`, or a source, taken apart. */
interface Place {
  /** With its colon. */
  readonly scheme: string;
  /** With its port where that is not the scheme's own. */
  readonly host: string;
  /** Decoded. */
  readonly segments: readonly string[];
}

/** Ways to write a step up, or a separator, so that a server and this check could read the path differently. */
const ambiguous = /%2e|%2f|%5c|%00|\\|(^|\/)\.{1,2}(\/|$)|[\s\p{Cc}]/iu;

/** @returns why the entry cannot be used, or undefined */
export function faultOfPlace(text: string): string | undefined {
  const place = placeOf(text);
  return typeof place === "string" ? place : undefined;
}

/** Whether `url` is at or below one of the places. */
export function isListed(url: string, places: readonly string[]): boolean {
  const source = placeOf(url);
  if (typeof source === "string") return false;
  return places.some((text) => {
    const place = placeOf(text);
    if (typeof place === "string") return false;
    return (
      place.scheme === source.scheme &&
      place.host === source.host &&
      isWithin(source.segments, place.segments)
    );
  });
}

/**
 * The offering controller's own source needs no entry: https by the authority that the host has pinned.
 * @returns whether the policy lists it
 * @throws `source.refused`
 */
export function requireAllowed(source: ImageSource, places: readonly string[]): boolean {
  const fault = faultOfPlace(source.url);
  if (fault !== undefined) throw refused(source, fault, "Offer the image under a plain address.");
  if (source.url.startsWith("file:") && source.layout !== "raw")
    throw refused(source, "a file of the host is taken as a raw image only", 'Offer it with layout "raw".');
  if (isListed(source.url, places)) return true;
  if (source.url.startsWith("https:") && source.mirror !== true) return false;
  throw refused(
    source,
    "the host's policy does not list it",
    "Add it, or a directory above it, to imageSources in the host's policy, or leave it out of the offer.",
  );
}

export function refused(source: { readonly url: string }, why: string, hint: string): BedplateError {
  return new BedplateError("source.refused", `The image source ${shown(source.url)} is refused: ${why}.`, {
    hint,
    details: { source: shown(source.url) },
  });
}

/** Without what may be secret. */
function shown(url: string): string {
  return url.replace(/\/\/[^/@]*@/, "//…@").replace(/[?#].*$/, "?…");
}

function isWithin(path: readonly string[], place: readonly string[]): boolean {
  return place.length <= path.length && place.every((segment, index) => segment === path[index]);
}

function placeOf(text: string): Place | string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return "it is not a URL";
  }
  if (!["http:", "https:", "file:"].includes(url.protocol)) return "it is neither http, https nor file";
  if (url.username !== "" || url.password !== "" || /[?#]/.test(text))
    return "it carries a password, query or fragment";
  // As it was written: parsing resolves steps up, also encoded ones, before anybody could see them.
  if (ambiguous.test(text.replace(/^[a-z]+:(\/\/[^/]*)?/i, "")))
    return "its path has a step up, an encoded separator, or a space";
  if (url.protocol === "file:" && url.host !== "") return "it names a file of another host";
  try {
    const segments = url.pathname.split("/").map(decodeURIComponent).slice(1);
    if (segments.at(-1) === "") segments.pop();
    if (segments.includes("")) return "its path has an empty segment";
    return { scheme: url.protocol, host: url.host, segments };
  } catch {
    return "its path is not encoded as UTF-8";
  }
}
