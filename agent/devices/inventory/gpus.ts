// Graphics and accelerators: PCI devices of those classes, with what their drivers say of them.
import type { Gpu } from "../../../protocol/inventory-devices.ts";
import { cleanLine, type Facts } from "../facts.ts";
import { readIdNames } from "./ids.ts";
import { parsePciConfig } from "./pci-config.ts";
import { bounded, countOf, lineOf, linkName, pciAddressIn, type Source } from "./source.ts";

const pciAt = "/sys/bus/pci/devices";
const drmAt = "/sys/class/drm";
const gpusMax = 64;

export const gpus: Source<Gpu[]> = {
  sources: [
    `${pciAt}/*/{class,config}`,
    `${drmAt}/{card*,renderD*}`,
    `${pciAt}/*/mem_info_vram_total`,
    `${pciAt}/*/mdev_supported_types`,
    "/proc/driver/nvidia/gpus/*/information",
  ],
  collect({ facts, note }) {
    const names = readIdNames(facts, "pci.ids");
    const nodes = nodesByDevice(facts);
    // Class 03h is display, 12h is processing accelerators.
    const addresses = facts
      .list(pciAt)
      .filter(
        (name) =>
          pciAddressIn(name) !== null &&
          /^0x(03|12)/.test(facts.optionalText(`${pciAt}/${name}/class`) ?? ""),
      );
    return bounded(addresses, gpusMax, "graphics devices", note).map((address) => {
      const device = `${pciAt}/${address}`;
      const bytes = facts.optionalBytes(`${device}/config`, 64);
      const config = bytes === null ? null : parsePciConfig(bytes);
      const nvidia = parseInformation(
        facts.optionalText(`/proc/driver/nvidia/gpus/${address}/information`) ?? "",
      );
      return {
        pciAddress: address,
        vendorId: config?.vendorId ?? null,
        deviceId: config?.deviceId ?? null,
        vendor: names.vendor(config?.vendorId ?? null),
        device: nvidia.get("Model") ?? names.device(config?.vendorId ?? null, config?.deviceId ?? null),
        driver: linkName(facts, `${device}/driver`),
        // amdgpu gives it in a file; others only to their own programs.
        memoryBytes: countOf(facts, `${device}/mem_info_vram_total`),
        nodes: [...(nodes.get(address) ?? [])],
        uuid: nvidia.get("GPU UUID") ?? null,
        bios: nvidia.get("Video BIOS") ?? lineOf(facts, `${device}/vbios_version`),
        mediatedTypes: facts
          .list(`${device}/mdev_supported_types`)
          .slice(0, 64)
          .map((name) => cleanLine(name, 64)),
      };
    });
  },
  absent: [],
};

/** Device nodes of the direct rendering manager, by the PCI device behind them. */
function nodesByDevice(facts: Facts): ReadonlyMap<string, readonly string[]> {
  const nodes = new Map<string, string[]>();
  for (const name of facts.list(drmAt)) {
    if (!/^(card|renderD)\d+$/.test(name)) continue;
    const address = pciAddressIn(facts.realPath(`${drmAt}/${name}/device`)?.split("/").at(-1) ?? null);
    if (address !== null) nodes.set(address, [...(nodes.get(address) ?? []), `/dev/dri/${name}`]);
  }
  return nodes;
}

/** NVIDIA's driver: `Model: 		 NVIDIA A100-SXM4-40GB`. */
export function parseInformation(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split("\n").flatMap((line) => {
      const colon = line.indexOf(":");
      const value = colon < 0 ? "" : cleanLine(line.slice(colon + 1), 128);
      return value === "" ? [] : [[line.slice(0, colon).trim(), value] as const];
    }),
  );
}
