// `bedplate image sign|signatures|unsign|verify`.
import type { Command } from "commander";
import { BedplateError } from "../../protocol/errors.ts";
import type { Performer } from "../context.ts";
import { exitCodes } from "../exit-codes.ts";
import type { SignImageAction } from "../image-sign.ts";
import { example, fingerprintOption } from "../options.ts";

interface SignOptions {
  readonly key?: string;
  readonly output?: string;
  readonly signature?: string;
}

export function addImageTrustCommands(image: Command, perform: Performer): void {
  const sign = image
    .command("sign")
    .argument("<image>", "name, root, or its first 8 digits or more; by its root it can be no other image")
    .description("sign an image's manifest with your SSH key; hosts may ask for it (imageSignatures)")
    .option(
      "--key <key>",
      "an SSH key's file, or agent, agent:NAME, agent:SHA256:… for one in ssh-agent (agent)",
    )
    .option("--output <file>", "write the manifest, to be signed on another machine")
    .option("--signature <file>", "add a signature that was made there")
    .action(
      perform<SignOptions>(async ({ terminal, signal, api }, options, [reference]) => {
        const action = actionOf(options);
        const { signImage } = await import("../image-sign.ts");
        await signImage({ client: await api(), terminal, signal, reference: reference!, action });
        return exitCodes.ok;
      }),
    );
  example(
    sign,
    "bedplate image sign debian-12 --key ~/.ssh/id_ed25519",
    "bedplate image sign e72fb1addaf4fd90 --output debian-12.manifest",
    "bedplate image sign e72fb1addaf4fd90 --signature debian-12.manifest.sig",
  );

  const list = image
    .command("signatures")
    .argument("<image>", "name, root, or its first 8 digits or more")
    .description("list an image's signatures, each verified here over the manifest of its root")
    .option("--signers <file>", "public keys with their operators' names, a line each: says whose they are")
    .action(
      perform<{ signers?: string }>(async ({ terminal, api }, { signers }, [reference]) => {
        const { listSignatures, signaturesText } = await import("../image-signatures.ts");
        const { readSignersFile } = await import("../trust/signers-file.ts");
        const known = signers === undefined ? undefined : await readSignersFile(signers);
        const listed = await listSignatures(await api(), reference!, known);
        terminal.document(listed);
        terminal.print(signaturesText(listed, known !== undefined));
        return exitCodes.ok;
      }),
    );
  example(
    list,
    "bedplate image signatures debian-12",
    "bedplate image signatures debian-12 --signers ops.pub",
  );

  const unsign = image
    .command("unsign")
    .argument("<image>", "name, root, or its first 8 digits or more")
    .description(
      "take one key's signature of an image away; hosts that ask for it then refuse the image. The controller's audit keeps who did",
    )
    .requiredOption(
      "--fingerprint <SHA256:…>",
      "of the key, as `bedplate image signatures` shows it",
      fingerprintOption,
    )
    .action(
      perform<{ fingerprint: string }>(async ({ terminal, api }, { fingerprint }, [reference]) => {
        const client = await api();
        const { root, name } = await client.image(reference!);
        const signatures = await client.unsignImage(root, fingerprint);
        terminal.document({ image: { root, name }, removed: fingerprint, signatures });
        terminal.print(
          `The signature of ${fingerprint} over ${name} (${root}) is removed; ${signatures.length === 0 ? "it has none now" : `it has ${signatures.length} still`}.`,
        );
        return exitCodes.ok;
      }),
    );
  example(
    unsign,
    "bedplate image unsign debian-12 --fingerprint SHA256:M4u25yDD1XfCwtIYLRTFH/43+Iah68qr3tIPa1rdnXo",
  );

  const verify = image
    .command("verify")
    .argument("<image>", "name, root, or its first 8 digits or more")
    .description("fetch an image, verify every group of it here, and say who signed it")
    .option(
      "--signers <file>",
      "public keys with their operators' names, a line each: at least one of them must have signed",
    )
    .action(
      perform<{ signers?: string }>(async ({ terminal, signal, api }, { signers }, [reference]) => {
        const { verifyImage } = await import("../image-verify.ts");
        const { readSignersFile } = await import("../trust/signers-file.ts");
        await verifyImage({
          client: await api(),
          ...{ terminal, signal, reference: reference! },
          ...(signers === undefined ? {} : { signers: await readSignersFile(signers) }),
        });
        return exitCodes.ok;
      }),
    );
  example(verify, "bedplate image verify debian-12 --signers ops.pub");
}

function actionOf({ key, output, signature }: SignOptions): SignImageAction {
  if ([key, output, signature].filter((given) => given !== undefined).length > 1) {
    throw new BedplateError("usage", "One of --key, --output and --signature can be given.", {
      hint: "See `bedplate image sign --help`.",
    });
  }
  if (output !== undefined) return { do: "output", file: output };
  if (signature !== undefined) return { do: "add", file: signature };
  return { do: "sign", key: key ?? "agent" };
}
