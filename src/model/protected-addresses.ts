/**
 * Addresses that this node must be able to reach elsewhere: API servers, other nodes. A VIP bound to kube-ipvs0 becomes
 * the node's own address; with one of these it would cut the node off, and from the API server even for good, since the
 * daemon could no longer hear that the Service is gone.
 */
import { type Address } from '../values/address.js';

/** What one source of addresses knows. */
export interface Protection {
  readonly addresses: Iterable<Address>;
  /** What the addresses are, as the end of "192.0.2.1 is ...": `an API server (endpoint of default/kubernetes)`. */
  readonly reason: string;
  /**
   * True where the address may well be a cluster IP that this node has to serve: the configured server and the peer of
   * a connection are, for a daemon that reaches the API server through default/kubernetes. Cluster IPs are then served.
   */
  readonly mayBeClusterIP?: boolean;
}

/** Why an address is protected. */
export type ProtectionReason = Pick<Protection, 'reason' | 'mayBeClusterIP'>;

/** The protected addresses of all sources. A change costs O(the addresses of that source). */
export class ProtectedAddresses {
  readonly #sources = new Map<string, readonly Address[]>();
  readonly #reasons = new Map<Address, Map<string, ProtectionReason>>();

  get size(): number {
    return this.#reasons.size;
  }

  has(address: Address): boolean {
    return this.#reasons.has(address);
  }

  /** Every protected address; for the start, which takes them off kube-ipvs0 before anything is listed. */
  addresses(): IterableIterator<Address> {
    return this.#reasons.keys();
  }

  /**
   * Why; of several sources the strictest, then the first by name, so that the order of their coming decides nothing.
   */
  reason(address: Address): ProtectionReason | undefined {
    let found: [source: string, reason: ProtectionReason] | undefined;
    for (const [source, reason] of this.#reasons.get(address) ?? []) {
      const isStricter = Number(reason.mayBeClusterIP ?? false) - Number(found?.[1].mayBeClusterIP ?? false);
      if (found === undefined || isStricter < 0 || (isStricter === 0 && source < found[0])) found = [source, reason];
    }
    return found?.[1];
  }

  /** Replaces all that `source` protects (undefined: nothing any more); returns the addresses whose reason changed. */
  set(source: string, protection: Protection | undefined): ReadonlySet<Address> {
    const before = this.#sources.get(source) ?? [];
    const addresses = [...new Set(protection?.addresses)];
    const old = new Map([...before, ...addresses].map((address) => [address, this.reason(address)]));
    for (const address of before) this.#remove(address, source);
    if (addresses.length === 0) this.#sources.delete(source);
    else this.#sources.set(source, addresses);
    const { reason = '', mayBeClusterIP = false } = protection ?? {};
    for (const address of addresses) {
      const reasons = this.#reasons.get(address) ?? new Map<string, ProtectionReason>();
      this.#reasons.set(address, reasons.set(source, { reason, mayBeClusterIP }));
    }
    return new Set([...old.keys()].filter((address) => !isSame(old.get(address), this.reason(address))));
  }

  #remove(address: Address, source: string): void {
    const reasons = this.#reasons.get(address);
    reasons?.delete(source);
    if (reasons?.size === 0) this.#reasons.delete(address);
  }
}

function isSame(one: ProtectionReason | undefined, other: ProtectionReason | undefined): boolean {
  return one?.reason === other?.reason && one?.mayBeClusterIP === other?.mayBeClusterIP;
}
