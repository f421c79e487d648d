import { type Address, formatAddress } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type VipForm } from '../values/vip-form.js';
import { type LinkEvent, LinkWatch, type LinkWatchHandlers } from '../kernel/rtnetlink/watch.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';
import { type Drift } from './drift.js';

/** What the monitor notifies of; each call is about something that the next sync has to see to. */
export interface LinkListener {
  linkLost(): void;
  /** The node's own addresses changed. */
  wantAddresses(): void;
  /** A VIP came or went; true when that is not as desired. */
  addressChanged(address: Address, isBound: boolean): boolean;
  /** Everything has to be read again. */
  eventsLost(reason: string): void;
}

/**
 * Notices at once what others do to the dummy link and its addresses, and when the node's own addresses change. Our own
 * additions to the link are filtered out in the kernel.
 */
export class LinkMonitor {
  #watch: LinkWatch | undefined;
  #index: number | undefined;
  #isClosed = false;

  constructor(
    readonly open: OpenNetlinkSocket,
    /** Where what was noticed on the link is counted. */
    readonly drift: () => Drift,
    /** Called after the listener was notified of something: a sync is due. */
    readonly onNews: () => void,
    readonly vips: VipForm = 'addresses',
  ) {}

  /** Watches the link of this index; `anew`: nothing was watched before, so what happened until now was not noticed. */
  watch(index: number, listener: LinkListener): 'already' | 'anew' {
    const isNew = this.#watch === undefined;
    this.#watch ??= this.#open(listener);
    if (index !== this.#index) this.#watch.ignoreAddressesAddedTo(index);
    this.#index = index;
    return isNew ? 'anew' : 'already';
  }

  /** Resolves when no event can come any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#watch?.close();
  }

  #open(listener: LinkListener): LinkWatch {
    const lost = (reason: unknown): void => {
      listener.eventsLost(errorMessage(reason));
      this.onNews();
    };
    const handlers: LinkWatchHandlers = {
      onEvent: (event) => {
        if (this.#notify(event, listener)) this.onNews();
      },
      onOverrun: lost,
      onError: (error) => {
        this.#watch = undefined;
        this.#index = undefined;
        if (this.#isClosed) return;
        listener.linkLost(); // the next sync looks at the link and listens anew
        lost(error);
      },
    };
    return new LinkWatch(this.open, handlers, this.vips === 'routes');
  }

  /** True when a sync is due. */
  #notify(event: LinkEvent, listener: LinkListener): boolean {
    if ('link' in event) {
      if (event.kind !== 'link-removed' || event.link.index !== this.#index) return false;
      listener.linkLost();
      return true;
    }
    if ('route' in event) return this.#noteChange(event.route.address, false, listener);
    const { address, index } = event.address;
    if (index !== this.#index) {
      listener.wantAddresses();
      return true;
    }
    return this.vips === 'addresses' && this.#noteChange(address, event.kind === 'address-added', listener);
  }

  #noteChange(address: Address, isBound: boolean, listener: LinkListener): boolean {
    if (!listener.addressChanged(address, isBound)) return false;
    this.drift().add('address', isBound ? 'extra' : 'missing', () => formatAddress(address));
    return true;
  }
}
