import { type Address } from '../../values/address.js';

/** More than any API server has addresses; it bounds what a name server that answers at random can make us hold. */
const MOST = 256;

/**
 * Addresses with the time when they were last seen; one that has not been for a while is forgotten, and so is the
 * oldest of too many.
 */
export class RememberedAddresses {
  /** In the order of their last sighting. */
  readonly #seen = new Map<Address, number>();

  readonly #keepMs: number;
  readonly #now: () => number;

  constructor(keepMs: number, now: () => number) {
    this.#keepMs = keepMs;
    this.#now = now;
  }

  get addresses(): readonly Address[] {
    return [...this.#seen.keys()];
  }

  /** True when any of them is new. */
  see(addresses: Iterable<Address>): boolean {
    let isNew = false;
    for (const address of addresses) {
      isNew = !this.#seen.delete(address) || isNew;
      this.#seen.set(address, this.#now());
    }
    for (const address of this.#seen.keys()) {
      if (this.#seen.size <= MOST) break;
      this.#seen.delete(address);
    }
    return isNew;
  }

  /** Forgets what was not seen for too long; true when there was any. */
  forgetOld(): boolean {
    const before = this.#seen.size;
    for (const [address, at] of this.#seen) if (this.#now() - at > this.#keepMs) this.#seen.delete(address);
    return this.#seen.size < before;
  }
}
