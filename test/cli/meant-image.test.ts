// What a reference to an image can stand for, whatever the controller answers.
import { expect, test } from "vitest";
import { requireImage } from "../../cli/api-client.ts";
import { BedplateError } from "../../protocol/errors.ts";

const root = `e72fb1addaf4fd90${"ab".repeat(24)}`;
const image = (name: string) => ({
  ...{ name, root, sizeBytes: 1, sectorBytes: null, groups: 1, zeroGroups: 0, storedBytes: 1 },
  ...{ importedFrom: "raw" as const, addedAt: 1 },
});

function outcomeOf(name: string, reference: string): string {
  try {
    return requireImage(image(name), reference).name;
  } catch (error) {
    if (error instanceof BedplateError) return error.code;
    throw error;
  }
}

test("a name, the root, its beginning, in any case; short digits may be a name", () => {
  for (const reference of ["debian", root, root.slice(0, 8), root.toUpperCase()])
    expect(outcomeOf("debian", reference)).toBe("debian");
  expect(outcomeOf("20261122", "20261122")).toBe("20261122");
});

test("another image, also one that is named like the root that was asked for", () => {
  expect(outcomeOf("debian", "ubuntu")).toBe("message.invalid");
  const other = "0".repeat(64);
  expect(outcomeOf(other, other)).toBe("image.unknown");
  expect(outcomeOf(other.slice(0, 16), other.slice(0, 16))).toBe("image.unknown");
});
