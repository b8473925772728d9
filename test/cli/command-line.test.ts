// The command line as a user meets it: real processes, their exit codes, stdout and stderr.
import { spawn } from "node:child_process";
import { chmod, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkPolicyFile } from "../../agent/host-tools.ts";
import type { Check } from "../../cli/doctor/check.ts";
import { operatorsCheck } from "../../cli/doctor/operators.ts";
import { version } from "../../protocol/version.ts";
import { type TestController, testController } from "../support/controller.ts";
import { programPath, programSources } from "../support/programs.ts";

const operatorKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICiBNzAoiFkvt4Bzis7xN+ZpSQMx8O3KOYEFigMhl6Oa";
const program = programPath("bedplate");
interface Run {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function bedplate(
  argv: readonly string[],
  environment: Record<string, string> = {},
  from = program,
): Promise<Run> {
  const child = spawn(process.execPath, [from, ...argv], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: process.env.PATH,
      HOME: directory,
      XDG_STATE_HOME: directory,
      XDG_CACHE_HOME: directory,
      ...environment,
    },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk;
  });
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
}

const errorOf = ({ stdout }: Run) =>
  (JSON.parse(stdout) as { error: { code: string; message: string; hint?: string } }).error;

let directory: string;
let controller: TestController;
let client: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "bedplate-cli-"));
  controller = await testController();
  client = join(directory, "other-client.json");
  await writeFile(client, JSON.stringify(controller.client));
});
afterAll(async () => {
  await controller[Symbol.asyncDispose]();
  await rm(directory, { recursive: true, force: true });
});

describe("usage", () => {
  test.each([
    [["no-such-noun"], /Unknown command 'no-such-noun'/, /bedplate --help/],
    [["host", "shw"], /Unknown command 'shw'/, /bedplate host --help/],
    [["deploy", "web-1", "--disk", "serial=S"], /--image/, /bedplate deploy --help/],
    [
      ["deploy", "web-1", "--image", "i", "--disk", "serial=S", "--plan", "--sign", "k"],
      /'--plan' cannot be used with option '--sign/,
      /bedplate deploy --help/,
    ],
    [["ping"], /missing required argument 'host'/i, /bedplate ping --help/],
    [["join-token", "create", "--ttl", "soon"], /duration/, /bedplate join-token create --help/],
    [["join-token", "create", "--uses", "0"], /whole number/, /join-token create/],
    [["image", "add", "x", "--sha256", "abc"], /64 hexadecimal/, /image add/],
    [["commands", "--state", "lost"], /States are/, /commands --help/],
    [["demo", "--size", "1.5G"], /size such as/, /demo --help/],
    [["hash", "--algorithm", "md5"], /blake3 and sha256/, /hash --help/],
    [["token", "create", "--scope", "root"], /Scopes are read, operate, admin/, /token create --help/],
    [["token", "create"], /--scope/, /token create --help/],
    [["join-token", "create", "--approve", "never"], /auto or manual/, /join-token create --help/],
    [["host", "rename", "web-1"], /missing required argument 'name'/i, /host rename --help/],
    [["audit", "api", "--limit", "no"], /whole number/, /audit api --help/],
    [["audit", "api", "--head", "7"], /SEQ:HASH/, /audit api --help/],
    [["controller", "restore"], /missing required argument 'file'/i, /controller restore --help/],
    [["hosts", "--frobnicate"], /unknown option/i, /hosts --help/],
    [["exec", "web-1"], /missing required argument 'argv'/i, /bedplate exec --help/],
    [["exec", "web-1", "--environment", "=x"], /NAME=VALUE/, /exec --help/],
    [["reboot", "web-1", "--on-link-lost", "wait"], /continue, pause or abort/, /reboot --help/],
    [["logs", "web-1", "--source", "kernel"], /agent or executor/, /logs --help/],
    [["known-hosts", "add", "web-1"], /--fingerprint/, /known-hosts add --help/],
    [["host", "release", "web-1"], /--instance/, /host release --help/],
    [["command", "sign", "x", "--digest", "abc"], /64 hexadecimal/, /command sign --help/],
    [["command", "output", "x", "--after", "-1"], /number of bytes/, /command output --help/],
  ])("%j is refused with a sentence and a hint", async (argv, message, hint) => {
    const [text, json] = await Promise.all([bedplate(argv), bedplate([...argv, "--json"])]);
    expect(text.code).toBe(2);
    expect(text.stdout).toBe("");
    expect(text.stderr).toMatch(/^error: .*\n(hint: .*\n)?code: usage\n$/);
    expect(text.stderr).toMatch(message);
    expect(text.stderr).toMatch(hint);
    expect(json.code).toBe(2);
    expect(json.stderr).toBe("");
    expect(errorOf(json)).toMatchObject({
      code: "usage",
      message: expect.stringMatching(message),
      hint: expect.stringMatching(hint),
    });
  });

  test("the version, and help with its exit codes and examples", async () => {
    expect((await bedplate(["--version"])).stdout).toBe(`${version}\n`);
    const help = await bedplate(["--help"]);
    expect(help.code).toBe(0);
    for (const code of [0, 1, 2, 3, 4, 5, 6, 7, 8])
      expect(help.stdout).toMatch(new RegExp(`^  ${code}  `, "m"));
    const deploy = await bedplate(["deploy", "--help"]);
    expect(deploy.stdout).toContain("bedplate deploy web-1 --image debian-12 --disk serial=");
    expect((await bedplate([])).code).toBe(2);
  });

  test("a selector that names no disk", async () => {
    const run = await bedplate(["deploy", "web-1", "--image", "x", "--disk", "/dev/sda", "--plan", "--json"]);
    expect(run.code).toBe(2);
    expect(errorOf(run)).toMatchObject({
      code: "command.bad-arguments",
      hint: expect.stringContaining("serial="),
    });
    const size = await bedplate(["verify", "web-1", "--image", "x", "--disk", "type=ssd", "--json"]);
    expect(errorOf(size).message).toMatch(/never select one/);
  });

  test("nothing is overwritten unasked: without a terminal, deploy needs --yes or --plan", async () => {
    const run = await bedplate(["--client", client, "deploy", "web-1", "--image", "x", "--disk", "serial=S"]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("--yes");
  });
});

const noCommand = "01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90";

describe("what no server could take is not sent", () => {
  test.each([
    [["host", "show", ""], "The host is empty."],
    [["deploy", "web-1", "--image", "", "--disk", "serial=S", "--plan"], "--image is empty."],
    [["image", "add", "x.raw", "--name="], "--name is empty."],
    [["controller", "--state-directory="], "--state-directory is empty."],
    [["policy", "explain", "x", "--signature", ""], "--signature is empty."],
    [["host", "show", ".."], '".." is no name or id.'],
    [["host", "show", "x".repeat(10_000)], "has 10000 characters"],
    [["command", "show", "web-1"], '"web-1" is no command\'s id.'],
    [["host", "rename", "web-1", "a b"], "the first a letter or digit"],
    [["audit", "verify", "--host", "web-1"], "64 hexadecimal digits"],
    [["token", "create", "--scope", "read", "--name", "-"], "the first a letter or digit"],
    [["commands", "--host", "a\nb"], "the first a letter or digit"],
    [["image", "remove", "y".repeat(257)], "has 257 characters"],
  ])("%j", async (argv, message) => {
    const run = await bedplate(["--client", client, ...argv, "--json"]);
    expect(run.code).toBe(2);
    expect(errorOf(run)).toMatchObject({ code: "usage", message: expect.stringContaining(message) });
  });

  test.each([
    [["join-token", "create", "--ttl", "31d"], "At most 30 d."],
    [["join-token", "create", "--uses", "10001"], "At most 10000."],
    [["token", "create", "--scope", "read", "--ttl", "999999999d"], "At most 366 d."],
    [["exec", "web-1", "--yes", "--timeout", "31d", "--", "/bin/true"], "At most 30 d."],
    [["exec", "web-1", "--yes", "--start-within", "31d", "--", "/bin/true"], "At most 30 d."],
    [["reboot", "web-1", "--yes", "--deadline", "25h"], "At most 1 d."],
    [["commands", "--limit", "1001"], "At most 1000."],
    [["audit", "heads", "web-1", "--limit", "257"], "At most 256."],
    [["audit", "api", "--limit", "1001"], "At most 1000."],
    [["logs", "web-1", "--lines", "1001"], "At most 1000."],
    [["hash", "--threads", "1025"], "At most 1024."],
    [
      ["deploy", "web-1", "--image", "i", "--disk", "serial=S", "--plan", "--wait-for-disk", "2h"],
      "At most 1 h.",
    ],
  ])("%j is more than there can be", async (argv, message) => {
    const run = await bedplate(["--client", client, ...argv, "--json"]);
    expect([run.code, errorOf(run).code]).toEqual([2, "usage"]);
    expect(errorOf(run).message).toContain(message);
  });

  test("what goes to a program as it is may be empty", async () => {
    const run = await bedplate([
      "--client",
      client,
      "exec",
      "web-1",
      "--yes",
      "--json",
      "--",
      "/bin/echo",
      "",
    ]);
    expect(errorOf(run).code).toBe("host.unknown");
  });
});

test("a state directory that cannot be made says so, and what to do", async () => {
  const file = join(directory, "a-file");
  await writeFile(file, "");
  for (const path of [file, join(file, "below"), join(directory, "n".repeat(300))]) {
    const run = await bedplate([
      "controller",
      "--listen",
      "127.0.0.1:0",
      "--state-directory",
      path,
      "--json",
    ]);
    expect([run.code, errorOf(run).code]).toEqual([1, "state.unwritable"]);
    expect(errorOf(run).hint).toContain("--state-directory");
  }
});

test("an interrupt that comes several times at once is one, and what was begun is cleared away", async () => {
  const file = join(directory, "endless.raw");
  {
    await using sparse = await open(file, "w");
    await sparse.truncate(256 * 2 ** 30);
  }
  const store = join(directory, "interrupted");
  const child = spawn(process.execPath, [program, "--json", "image", "import", file, "--store", store], {
    stdio: ["ignore", "pipe", "ignore"],
    env: { PATH: process.env.PATH, HOME: directory, XDG_CACHE_HOME: directory },
  });
  let stdout = "";
  child.stdout.on("data", (chunk: Buffer) => {
    stdout += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  await expect
    .poll(
      () =>
        readdir(store).then(
          (names) => names.length,
          () => 0,
        ),
      { timeout: 20_000 },
    )
    .toBeGreaterThan(0);
  for (let times = 0; times < 4; times++) {
    child.kill("SIGINT");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect([await ended, (JSON.parse(stdout) as { error: { code: string } }).error.code]).toEqual([
    7,
    "image.aborted",
  ]);
  expect(await readdir(store)).toEqual([]);
});

describe("a reader that leaves early", () => {
  const leave = (argv: readonly string[]): Promise<Run> => {
    const child = spawn(process.execPath, [program, "--client", client, ...argv], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH: process.env.PATH, HOME: directory, XDG_CACHE_HOME: directory },
    });
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk;
    });
    child.stdout.once("data", () => child.stdout.destroy());
    return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout: "", stderr })));
  };

  test("is no fault of what only prints, and nothing is said", async () => {
    const file = join(directory, "to-hash");
    await writeFile(file, Buffer.alloc(1 << 20));
    expect(await leave(["hash", ...Array.from({ length: 500 }, () => file)])).toMatchObject({
      ...{ code: 0, stderr: "" },
    });
    expect(await leave(["--help"])).toMatchObject({ code: 0, stderr: "" });
  });
});

test("nothing that was given steers the terminal", async () => {
  const evil = "\u001b[31mred\u0007\u009b2J\u202e";
  for (const argv of [
    ["image", "add", join(directory, evil)],
    ["fence", "show", "--journal", join(directory, evil)],
    ["host", "show", evil],
    [evil],
  ])
    for (const mode of [[], ["--json"]]) {
      const { stdout, stderr } = await bedplate(["--client", client, ...argv, ...mode]);
      expect(stdout + stderr).toMatch(/red|null/);
      expect((stdout + stderr).replaceAll("\n", "")).not.toMatch(/\p{Cc}|\p{Bidi_Control}/u);
    }
});

describe("nobody is there to be asked", () => {
  test.each([
    ["exec", "web-1", "--", "/bin/true"],
    ["reboot", "web-1"],
    ["poweroff", "web-1", "--sign", "agent"],
    ["command", "sign", "01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90"],
    ["fence", "reset", "--journal", "/nowhere"],
  ])("%s %s needs --yes", async (...argv) => {
    const run = await bedplate(["--client", client, ...argv]);
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("--yes");
  });

  test("one way to sign at a time", async () => {
    const run = await bedplate(["command", "sign", "x", "--print", "--key", "k", "--json"]);
    expect([run.code, errorOf(run).code]).toEqual([2, "usage"]);
  });
});

test("every command's help ends with an example of it", async () => {
  const nouns = [
    ["known-hosts", "add"],
    ["known-hosts", "list"],
    ["known-hosts", "remove"],
    ["command", "sign"],
    ["command", "output"],
    ["exec"],
    ["reboot"],
    ["poweroff"],
    ["logs"],
    ["policy", "check"],
    ["policy", "explain"],
    ["fence", "show"],
    ["fence", "reset"],
    ["audit", "show"],
    ["audit", "verify"],
    ["audit", "heads"],
    ["host", "release"],
    ["controller", "rotate-ca"],
  ];
  for (const words of nouns) {
    const { code, stdout } = await bedplate([...words, "--help"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`Examples?:\\n +bedplate ${words.join(" ")}`));
  }
});

describe("a host's own policy", () => {
  const valid = 'allowDisks = ["serial:S"]\nunsigned = ["host.reboot"]\n';

  test("is checked as a draft: what it demands, or file, line and key", async () => {
    const file = join(directory, "policy.toml");
    await writeFile(file, valid, { mode: 0o600 });
    const run = await bedplate(["policy", "check", file]);
    expect(run.code, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/^host\.reboot +unsigned$/m);
    await writeFile(file, `${valid}alowDisks = []\n`);
    const wrong = await bedplate(["policy", "check", file, "--json"]);
    expect([wrong.code, errorOf(wrong).code]).toEqual([2, "config.invalid"]);
    expect(errorOf(wrong).message).toContain(`${file}, line 3: "alowDisks"`);
  });

  test("that others can write would not be trusted", async () => {
    const file = join(directory, "open-policy.toml");
    await writeFile(file, valid);
    await chmod(file, 0o666);
    const run = await bedplate(["policy", "check", file, "--json"]);
    expect([run.code, errorOf(run).code]).toEqual([3, "policy.unsafe"]);
  });
});

test("known hosts are listed and forgotten without a controller", async () => {
  const path = join(directory, "some_known_hosts");
  const id = "ab".repeat(32);
  const line = `${id} web-1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICiBNzAoiFkvt4Bzis7xN+ZpSQMx8O3KOYEFigMhl6Oa`;
  await writeFile(path, `# mine\n${line}\n`, { mode: 0o600 });
  const list = await bedplate(["known-hosts", "list", "--known-hosts", path]);
  expect(list.stdout).toMatch(/^web-1 +ABAB-ABAB-ABAB-ABAB +SHA256:[A-Za-z0-9+/]{43}$/m);
  const unknown = await bedplate(["known-hosts", "remove", "web-2", "--known-hosts", path, "--json"]);
  expect([unknown.code, errorOf(unknown).code]).toEqual([1, "host.unknown"]);
  expect((await bedplate(["known-hosts", "remove", "web-1", "--known-hosts", path])).code).toBe(0);
  expect(await readFile(path, "utf8")).toBe("# mine\n");
});

describe("the controller", () => {
  test("none is known here", async () => {
    const run = await bedplate(["hosts"]);
    expect(run.code).toBe(8);
    expect(run.stderr).toContain(`${directory}/bedplate/controller/client.json (ENOENT)`);
    expect(run.stderr).toContain("code: controller.unreachable");
  });

  test("does not answer: the address is named", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    const file = join(directory, "gone.json");
    await writeFile(file, JSON.stringify({ ...controller.client, url: `https://127.0.0.1:${port}` }));
    for (const argv of [["hosts"], ["images"], ["join-token", "create"], ["command", "show", noCommand]]) {
      const run = await bedplate([...argv, "--client", file, "--json"]);
      expect(run.code).toBe(8);
      expect(errorOf(run)).toMatchObject({
        code: "controller.unreachable",
        message: expect.stringContaining(`127.0.0.1:${port}`),
      });
    }
  });

  test("is another one than the client file trusts", async () => {
    await using other = await testController();
    const file = join(directory, "mixed.json");
    await writeFile(file, JSON.stringify({ ...controller.client, ca: other.ca }));
    const run = await bedplate(["hosts", "--client", file, "--json"]);
    expect(run.code).toBe(8);
    expect(errorOf(run).code).toBe("controller.untrusted");
  });

  test.each([
    ["{", /not JSON/],
    ['{"url":"http://x","token":"t","ca":"c"}', /not valid at \/url/],
    [
      '{"url":"https://x","token":"tttttttttttttttttttttttttt","ca":"-----BEGIN CERTIFICATE-----\\nx"}',
      /certificate/,
    ],
  ])("a client file of %s is a configuration error", async (text, message) => {
    const file = join(directory, "bad.json");
    await writeFile(file, text);
    const run = await bedplate(["hosts", "--json"], { BEDPLATE_CLIENT: file });
    expect(run.code).toBe(2);
    expect(errorOf(run)).toMatchObject({ code: "config.invalid", message: expect.stringMatching(message) });
  });

  test("a client file that is not there", async () => {
    const run = await bedplate(["hosts", "--client", join(directory, "nowhere.json"), "--json"]);
    expect(run.code).toBe(2);
    expect(errorOf(run).code).toBe("config.unreadable");
  });

  test("an unknown token, host, image and command", async () => {
    const file = join(directory, "stranger.json");
    await writeFile(file, JSON.stringify({ ...controller.client, token: "x".repeat(40) }));
    const stranger = await bedplate(["hosts", "--client", file, "--json"]);
    expect([stranger.code, errorOf(stranger).code]).toEqual([3, "api.unauthorized"]);
    const host = await bedplate(["host", "show", "nobody", "--client", client, "--json"]);
    expect([host.code, errorOf(host).code]).toEqual([1, "host.unknown"]);
    const image = await bedplate([
      ...["deploy", "nobody", "--image", "nothing", "--disk", "serial=S"],
      ...["--plan", "--client", client, "--json"],
    ]);
    expect([image.code, errorOf(image).code]).toEqual([1, "image.unknown"]);
    const id = "01980c6e-9f2a-7cc1-8a4b-5f0d6c7e8f90";
    const command = await bedplate(["command", "cancel", id, "--client", client, "--json"]);
    expect([command.code, errorOf(command).code]).toEqual([1, "api.not-found"]);
  });

  test("answers", async () => {
    const hosts = await bedplate(["hosts", "--client", client, "--json"]);
    expect([hosts.code, JSON.parse(hosts.stdout)]).toEqual([0, { hosts: [] }]);
    const token = await bedplate(["join-token", "create", "--ttl", "2m", "--uses", "3"], {
      BEDPLATE_CLIENT: client,
    });
    expect(token.stdout).toMatch(/^bedplate-join\.[^.]+\.[^.]+\.[0-9a-f]{64}\n$/);
    expect(token.stderr).toContain("3 hosts");
    const commands = await bedplate(["commands", "--client", client]);
    expect([commands.code, commands.stdout]).toEqual([0, "There are no such commands.\n"]);
  });
});

describe("tokens", () => {
  test("are made for a scope, listed, revoked, and what they do is in the audit", async () => {
    const made = await bedplate(["token", "create", "--scope", "read", "--ttl", "1h", "--name", "ci"], {
      BEDPLATE_CLIENT: client,
    });
    const token = made.stdout.trim();
    expect(token).toMatch(/^bedplate-api\.[0-9a-f]{16}\.[A-Za-z0-9_-]{43}$/);
    expect(made.stderr).toContain('"ci" may read, until ');
    const id = token.split(".")[1]!;
    const own = join(directory, "reader.json");
    await writeFile(own, JSON.stringify({ ...controller.client, token }));
    expect((await bedplate(["hosts", "--client", own])).code).toBe(0);
    const refused = await bedplate(["join-token", "create", "--client", own, "--json"]);
    expect([refused.code, errorOf(refused)]).toMatchObject([
      3,
      { code: "api.forbidden", message: expect.stringContaining('"admin"') },
    ]);
    const list = await bedplate(["token", "list", "--client", client]);
    expect(list.stdout).toMatch(new RegExp(`^${id} +ci +read +valid .* ago +`, "m"));
    expect(list.stdout).not.toContain(token.split(".")[2]);
    const revoked = await bedplate(["token", "revoke", id, "--client", client]);
    expect(revoked.stdout).toBe(`The token "ci" (${id}) is revoked.\n`);
    expect(errorOf(await bedplate(["hosts", "--client", own, "--json"])).code).toBe("api.unauthorized");
    const audit = await bedplate(["audit", "api", "--limit", "3", "--client", client]);
    expect(audit.stdout.split("\n").slice(1, 4)).toEqual([
      expect.stringMatching(new RegExp(`client.json .* POST /v1/tokens/:id/revoke +${id} +200$`)),
      expect.stringMatching(
        /ci \([0-9a-f]{16}\) +127\.0\.0\.1 +POST \/v1\/join-tokens +- +403 api\.forbidden$/,
      ),
      expect.stringMatching(new RegExp(`client.json .* POST /v1/tokens +${id} +201$`)),
    ]);
  });

  test("to join with are listed with what binds them, and revoked", async () => {
    const made = await bedplate([
      ...["join-token", "create", "--uses", "4", "--approve", "manual", "--cidr", "10.1.0.0/16"],
      ...["--client", client, "--json"],
    ]);
    const { id, token } = JSON.parse(made.stdout) as { id: string; token: string };
    expect(token).toContain(id);
    const list = await bedplate(["join-token", "list", "--client", client]);
    expect(list.stdout).toMatch(new RegExp(`^${id} +valid +0 of 4 .* manual +- +10.1.0.0/16$`, "m"));
    await bedplate(["join-token", "revoke", id, "--client", client]);
    const after = await bedplate(["join-token", "list", "--client", client]);
    expect(after.stdout).toMatch(new RegExp(`^${id} +revoked `, "m"));
    const wrong = await bedplate(["join-token", "create", "--cidr", "10.1", "--client", client, "--json"]);
    expect([wrong.code, errorOf(wrong).code]).toEqual([2, "api.bad-request"]);
  });
});

describe("images", () => {
  test("are imported, added and listed; the root is that of the content", async () => {
    const file = join(directory, "small image.raw");
    await writeFile(file, Buffer.alloc(3 << 20, "image"));
    const store = join(directory, "store");
    const imported = await bedplate(["image", "import", file, "--store", store]);
    expect(imported.code, imported.stderr).toBe(0);
    const root = imported.stdout.trim();
    const hash = await bedplate(["hash", file, "--json"]);
    expect(hash.stdout).toContain(root);
    const added = await bedplate(["image", "add", file, "--client", client, "--json"]);
    expect(JSON.parse(added.stdout)).toMatchObject({ root, name: "small-image", sizeBytes: 3 << 20 });
    const again = await bedplate(["image", "add", file, "--client", client]);
    expect(again.stderr).toContain("already");
    const list = await bedplate(["images", "--client", client]);
    expect(list.stdout).toMatch(/^NAME .*\nsmall-image +[0-9a-f]{16} +3 MiB/);
    expect((await readdir(tmpdir())).filter((name) => name.startsWith("bedplate-import-"))).toEqual([]);
  });

  test("that cannot be imported leave nothing", async () => {
    const file = join(directory, "b.raw");
    await writeFile(file, "content");
    const store = join(directory, "empty-store");
    const wrong = await bedplate([
      "image",
      "import",
      file,
      "--store",
      store,
      "--sha256",
      "0".repeat(64),
      "--json",
    ]);
    expect([wrong.code, errorOf(wrong).code]).toEqual([1, "image.digest-mismatch"]);
    expect(await readdir(store)).toEqual([]);
    const format = await bedplate(["image", "import", file, "--store", store, "--format", "iso", "--json"]);
    expect([format.code, errorOf(format).code]).toEqual([2, "usage"]);
    const absent = await bedplate(["image", "add", join(directory, "absent"), "--client", client, "--json"]);
    expect([absent.code, errorOf(absent).code]).toEqual([1, "file.unreadable"]);
  });
});

test("doctor says what is there and what its absence costs", async () => {
  const run = await bedplate(["doctor", "--state-directory", join(directory, "state"), "--json"]);
  const { ok, checks } = JSON.parse(run.stdout) as {
    ok: boolean;
    checks: { name: string; status: string; essential: boolean; found: string; costs: string | null }[];
  };
  expect(run.code).toBe(ok ? 0 : 1);
  expect(ok).toBe(!checks.some((check) => check.status === "missing" && check.essential));
  for (const check of checks) {
    expect(check.found).not.toBe("");
    if (check.status === "missing") expect(check.costs, check.name).toMatch(/\w/);
  }
  expect(checks.find((check) => check.name === "node")).toMatchObject({
    status: "ok",
    found: process.version,
  });
  expect(checks.map((check) => check.name)).toEqual(
    expect.arrayContaining([
      "wasm relaxed",
      "direct I/O",
      "policy",
      "free disk",
      "cgroup v2",
      "flock",
      "mke2fs",
    ]),
  );
  expect((await readdir(directory)).filter((name) => name.includes("doctor"))).toEqual([]);
});

test.each<[string, string, Partial<Check>]>([
  [
    "nothing",
    "",
    { status: "missing", found: expect.stringContaining("neither signers nor unsigned kinds") },
  ],
  [
    "an operator whom no kind asks",
    `[signers]\nops = ["${operatorKey} alice"]\n`,
    { status: "missing", costs: expect.stringContaining("nothing that changes this host can run") },
  ],
  [
    "a lab's unsigned kinds",
    'unsigned = ["image.deploy", "host.reboot"]\n',
    { status: "ok", found: "a lab's policy: host.reboot, image.deploy unsigned", costs: expect.any(String) },
  ],
  [
    "operators who sign",
    `[signers]\nops = ["${operatorKey} alice"]\n[kinds."image.deploy"]\nsignatures = { k = 1, from = ["ops"] }\n`,
    { status: "ok", found: "image.deploy: 1 of ops", costs: null },
  ],
])("doctor, of a policy with %s", async (_, policy, expected) => {
  const file = join(directory, "doctor-policy.toml");
  await writeFile(file, policy, { mode: 0o600 });
  expect(operatorsCheck(checkPolicyFile(file).kinds)).toMatchObject(expected);
});

test("before the first executor run there is no journal, and that is said", async () => {
  const journal = join(directory, "no-journal");
  for (const noun of ["fence", "audit"]) {
    const shown = await bedplate([noun, "show", "--journal", journal]);
    expect([shown.code, shown.stdout, shown.stderr]).toEqual([
      0,
      `No executor has run here yet: there is no journal in ${journal}.\n`,
      "",
    ]);
  }
  const verified = await bedplate([
    "audit",
    "verify",
    "--journal",
    journal,
    "--heads",
    "/dev/null",
    "--json",
  ]);
  expect(verified.code).toBe(1);
  expect(errorOf(verified).message).toBe(
    `There is no journal in ${journal}, so there is no audit to verify.`,
  );
});

test("doctor fails where nothing can be kept", async () => {
  const run = await bedplate(["doctor", "--state-directory", "/proc/bedplate", "--json"]);
  expect(run.code).toBe(1);
  expect(JSON.parse(run.stdout)).toMatchObject({ ok: false });
});

test("agent --check names file, line and key", async () => {
  const file = join(directory, "agent.toml");
  await writeFile(file, '# comment\ncontroller = "https://127.0.0.1:1"\nnmae = "x"\n');
  const run = await bedplate(["agent", "--config", file, "--check"]);
  expect(run.code).toBe(2);
  expect(run.stderr).toContain(`${file}, line 3: "nmae"`);
  await writeFile(file, 'controller = "https://127.0.0.1:1"\n');
  expect((await bedplate(["agent", "--config", file, "--check", "--json"])).stdout).toContain('"ok":true');
});

test("an agent does not load the controller's server", async () => {
  const file = join(directory, "check.toml");
  await writeFile(file, 'controller = "https://127.0.0.1:1"\n');
  const hook = join(directory, "hook.mjs");
  await writeFile(
    hook,
    'import { registerHooks } from "node:module"; registerHooks({ resolve(name, context, next) { if (/^fastify$|@peculiar|\\/controller\\//.test(name)) throw new Error("loaded " + name); return next(name, context); } });',
  );
  // From the sources: a bundle's modules have other names.
  const hooked = (...argv: string[]) =>
    bedplate(argv, { NODE_OPTIONS: `--import=${hook}` }, programSources.bedplate);
  const run = await hooked("agent", "--config", file, "--check");
  expect(run.code, run.stderr).toBe(0);
  const controllerRun = await hooked("controller", "--state-directory", "/proc/x");
  expect(controllerRun.stderr).toContain("loaded ");
});
