// Which sources a policy allows, case by case.
import { describe, expect, test } from "vitest";
import { faultOfPlace, isListed, requireAllowed } from "../../agent/devices/source-rules.ts";
import { readPolicyText } from "../../agent/policy/policy-file.ts";

const places = ["https://mirror.example/", "http://10.0.0.1:8080/images", "file:/srv/images/"];

test.each([
  "https://mirror.example/a/disk.raw",
  "https://mirror.example:443/a",
  "https://MIRROR.example/a",
  "http://10.0.0.1:8080/images",
  "http://10.0.0.1:8080/images/x%20y.raw",
  "file:///srv/images/disk.raw",
  "file:///srv/%69mages/disk.raw",
])("listed: %s", (url) => {
  expect(isListed(url, places)).toBe(true);
});

test.each([
  ["another scheme", "http://mirror.example/a"],
  ["another host", "https://mirror.example.evil/a"],
  ["a host below", "https://x.mirror.example/a"],
  ["a user that looks like the host", "https://mirror.example@evil/a"],
  ["another port", "https://mirror.example:8443/a"],
  ["no port", "http://10.0.0.1/images/a"],
  ["half a segment", "http://10.0.0.1:8080/images-old/a"],
  ["above", "http://10.0.0.1:8080/"],
  ["a step up", "file:///srv/images/../secret"],
  ["an encoded step up", "file:///srv/images/%2e%2E/secret"],
  ["half an encoded step up", "file:///srv/images/.%2e/secret"],
  ["an encoded slash", "file:///srv/images%2F..%2Fsecret"],
  ["a backslash", "http://10.0.0.1:8080/images\\..\\secret"],
  ["an encoded backslash", "http://10.0.0.1:8080/images/%5c..%5csecret"],
  ["a step up with a tab in it", "file:///srv/images/.\t./secret"],
  ["a byte of zero", "file:///srv/images/a%00b"],
  ["an empty segment", "file:///srv/images//a"],
  ["a file of another host", "file://srv/images/a"],
  ["a query", "https://mirror.example/a?b"],
  ["an empty query", "https://mirror.example/a?"],
  ["another kind", "ftp://mirror.example/a"],
  ["no URL", "mirror.example/a"],
  ["what is not UTF-8", "https://mirror.example/%ff"],
])("not listed: %s", (_, url) => {
  expect(isListed(url, places)).toBe(false);
});

describe("what a source needs", () => {
  test("the pinned authority's https needs no entry; http and files do; a file is raw", () => {
    expect(requireAllowed({ url: "https://127.0.0.1:8443/v1/images/ab" }, [])).toBe(false);
    expect(requireAllowed({ url: "https://mirror.example/x" }, places)).toBe(true);
    for (const source of [
      { url: "http://127.0.0.1/x" },
      { url: "file:///srv/other/x", layout: "raw" },
      { url: "file:///srv/images/x" },
      { url: "https://mirror.example/../x" },
      { url: "https://user:secret@mirror.example/x" },
    ] as const)
      expect(() => requireAllowed(source, places)).toThrow(
        expect.objectContaining({ code: "source.refused" }),
      );
  });

  test("a secret in a refused address is not repeated", () => {
    try {
      requireAllowed({ url: "https://user:secret@mirror.example/x?token=hidden" }, places);
      expect.unreachable();
    } catch (error) {
      expect(JSON.stringify([error, (error as Error).message])).not.toMatch(/secret|hidden/);
    }
  });
});

test("a policy's entry that cannot be meant is told with its line", () => {
  expect(faultOfPlace("file:/srv/images")).toBeUndefined();
  expect(readPolicyText('imageSources = ["file:/"]', "p").imageSources).toEqual(["file:/"]);
  for (const place of ["/srv/images", "https://a/../b", "https://a/?x", "file://host/x"])
    expect(() => readPolicyText(`denyKinds = []\nimageSources = ["${place}"]`, "p")).toThrow(
      expect.objectContaining({
        code: "config.invalid",
        details: expect.objectContaining({ line: 2, key: "imageSources" }),
      }),
    );
});
