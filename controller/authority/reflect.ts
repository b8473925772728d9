// The five lines of Reflect metadata that tsyringe, a dependency of @peculiar/x509, looks for before it loads.

interface ReflectMetadata {
  getMetadata?: (key: unknown, target: object) => unknown;
  getOwnMetadata?: (key: unknown, target: object) => unknown;
  defineMetadata?: (key: unknown, value: unknown, target: object) => void;
}

/** Gives Reflect its metadata functions, unless something gave it them before. */
export function provideReflectMetadata(): void {
  const reflect = Reflect as ReflectMetadata;
  if (reflect.getMetadata !== undefined) return;
  const all = new WeakMap<object, Map<unknown, unknown>>();
  const own = (key: unknown, target: object): unknown => all.get(target)?.get(key);
  reflect.getOwnMetadata = own;
  reflect.getMetadata = (key, target) => {
    for (let at: object | null = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
      const value = own(key, at);
      if (value !== undefined) return value;
    }
    return undefined;
  };
  reflect.defineMetadata = (key, value, target) => {
    const entries = all.get(target) ?? new Map<unknown, unknown>();
    all.set(target, entries.set(key, value));
  };
}
