import { type Address } from '../values/address.js';
import { type DesiredState } from '../desired/desired-state.js';
import { type LinkClient } from '../kernel/rtnetlink/client.js';
import { type Round } from './round.js';

/** The dummy link that holds the VIPs; kube-proxy's name, so that takeover and rollback find it. */
export const DUMMY_LINK = 'kube-ipvs0';

/**
 * The kernel goes through all addresses of the link for each one that comes or goes. A batch makes it pass so many of
 * them, which takes some milliseconds, and the event loop waits.
 */
const WALK_LENGTH = 320_000;
const FEWEST = 8;

/** Binds VIPs to the dummy link, so that the kernel takes packets for them in. */
export class AddressApplier {
  #index: number | undefined;

  constructor(
    readonly links: LinkClient,
    readonly localAddresses: () => ReadonlySet<Address>,
  ) {}

  /** The dummy link's index; undefined until `ensureLink` and after `forgetLink`. */
  get index(): number | undefined {
    return this.#index;
  }

  /**
   * Makes sure the link exists, unless that is known; one that had to be created has no addresses yet. Throws
   * NetlinkError, after which it is not known. `beforeUse` is called with its index before any address is bound to it.
   */
  ensureLink(beforeUse: (index: number) => void): 'found' | 'created' | 'known' {
    if (this.#index !== undefined) return 'known';
    const { index, created } = this.links.ensureDummy(DUMMY_LINK);
    beforeUse(index);
    this.#index = index;
    return created ? 'created' : 'found';
  }

  /** The link was removed out of band: look again at the next sync. */
  forgetLink(): void {
    this.#index = undefined;
  }

  /**
   * An address that a Service asks for and that no interface of the node's own has (kube-proxy binds those nowhere).
   */
  isDesired(address: Address, desired: DesiredState): boolean {
    return desired.hasAddress(address) && !this.localAddresses().has(address);
  }

  /** Binds or removes each of `addresses`, as desired; both are harmless when already so. */
  async apply(
    addresses: Iterable<Address>,
    desired: DesiredState,
    pass: 'add' | 'delete',
    round: Round,
  ): Promise<void> {
    const index = this.#index;
    if (index === undefined) throw new Error('the dummy link is missing');
    const pacer = round.record.stop.pacer();
    const most = Math.max(FEWEST, WALK_LENGTH / desired.addressCount);
    let queued = 0;
    for (const address of addresses) {
      if (this.isDesired(address, desired) !== (pass === 'add')) continue;
      round.record.addresses++;
      const isFull = pass === 'add' ? this.links.addAddress(index, address) : this.links.deleteAddress(index, address);
      if (isFull || ++queued >= most) {
        this.#flush(round);
        queued = 0;
      }
      if (pacer.isDue) await pacer.yieldIfDue();
    }
    this.#flush(round);
  }

  #flush(round: Round): void {
    for (const failure of this.links.flush()) round.refused.addresses.push(failure);
  }
}
