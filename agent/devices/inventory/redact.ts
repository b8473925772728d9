// The kernel's command line without what may be a secret: passwords, keys and tokens that installers are given there.

export const redacted = "[redacted]";

/** What a parameter's name says when its value is nobody's business. Too much redacted does no harm. */
const secretName =
  /pass(wd|word|phrase|code)|(^|[._-])pass($|[._-])|secret|token|cred|key$|pw$|pwd|psk|chap|(^|[._-])(auth|join)($|[._-])/i;
/** `user:password@`, in an address or in an iSCSI target. */
const userinfo = /([a-z]+:(?:\/\/)?)?[^\s:@/=,]+:[^\s@/]*@/gi;
/** `token=…` within a value: a query, or the fields of a data source. */
const innerValue = /([?&;,])([A-Za-z0-9._-]+)=([^?&;,"\s]*)/g;

/** Words stay in their order; only values change. */
export function redactCommandLine(line: string): string {
  return wordsOf(line)
    .map((word) => {
      const at = word.indexOf("=");
      if (at < 0) return redactValue(word);
      const name = word.slice(0, at);
      return `${name}=${secretName.test(name) ? redacted : redactValue(word.slice(at + 1))}`;
    })
    .join(" ");
}

/** An address without its user, password and query. */
export function redactAddress(address: string): string {
  return redactValue(address).replace(/[?#].*$/, "");
}

function redactValue(text: string): string {
  return text
    .replace(userinfo, (_, scheme: string | undefined) => `${scheme ?? ""}${redacted}@`)
    .replace(innerValue, (whole, before: string, name: string) =>
      secretName.test(name) ? `${before}${name}=${redacted}` : whole,
    );
}

/** As the kernel splits it: at blanks that are not between double quotes. */
function wordsOf(line: string): readonly string[] {
  return line.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [];
}
