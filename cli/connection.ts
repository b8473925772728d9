// Which controller is meant and how it is trusted: the client file that a controller writes at its first start.
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { ClientFile } from "../protocol/api.ts";
import { BedplateError } from "../protocol/errors.ts";
import { checker } from "../protocol/schema.ts";

export interface Connection {
  readonly url: URL;
  readonly token: string;
  /** PEM of the one authority that the controller's certificate must be signed by. */
  readonly ca: string;
}

const check = checker(ClientFile, "config.invalid", "client file");

/** Where a controller on this machine leaves its client file: the system's first, then the user's own. */
export function defaultClientFiles(environment: NodeJS.ProcessEnv = process.env): string[] {
  const state = environment.XDG_STATE_HOME || `${homedir()}/.local/state`;
  return ["/var/lib/bedplate/controller/client.json", `${state}/bedplate/controller/client.json`];
}

/**
 * Reads `clientFile`, else the file that BEDPLATE_CLIENT names, else the first default one that can be read.
 * @throws `config.unreadable`, `config.invalid`, `controller.unreachable` when there is none
 */
export async function findConnection(clientFile: string | undefined): Promise<Connection> {
  const named = clientFile ?? (process.env.BEDPLATE_CLIENT || undefined);
  if (named !== undefined) {
    const text = await readFile(named, "utf8").catch((cause: NodeJS.ErrnoException) => {
      throw new BedplateError(
        "config.unreadable",
        `The client file ${named} cannot be read: ${cause.code ?? cause.message}.`,
        {
          cause,
          hint: "A controller writes client.json into its state directory at its first start, readable by its own user.",
        },
      );
    });
    return parseClientFile(text, named);
  }
  const tried: string[] = [];
  for (const path of defaultClientFiles()) {
    try {
      return parseClientFile(await readFile(path, "utf8"), path);
    } catch (error) {
      if (error instanceof BedplateError) throw error;
      tried.push(`${path} (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
    }
  }
  throw new BedplateError(
    "controller.unreachable",
    `No controller is known here: tried ${tried.join(" and ")}.`,
    {
      hint: "Start one with `bedplate controller`, or name its client file with --client FILE or BEDPLATE_CLIENT.",
    },
  );
}

/** @throws `config.invalid` */
export function parseClientFile(text: string, path: string): Connection {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new BedplateError("config.invalid", `The client file ${path} is not JSON.`, { cause });
  }
  const { url, token, ca } = check(value);
  if (!URL.canParse(url))
    throw new BedplateError("config.invalid", `The client file ${path} has no valid url: "${url}".`);
  try {
    new X509Certificate(ca);
  } catch (cause) {
    throw new BedplateError("config.invalid", `The certificate in the client file ${path} cannot be read.`, {
      cause,
    });
  }
  return { url: new URL(url), token, ca };
}
