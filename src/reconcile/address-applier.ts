import { type Address } from '../values/address.js';
import { VIP_LINKS, type VipForm } from '../values/vip-form.js';
import { type DesiredState } from '../desired/desired-state.js';
import { type AddressFailure } from '../kernel/rtnetlink/address-change.js';
import { type LinkClient } from '../kernel/rtnetlink/client.js';
import { NetlinkError, errnoNumber } from '../netlink/errors.js';
import { type Round } from './round.js';

/** The dummy link that holds the VIPs; kube-proxy's name, so that takeover and rollback find it. */
export const DUMMY_LINK = VIP_LINKS.addresses;

/**
 * The kernel goes through all addresses of the link for each one that comes or goes. A batch makes it pass so many of
 * them, which takes some milliseconds, and the event loop waits.
 */
const WALK_LENGTH = 320_000;
const FEWEST = 8;
/** Removed one by one, so many addresses take longer than the link with all of them. */
const MANY = 500;

interface VipWriter {
  /** Returns true when a batch is full. */
  add(address: Address): boolean;
  delete(address: Address): boolean;
  flush(): AddressFailure[];
  /** So many to a batch at most. */
  readonly most: number;
}

/**
 * Makes VIPs the node's own, so that the kernel takes packets for them in: as addresses on the dummy link, or as local
 * routes. The routes lead to lo: the kernel refuses IPv6 routes to a link that is down, and flushes IPv4 routes to one
 * that loses its last address, without a word. What an earlier run or kube-proxy left in the other form is `stale`.
 */
export class AddressApplier {
  #index: number | undefined;
  #loopback: number | undefined;
  #beforeUse: (index: number) => void = () => undefined;
  #stale: ReadonlySet<Address> = new Set();

  constructor(
    readonly links: LinkClient,
    readonly localAddresses: () => ReadonlySet<Address>,
    readonly form: VipForm = 'addresses',
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
    this.#beforeUse = beforeUse;
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
    const isDue = (address: Address): boolean => this.isDesired(address, desired) === (pass === 'add');
    await this.#write(this.#writer(this.form, desired.addressCount), pass, addresses, isDue, round);
  }

  /** These are VIPs in the other form, or were. */
  noteStale(addresses: ReadonlySet<Address>): void {
    this.#stale = addresses;
  }

  /**
   * Removes VIPs in the other form, but not those that `isNeeded` says are not there in this one yet: so the node
   * takes packets in all the time.
   */
  async removeStale(isNeeded: (address: Address) => boolean, round: Round): Promise<void> {
    if (this.#stale.size === 0) return;
    const all = this.#stale;
    const needed = new Set([...all].filter(isNeeded));
    this.#stale = needed;
    if (needed.size === 0 && all.size >= MANY && this.form === 'routes') {
      round.record.addresses += all.size;
      this.#replaceLink();
      return;
    }
    const other = this.form === 'routes' ? 'addresses' : 'routes';
    const writer = this.#writer(other, all.size);
    await this.#write(writer, 'delete', all, (address) => !needed.has(address), round);
  }

  /** Its addresses go with it, in one go. */
  #replaceLink(): void {
    this.links.deleteLink(DUMMY_LINK);
    this.forgetLink();
    this.ensureLink(this.#beforeUse);
  }

  async #write(
    writer: VipWriter,
    pass: 'add' | 'delete',
    addresses: Iterable<Address>,
    isDue: (address: Address) => boolean,
    round: Round,
  ): Promise<void> {
    const { pacer } = round;
    let queued = 0;
    for (const address of addresses) {
      if (!isDue(address)) continue;
      round.record.addresses++;
      const isFull = pass === 'add' ? writer.add(address) : writer.delete(address);
      if (isFull || ++queued >= writer.most) {
        this.#flush(writer, round);
        queued = 0;
      }
      if (pacer.isDue) await pacer.yieldIfDue();
    }
    this.#flush(writer, round);
  }

  /** `count`: how many addresses the link may hold. */
  #writer(form: VipForm, count: number): VipWriter {
    const { links } = this;
    if (form === 'routes') {
      const { routes } = links;
      const index = this.#loopbackIndex();
      return {
        add: (address) => routes.add(index, address),
        delete: (address) => routes.delete(index, address),
        flush: () => routes.flush(),
        most: Infinity,
      };
    }
    const index = this.#index;
    if (index === undefined) throw new Error('the dummy link is missing');
    return {
      add: (address) => links.addAddress(index, address),
      delete: (address) => links.deleteAddress(index, address),
      flush: () => links.flush(),
      most: Math.max(FEWEST, WALK_LENGTH / count),
    };
  }

  #loopbackIndex(): number {
    this.#loopback ??= this.links.findLink(VIP_LINKS.routes)?.index;
    if (this.#loopback !== undefined) return this.#loopback;
    throw new NetlinkError({ operation: `find link ${VIP_LINKS.routes}`, errno: errnoNumber('ENODEV') });
  }

  #flush(writer: VipWriter, round: Round): void {
    for (const failure of writer.flush()) round.refused.addresses.push(failure);
  }
}
