import { type Touched, mergeTouched, newTouched } from '../desired/desired-state.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type ChangeApplier } from './change-applier.js';
import { type Clock } from '../time/clock.js';
import { Gathering } from '../time/gathering.js';
import { type ConntrackCleaner } from './conntrack-cleaner.js';
import { type DesiredUpdater } from './desired-updater.js';
import { type IpvsApplier } from './ipvs-applier.js';
import { type PendingWork } from './pending-work.js';
import { type SyncRecord } from './sync-record.js';

/** Notified of what becomes of changes of the cluster. */
export interface ChangeEvents {
  /** All changes so far are about to be worked out. */
  readonly onTaken: () => void;
  /** Those that were taken are in the kernel, `interleaved` in the middle of longer work. */
  readonly onApplied: (interleaved: boolean) => void;
}

export interface InterleaverOptions extends ChangeEvents {
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly changes: ChangeApplier;
  readonly pending: PendingWork;
  readonly conntrack: ConntrackCleaner;
  readonly clock: Clock;
  /** At least so long between two times that changes go to the kernel, ms (minSyncPeriod). */
  readonly minInterval: () => number;
}

/** What was changed in between. */
export interface Interleaved {
  readonly touched: Touched;
  /** Virtual servers came or went. */
  readonly isMembership: boolean;
}

/**
 * Makes changes of the cluster in the middle of longer work (the first sync, a verification), so that none waits for
 * its end. To be called where nothing is queued for the kernel.
 */
export class Interleaver {
  readonly #gathering = new Gathering();
  /** Since when changes wait, as far as was looked. */
  #askedAt: number | undefined;

  constructor(readonly options: InterleaverOptions) {}

  /**
   * Makes the changes that came meanwhile; undefined when there are none, or when they have to wait: for minSyncPeriod,
   * or in a burst for more of them (time/gathering.ts).
   */
  async run(record: SyncRecord): Promise<Interleaved | undefined> {
    const { clock, updater, ipvs, minInterval, changes, pending, conntrack, onTaken, onApplied } = this.options;
    const { dirtyCount } = updater.cluster;
    if (dirtyCount === 0) {
      this.#askedAt = undefined;
      return undefined;
    }
    const now = clock.now();
    const askedAt = (this.#askedAt ??= now);
    if (now - changes.appliedAt < minInterval() || now < this.#gathering.earliest(askedAt)) return undefined;
    this.#askedAt = undefined;
    record.servicesChanged += dirtyCount;
    onTaken();
    const touched = newTouched();
    try {
      await updater.updateDirty(touched, record.stop);
    } catch (error) {
      mergeTouched(pending.touched, touched);
      throw error;
    }
    const { virtualServers } = updater.desired;
    const comesOrGoes = (key: VirtualServerKey): boolean => virtualServers.has(key) !== ipvs.applied.has(key);
    const isMembership = [...touched.servers].some(comesOrGoes);
    await changes.apply(touched, record);
    await conntrack.clean(record);
    onApplied(true);
    this.#gathering.ended(askedAt, clock.now());
    return { touched, isMembership };
  }
}
