import { type Address } from '../values/address.js';

const NOBODY: readonly string[] = [];

/** Which Services name an address. Most addresses have one Service, so only further ones cost a Set. */
export class AddressIndex {
  readonly #services = new Map<Address, string | Set<string>>();

  add(address: Address, service: string): void {
    const known = this.#services.get(address);
    if (known === undefined || known === service) this.#services.set(address, service);
    else if (typeof known === 'string') this.#services.set(address, new Set([known, service]));
    else known.add(service);
  }

  delete(address: Address, service: string): void {
    const known = this.#services.get(address);
    if (known === service) this.#services.delete(address);
    if (!(known instanceof Set) || !known.delete(service)) return;
    if (known.size === 1) this.#services.set(address, [...known][0]!);
  }

  /** The keys of the Services that name `address`. */
  at(address: Address): Iterable<string> {
    const known = this.#services.get(address);
    if (known === undefined) return NOBODY;
    return typeof known === 'string' ? [known] : known;
  }
}
