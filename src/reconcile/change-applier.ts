import { type Address } from '../values/address.js';
import { type VipForm } from '../values/vip-form.js';
import { type Touched, mergeTouched } from '../desired/desired-state.js';
import { type IpsetName } from '../desired/ipset-definitions.js';
import { type AddressApplier } from './address-applier.js';
import { type Clock } from '../time/clock.js';
import { type DesiredUpdater } from './desired-updater.js';
import { type DrainTracker } from './drain.js';
import { touchAgain } from './failures.js';
import { type IpvsApplier } from './ipvs-applier.js';
import { type KernelRefusals, type Trial } from './kernel-refusals.js';
import { type PendingWork } from './pending-work.js';
import { type Prerequisites } from './prerequisites.js';
import { type Between, Round } from './round.js';
import { type IpsetApplier } from './ipset-applier.js';
import { type SyncRecord } from './sync-record.js';

export interface ChangeApplierOptions {
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly addresses: AddressApplier;
  readonly sets: IpsetApplier;
  readonly drains: DrainTracker;
  readonly prerequisites: Prerequisites;
  readonly pending: PendingWork;
  readonly refusals: KernelRefusals;
  readonly clock: Clock;
}

const NO_TRIAL: Trial = new Map();

/** Virtual servers, and VIPs, between two moments at which other changes may be made: some milliseconds of work. */
const SERVERS = 128;
const VIPS: Readonly<Record<VipForm, number>> = { addresses: 32, routes: 256 };

/**
 * Makes kernel objects as desired, in the order that no packet can fall through: a virtual server is in the sets before
 * it exists and exists before its address is bound; an address is gone before its virtual server is. What fails becomes
 * pending again.
 */
export class ChangeApplier {
  #appliedAt = -Infinity;

  constructor(readonly options: ChangeApplierOptions) {}

  /** When changes last went to the kernel, in the clock's milliseconds. */
  get appliedAt(): number {
    return this.#appliedAt;
  }

  /**
   * Makes what is pending as desired. Throws NetlinkError when the kernel cannot be read. `between` as for `apply`.
   */
  async applyPending(record: SyncRecord, between?: Between): Promise<void> {
    const { pending, ipvs } = this.options;
    const touched = pending.takeTouched();
    for (const key of ipvs.suspects) touched.servers.add(key);
    await this.apply(touched, record, between);
    await this.#removeStaleVips(record);
  }

  /**
   * Makes what `touched` names as desired; all of it is pending again when the kernel cannot be read. `between` is
   * called now and then, when nothing is queued for the kernel: it may apply other changes.
   */
  async apply(touched: Touched, record: SyncRecord, between?: Between): Promise<void> {
    const { pending, clock, refusals } = this.options;
    const round = new Round(record);
    const trial = refusals.take(touched);
    try {
      await this.#applyInOrder(touched, round, between);
    } catch (error) {
      mergeTouched(pending.touched, touched);
      refusals.putBack(trial);
      throw error;
    } finally {
      this.#settle(round, trial);
    }
    this.#appliedAt = clock.now();
  }

  /** Deletes what has drained. Throws NetlinkError when the table cannot be read. `between` as for `apply`. */
  async pollDrains(record: SyncRecord, between?: Between): Promise<void> {
    const round = new Round(record);
    try {
      await this.options.drains.poll(round, between);
    } finally {
      this.#settle(round, NO_TRIAL);
    }
  }

  async #applyInOrder(touched: Touched, round: Round, between?: Between): Promise<void> {
    const { updater, ipvs, addresses, sets, prerequisites } = this.options;
    const { desired } = updater;
    // The verification that follows its repair finds what a broken set lacks.
    for (const name of prerequisites.brokenSets) touched.entries.delete(name as IpsetName);
    await sets.apply(touched.entries, desired, 'add', round);
    for (const servers of parts(touched.servers, between === undefined ? Infinity : SERVERS)) {
      await ipvs.upsert(servers, desired, round);
      await between?.();
    }
    for (const some of parts(touched.addresses, between === undefined ? Infinity : VIPS[addresses.form])) {
      await addresses.apply(some, desired, 'add', round);
      await between?.();
    }
    await addresses.apply(touched.addresses, desired, 'delete', round);
    await ipvs.remove(touched.servers, desired, round);
    await sets.apply(touched.entries, desired, 'delete', round);
  }

  /** VIPs in a form that is no longer in use go once the node has them in the other. */
  async #removeStaleVips(record: SyncRecord): Promise<void> {
    const { addresses, updater, pending, refusals } = this.options;
    const { desired } = updater;
    const round = new Round(record);
    const isNeeded = (address: Address): boolean =>
      addresses.isDesired(address, desired) &&
      (pending.touched.addresses.has(address) || refusals.isAddressSkipped(address));
    try {
      await addresses.removeStale(isNeeded, round);
    } finally {
      this.#settle(round, NO_TRIAL);
    }
  }

  #settle({ refused, record }: Round, trial: Trial): void {
    const { prerequisites, pending, refusals } = this.options;
    if (refused.addresses.some(({ error }) => error.code === 'ENODEV')) prerequisites.linkLost();
    for (const change of refused) {
      const outcome = refusals.refused(change, trial);
      if (outcome === 'newly-skipped') record.newlySkipped.push(change.message);
      if (outcome === 'skipped' || outcome === 'newly-skipped') continue;
      if (change.object === 'set_entry') prerequisites.setsLost();
      touchAgain(pending.touched, change.retouch);
      record.failures.push(outcome === 'on-trial' ? { ...change, isOnTrial: true } : change);
    }
  }
}

/** All of `keys`, so many at a time. */
function* parts<T>(keys: ReadonlySet<T>, size: number): Generator<Iterable<T>, void> {
  if (keys.size <= size) {
    yield keys;
    return;
  }
  let part: T[] = [];
  for (const key of keys) {
    part.push(key);
    if (part.length < size) continue;
    yield part;
    part = [];
  }
  if (part.length > 0) yield part;
}
