// Who may have this host changed, by its policy: nobody, operators by their signatures, or whoever has the API.
import { type Check, missing, ok } from "./check.ts";

/** @param kinds each kind that the policy names, with what it needs, as `bedplate policy check` tells it */
export function operatorsCheck(kinds: readonly { readonly kind: string; readonly needs: string }[]): Check {
  const name = "operators";
  const open = kinds.filter(({ needs }) => needs.startsWith("unsigned")).map(({ kind }) => kind);
  const signed = kinds.filter(({ needs }) => /^\d+ of /.test(needs));
  if (open.length > 0)
    return ok(
      name,
      `a lab's policy: ${open.join(", ")} unsigned`,
      "whoever may use the controller's API, or takes the controller over, may have that done here",
    );
  if (signed.length === 0)
    return missing(
      name,
      "the policy has neither signers nor unsigned kinds",
      'nothing that changes this host can run: name operators in [signers], and what they sign, as [kinds."image.deploy"] signatures',
    );
  return ok(name, signed.map(({ kind, needs }) => `${kind}: ${needs}`).join("; "));
}
