import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Touched, keepTouched } from '../desired/desired-state.js';
import { type AddressApplier } from './address-applier.js';
import { adopt, touchAll } from './adopt.js';
import { ChangeApplier } from './change-applier.js';
import { type Clock } from '../time/clock.js';
import { type ConntrackCleaner } from './conntrack-cleaner.js';
import { type DesiredUpdater } from './desired-updater.js';
import { type DrainTracker } from './drain.js';
import { type ChangeEvents, Interleaver } from './interleaver.js';
import { type IpvsApplier } from './ipvs-applier.js';
import { KernelRefusals } from './kernel-refusals.js';
import { type ObservedSources } from './observe-kernel.js';
import { type StopFlag, WorkStopped } from '../time/pacer.js';
import { PendingWork } from './pending-work.js';
import { Prerequisites, type PrerequisitesOptions } from './prerequisites.js';
import { type RulesKeeper } from './rules-keeper.js';
import { type IpsetApplier } from './ipset-applier.js';
import { readPresentSets } from './ipset-keeper.js';
import { type SetBackend } from '../kernel/set-backend.js';
import { type Between } from './round.js';
import { SyncRecord } from './sync-record.js';
import { type SysctlKeeper } from './sysctl-keeper.js';
import { Verification } from './verification.js';

/** Draining real servers are looked at this often at least, ms, however many changes come. */
const MAX_DRAIN_POLL_WAIT = 30_000;
/** Another mode of kube-proxy that still serves is done away with so long after the takeover, ms, whatever fails. */
const MOST_BESIDE_OTHERS = 60_000;
/** So many objects at least are a class: one Service's fault is not the node's. */
const FEWEST_OF_CLASS = 3;

export interface ReconcilerOptions extends ChangeEvents {
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly addresses: AddressApplier;
  readonly sets: IpsetApplier;
  readonly drains: DrainTracker;
  readonly rules: Pick<RulesKeeper, 'check' | 'prepared' | 'release'>;
  readonly sysctls: SysctlKeeper;
  readonly conntrack: ConntrackCleaner;
  readonly sources: ObservedSources;
  readonly watchLink: PrerequisitesOptions['watchLink'];
  readonly clock: Clock;
  /** Set when the process is to end: the sync in flight breaks off, and what is in the kernel stays. */
  readonly stop: StopFlag;
  /**
   * The rules and sets of the other backend (iptables or nf_tables) that are there still: they say whose virtual
   * servers are, and serve until ours are complete.
   */
  readonly earlier?: SetBackend | undefined;
  /** How often the whole kernel state is read back and repaired, ms (syncPeriod). */
  readonly verifyInterval: () => number;
  /** At least so long between two times that changes go to the kernel, ms (minSyncPeriod). */
  readonly minInterval: () => number;
}

/**
 * One sync at a time: what has to be there first, the desired state of what changed, the messages that close the gap,
 * then (every syncPeriod) the whole kernel state read back. The first sync takes over what is in the kernel instead.
 */
export class Reconciler {
  readonly pending = new PendingWork();
  readonly prerequisites: Prerequisites;
  /** What the kernel refuses and is skipped. */
  readonly refusals: KernelRefusals;
  readonly #changes: ChangeApplier;
  readonly #verification: Verification;
  readonly #interleaver: Interleaver;
  #adopted = false;
  #adoptedAt = Infinity;
  #drainsPolledAt: number | undefined;
  #precomputing: Promise<number> | undefined;

  constructor(readonly options: ReconcilerOptions) {
    const { pending } = this;
    const { sources, clock } = options;
    const refusals = (this.refusals = new KernelRefusals(clock));
    this.prerequisites = new Prerequisites({ ...options, ...sources, setBackend: sources.sets, pending, refusals });
    const shared = { ...options, prerequisites: this.prerequisites, pending, refusals };
    this.#changes = new ChangeApplier(shared);
    this.#interleaver = new Interleaver({ ...shared, changes: this.#changes });
    this.#verification = new Verification({
      ...shared,
      changes: this.#changes,
      interleaver: this.#interleaver,
      interval: options.verifyInterval,
    });
    // Until the kernel's state has been taken over: all that is desired.
    pending.touched = touchAll(options.updater.desired);
  }

  /** True once the kernel's state has been taken over: nothing is changed before. */
  get adopted(): boolean {
    return this.#adopted;
  }

  /** Milliseconds since the last finished verification; undefined before the first. */
  get verificationAge(): number | undefined {
    return this.#verification.age;
  }

  /** Milliseconds until a sync is due even if nothing changes in the cluster. */
  get dueIn(): number {
    return Math.min(
      this.#verification.dueIn,
      this.options.drains.dueIn,
      this.refusals.dueIn,
      this.options.conntrack.dueIn,
    );
  }

  /**
   * Works out the desired state of what is dirty, ahead of the first sync: while the lists are still coming in there is
   * time for it. Touches nothing but memory.
   */
  precompute(): void {
    if (this.#adopted) return;
    this.#precomputing ??= this.options.updater
      .updateDirty(this.pending.touched, this.options.stop)
      .catch((error: unknown) => {
        if (!(error instanceof WorkStopped)) throw error;
        return 0;
      })
      .finally(() => (this.#precomputing = undefined));
  }

  /** One sync. Does not reject: when the kernel cannot be read at all, the record's `error` says so. */
  async sync(): Promise<SyncRecord> {
    const { clock, conntrack } = this.options;
    const start = clock.now();
    const record = new SyncRecord(this.options.stop);
    try {
      await this.#run(record);
    } catch (error) {
      record.error = error;
    }
    await conntrack.clean(record);
    if (this.#adopted && (record.ok || clock.now() - this.#adoptedAt >= MOST_BESIDE_OTHERS))
      this.options.rules.release();
    this.pending.reportTo(record);
    record.ms = clock.now() - start;
    return record;
  }

  async #run(record: SyncRecord): Promise<void> {
    const { updater, rules, earlier } = this.options;
    const { pending } = this;
    await this.prerequisites.ensure(record, this.#adopted);
    const isAdopting = !this.#adopted;
    if (isAdopting && earlier === undefined) {
      rules.check();
      await nextTurn(); // all of that was in one go
    }
    record.servicesChanged = updater.cluster.dirtyCount;
    await this.#precomputing;
    this.options.onTaken();
    await updater.updateDirty(pending.touched, record.stop);
    if (isAdopting) {
      await rules.prepared();
      const first = updater.firstService();
      await this.#adopt(first);
      record.adopted = true;
      await this.#changes.apply(first, record);
    }
    this.refusals.touchDue(pending.touched);
    // What comes during the first sync does not wait for its end. Later ones add all before they delete anything.
    await this.#changes.applyPending(record, isAdopting ? this.#betweenParts(record) : undefined);
    this.options.onApplied(false);
    if (isAdopting && earlier !== undefined) rules.check(); // rules over half of their sets would refuse the other half
    await this.#pollDrains(record);
    if (!isAdopting) await this.#verification.runIfDue(record);
    this.#checkForWholeClass(record);
  }

  /** Lets the event loop turn, the parts being short, and makes the changes that came. */
  #betweenParts(record: SyncRecord): Between {
    const pacer = record.stop.pacer(1);
    return async () => {
      await pacer.yieldIfDue();
      await this.#interleaver.run(record);
    };
  }

  /** Nothing of a sort goes in: then it is this node that is at fault, not the objects. */
  #checkForWholeClass(record: SyncRecord): void {
    const { refusals, prerequisites } = this;
    if (refusals.skippedCount === 0) return;
    const { desired } = this.options.updater;
    const servers = desired.virtualServers.size;
    const { address } = refusals.skipped;
    const [message] = refusals.messages(1);
    const fail = (what: string): void =>
      void record.failures.push({
        operation: 'sync',
        code: 'refused',
        message: `the kernel refuses ${what}: ${message}`,
      });
    if (servers >= FEWEST_OF_CLASS && refusals.serversConcerned >= servers) fail('something of every virtual server');
    if (address >= FEWEST_OF_CLASS && prerequisites.desiredAddresses.count === 0) fail('every address');
  }

  /**
   * The kernel keeps what was deleted on a list for two minutes and searches it at every add. So while more changes
   * wait, deletions do, too: a rolling update adds first.
   */
  async #pollDrains(record: SyncRecord): Promise<void> {
    const { clock, updater } = this.options;
    const now = clock.now();
    this.#drainsPolledAt ??= now;
    if (updater.cluster.dirtyCount > 0 && now - this.#drainsPolledAt < MAX_DRAIN_POLL_WAIT) return;
    this.#drainsPolledAt = now;
    await this.#changes.pollDrains(record, () => this.#interleaver.run(record));
  }

  /** Takes over what is in the kernel: only differences are changed afterwards, among what goes `first` too. */
  async #adopt(first: Touched): Promise<void> {
    const { pending } = this;
    const verification = this.#verification;
    try {
      const { earlier } = this.options;
      const earlierSets = earlier && (await readPresentSets(earlier));
      const observed = { ...(await verification.observe(undefined, true)), earlierSets };
      await adopt(verification.comparison, observed, pending.touched);
    } catch (error) {
      pending.touched = touchAll(this.options.updater.desired);
      throw error;
    }
    keepTouched(first, pending.touched);
    this.#adopted = true;
    this.#adoptedAt = this.options.clock.now();
    verification.skip();
  }
}
