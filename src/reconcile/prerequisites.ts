import { type Address, isIpv6LinkLocal } from '../values/address.js';
import { type IpsetDefinition } from '../values/ipset.js';
import { type SetBackend } from '../kernel/set-backend.js';
import { type LinkClient } from '../kernel/rtnetlink/client.js';
import { type AddressApplier, DUMMY_LINK } from './address-applier.js';
import { type DesiredUpdater } from './desired-updater.js';
import { type KernelRefusals } from './kernel-refusals.js';
import { type LinkListener } from './link-monitor.js';
import { type DesiredAddresses, readAddresses } from './observe-addresses.js';
import { type StopFlag } from '../time/pacer.js';
import { type PendingWork } from './pending-work.js';
import { type EnsuredSets, ensureSets } from './ipset-keeper.js';
import { type SyncRecord } from './sync-record.js';

export interface PrerequisitesOptions {
  readonly updater: DesiredUpdater;
  readonly addresses: AddressApplier;
  readonly links: LinkClient;
  readonly setBackend: SetBackend;
  readonly definitions: ReadonlyMap<string, IpsetDefinition>;
  readonly pending: PendingWork;
  readonly refusals: KernelRefusals;
  /**
   * Listens for what happens to the link of this index, and to all addresses; called before anything is bound to it.
   */
  readonly watchLink: (index: number, listener: LinkListener) => 'already' | 'anew';
}

/**
 * What has to be there, and known, before anything else can be synced: the dummy link, the sets, the node's own
 * addresses.
 */
export class Prerequisites implements LinkListener {
  #isLinkLost = true;
  #areSetsLost = true;
  #areAddressesStale = true;
  /** From the first look on, a link that has to be made has been taken away by somebody. */
  #hadLink = false;
  #brokenSets: ReadonlySet<string> = new Set();

  constructor(readonly options: PrerequisitesOptions) {}

  /** Sets that could not be made as they should be: nothing can be put in. */
  get brokenSets(): ReadonlySet<string> {
    return this.#brokenSets;
  }

  /** The dummy link vanished: it is made anew by the next sync, which reads everything back. */
  linkLost(): void {
    this.#isLinkLost = true;
    this.options.pending.verification = true;
  }

  setsLost(): void {
    this.#areSetsLost = true;
  }

  /** The node's addresses may have changed: they are read by the next sync. */
  wantAddresses(): void {
    this.#areAddressesStale = true;
  }

  eventsLost(reason: string): void {
    this.options.pending.warn(`address events were lost: reading all addresses again (${reason})`);
    this.options.pending.verification = true;
  }

  /**
   * An address came or went on the dummy link: repaired at the next sync unless that is what is desired; true if so.
   */
  addressChanged(address: Address, isBound: boolean): boolean {
    const { addresses, updater, pending } = this.options;
    if (isIpv6LinkLocal(address)) return false; // the kernel's own, on every link that is up
    if (addresses.isDesired(address, updater.desired) === isBound) return false;
    pending.touched.addresses.add(address);
    return true;
  }

  /**
   * Brings them about; `isAdopted`: the kernel's state has been taken over, so that what is missing is to be read back.
   * Throws NetlinkError or IpsetError when the kernel cannot be asked; a set that cannot be made right is a failure of
   * `record`.
   */
  async ensure(record: SyncRecord, isAdopted: boolean): Promise<void> {
    this.#ensureLink(record, isAdopted);
    if (this.#areSetsLost) {
      const { created, replaced } = await this.ensureSets(record);
      // Whatever was in them is missing now.
      if (isAdopted && created.length + replaced.length > 0) this.options.pending.verification = true;
    }
    if (this.#areAddressesStale) await this.#refreshAddresses(isAdopted, record.stop);
  }

  /**
   * One set that cannot be made right is a failure of its own: it is left out, tried again, and nothing else waits for
   * it.
   */
  async ensureSets(record: SyncRecord): Promise<EnsuredSets> {
    const ensured = await ensureSets(this.options.setBackend, this.options.definitions, record.stop);
    this.#brokenSets = new Set(ensured.failed.map(({ name }) => name));
    this.#areSetsLost = ensured.failed.length > 0;
    for (const { error } of ensured.failed) {
      if (record.failures.some(({ message }) => message === error.message)) continue; // reported by this sync already
      record.failures.push({ operation: 'ensure-set', code: error.code, message: error.message });
    }
    return ensured;
  }

  /** The addresses that are to be VIPs of this node. */
  get desiredAddresses(): DesiredAddresses {
    const { updater, addresses, refusals } = this.options;
    const { desired, cluster } = updater;
    let count = desired.addressCount;
    for (const address of cluster.localAddresses) if (desired.hasAddress(address)) count--;
    for (const address of refusals.skippedAddresses()) if (addresses.isDesired(address, desired)) count--;
    return { count, has: (address) => addresses.isDesired(address, desired) && !refusals.isAddressSkipped(address) };
  }

  /** The node's own addresses are these: what they decide on the dummy link is touched. */
  takeLocalAddresses(local: ReadonlySet<Address>): void {
    const { updater, pending } = this.options;
    const { cluster } = updater;
    const { addresses } = pending.touched;
    for (const address of local) if (!cluster.localAddresses.has(address)) addresses.add(address);
    for (const address of cluster.localAddresses) if (!local.has(address)) addresses.add(address);
    cluster.setLocalAddresses(local);
  }

  #ensureLink(record: SyncRecord, isAdopted: boolean): void {
    const { addresses, pending, watchLink } = this.options;
    if (this.#isLinkLost) addresses.forgetLink();
    const outcome = addresses.ensureLink((index) => {
      // What happened before was not noticed: the addresses are read anew.
      if (watchLink(index, this) === 'anew') this.#areAddressesStale = true;
    });
    this.#isLinkLost = false;
    if (outcome === 'known') return;
    if (outcome === 'created' && isAdopted) pending.verification = true;
    if (outcome === 'created' && this.#hadLink) record.drift.add('link', 'missing', () => DUMMY_LINK);
    this.#hadLink = true;
  }

  /** Reads the node's addresses and touches what they decide, on the dummy link too. Throws NetlinkError. */
  async #refreshAddresses(isAdopted: boolean, stop: StopFlag): Promise<void> {
    const { links, addresses, updater, refusals } = this.options;
    const { local, bound } = await readAddresses(
      { links, vips: addresses.form },
      addresses.index,
      this.desiredAddresses,
      stop,
    );
    this.#areAddressesStale = false;
    this.takeLocalAddresses(local);
    if (!isAdopted) return;
    for (const address of bound.others) this.addressChanged(address, true);
    if (bound.isComplete) return;
    for (const address of updater.desired.addresses())
      if (!bound.has(address) && !refusals.isAddressSkipped(address)) this.addressChanged(address, false);
  }
}
