// Whether an address is within a network, both families; an IPv4 address that came through an IPv6 socket is IPv4.
import { BlockList, isIP } from "node:net";

/** Whether the text is a network: an address, a slash, and a prefix length that fits. */
export function isCidr(text: string): boolean {
  const { address, prefix } = partsOf(text);
  const family = isIP(address);
  return family !== 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128);
}

export function isWithin(cidr: string, address: string): boolean {
  const plain = address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "").replace(/%.*$/, "");
  const network = partsOf(cidr);
  const family = isIP(plain);
  if (!isCidr(cidr) || family === 0 || family !== isIP(network.address)) return false;
  const list = new BlockList();
  const name = family === 4 ? "ipv4" : "ipv6";
  list.addSubnet(network.address, Number(network.prefix), name);
  return list.check(plain, name);
}

function partsOf(cidr: string): { readonly address: string; readonly prefix: string } {
  const [address = "", prefix = "", ...more] = cidr.split("/");
  return more.length === 0 ? { address, prefix } : { address: "", prefix: "" };
}
