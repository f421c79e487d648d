import { type Address, FAMILIES, type Family } from '../values/address.js';
import { type IpsetEntry } from '../values/ipset.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type DesiredService, type DesiredVirtualServer, type WithoutLocal } from './service.js';
import { type IpsetName, allIpsetDefinitions } from './ipset-definitions.js';

/** Virtual servers, or set entries, taken in in one go. */
const STEP = 500;

/** The keys whose desired value may have changed since they were last taken. */
export interface Touched {
  readonly servers: Set<VirtualServerKey>;
  readonly addresses: Set<Address>;
  readonly entries: Map<IpsetName, Set<IpsetEntry>>;
}

export function newTouched(): Touched {
  return { servers: new Set(), addresses: new Set(), entries: new Map() };
}

/** Removes from `touched` what `kept` does not name. */
export function keepTouched(touched: Touched, kept: Touched): void {
  for (const server of touched.servers) if (!kept.servers.has(server)) touched.servers.delete(server);
  for (const address of touched.addresses) if (!kept.addresses.has(address)) touched.addresses.delete(address);
  for (const [set, entries] of touched.entries)
    for (const entry of entries) if (kept.entries.get(set)?.has(entry) !== true) entries.delete(entry);
}

export function touchEntry(touched: Touched, set: IpsetName, entry: IpsetEntry): void {
  const entries = touched.entries.get(set);
  if (entries === undefined) touched.entries.set(set, new Set([entry]));
  else entries.add(entry);
}

/** Adds all of `other` to `touched`. */
export function mergeTouched(touched: Touched, other: Touched): void {
  for (const server of other.servers) touched.servers.add(server);
  for (const address of other.addresses) touched.addresses.add(address);
  for (const [set, entries] of other.entries) for (const entry of entries) touchEntry(touched, set, entry);
}

/**
 * What the kernel should hold, indexed by kernel object. Two Services may share an address or a set entry, so those are
 * counted; a virtual server has one owner (claims.ts). Replacing one Service costs O(that Service).
 */
export class DesiredState {
  readonly virtualServers = new Map<VirtualServerKey, DesiredVirtualServer>();
  readonly services = new Map<string, DesiredService>();
  /** The Services that have a health check node port. */
  readonly healthChecks = new Set<string>();
  /** Goes up whenever what a health check node port has to answer may have changed. */
  healthChecksRevision = 0;
  readonly #addresses = new Map<Address, number>();
  readonly #entries = new Map<IpsetName, Map<IpsetEntry, number>>(
    [...allIpsetDefinitions().keys()].map((name) => [name, new Map<IpsetEntry, number>()]),
  );
  readonly #withoutLocal: Record<Family, { internal: number; external: number }> = {
    4: { internal: 0, external: 0 },
    6: { internal: 0, external: 0 },
  };

  /**
   * How many Services have, in a family, a Local policy that finds no endpoint here, though there are some elsewhere.
   */
  withoutLocal(family: Family): WithoutLocal {
    return this.#withoutLocal[family];
  }

  hasAddress(address: Address): boolean {
    return this.#addresses.has(address);
  }

  get addressCount(): number {
    return this.#addresses.size;
  }

  addresses(): IterableIterator<Address> {
    return this.#addresses.keys();
  }

  hasEntry(set: IpsetName, entry: IpsetEntry): boolean {
    return this.#entries.get(set)?.has(entry) ?? false;
  }

  entries(set: IpsetName): ReadonlyMap<IpsetEntry, number> {
    return this.#entries.get(set) ?? new Map<IpsetEntry, number>();
  }

  /**
   * Replaces what `service` asks for (undefined: nothing any more) and notes what that may change in `touched`. In
   * steps; until the last one is done, the state is part of what was and part of what is to be.
   */
  *updateSteps(service: string, next: DesiredService | undefined, touched: Touched): Generator<void, void> {
    const previous = this.services.get(service);
    if (next === undefined) this.services.delete(service);
    else this.services.set(service, next);
    if (next?.healthCheck !== undefined || previous?.healthCheck !== undefined) this.healthChecksRevision++;
    if (next?.healthCheck === undefined) this.healthChecks.delete(service);
    else this.healthChecks.add(service);
    yield* this.#updateServers(previous, next, touched);
    // At most some hundred (MAX_ADDRESSES).
    for (const address of next?.addresses ?? [])
      if (increment(this.#addresses, address)) touched.addresses.add(address);
    for (const address of previous?.addresses ?? [])
      if (decrement(this.#addresses, address)) touched.addresses.add(address);
    yield* this.#countEntries(next, touched, increment);
    yield* this.#countEntries(previous, touched, decrement);
    this.#countWithoutLocal(next, 1);
    this.#countWithoutLocal(previous, -1);
  }

  #countWithoutLocal(service: DesiredService | undefined, sign: 1 | -1): void {
    if (service?.withoutLocal === undefined) return;
    for (const family of FAMILIES) {
      this.#withoutLocal[family].internal += sign * service.withoutLocal[family].internal;
      this.#withoutLocal[family].external += sign * service.withoutLocal[family].external;
    }
  }

  *#updateServers(
    previous: DesiredService | undefined,
    next: DesiredService | undefined,
    touched: Touched,
  ): Generator<void, void> {
    let count = 0;
    for (const server of next?.virtualServers ?? []) {
      if (++count % STEP === 0) yield;
      const before = this.virtualServers.get(server.key);
      this.virtualServers.set(server.key, server);
      if (before?.realServers !== server.realServers || before.settings !== server.settings)
        touched.servers.add(server.key);
    }
    for (const server of previous?.virtualServers ?? []) {
      if (++count % STEP === 0) yield;
      // Still the very object of `previous`: neither `next` nor another Service has taken the key over.
      if (this.virtualServers.get(server.key) !== server) continue;
      this.virtualServers.delete(server.key);
      touched.servers.add(server.key);
    }
  }

  *#countEntries(
    service: DesiredService | undefined,
    touched: Touched,
    count: (counts: Map<IpsetEntry, number>, entry: IpsetEntry) => boolean,
  ): Generator<void, void> {
    const flat = service?.setEntries ?? [];
    for (let i = 0; i < flat.length; i += 2) {
      if (i > 0 && i % (2 * STEP) === 0) yield;
      const set = flat[i] as IpsetName;
      const entry = flat[i + 1] as IpsetEntry;
      if (count(this.#entries.get(set)!, entry)) touchEntry(touched, set, entry);
    }
  }
}

/** True when this is the first reference. */
function increment<K>(counts: Map<K, number>, key: K): boolean {
  const count = counts.get(key) ?? 0;
  counts.set(key, count + 1);
  return count === 0;
}

/** True when this was the last reference. */
function decrement<K>(counts: Map<K, number>, key: K): boolean {
  const count = counts.get(key) ?? 0;
  if (count > 1) counts.set(key, count - 1);
  else counts.delete(key);
  return count === 1;
}
