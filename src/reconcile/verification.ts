import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Address } from '../values/address.js';
import { mergeTouched, newTouched } from '../desired/desired-state.js';
import { type AddressApplier } from './address-applier.js';
import { type ChangeApplier } from './change-applier.js';
import { type Clock } from '../time/clock.js';
import { type Comparison, compareWithKernel } from './compare.js';
import { type DesiredUpdater } from './desired-updater.js';
import { type Interleaver } from './interleaver.js';
import { type IpvsApplier } from './ipvs-applier.js';
import { type KernelRefusals } from './kernel-refusals.js';
import { type Disturbances, type Interruption, NO_DISTURBANCES } from './interruption.js';
import { type ObservedKernel, type ObservedSources, observeKernel } from './observe-kernel.js';
import { type StopFlag } from '../time/pacer.js';
import { type PendingWork } from './pending-work.js';
import { type Prerequisites } from './prerequisites.js';
import { type RulesKeeper } from './rules-keeper.js';
import { type SyncRecord } from './sync-record.js';
import { type SysctlKeeper } from './sysctl-keeper.js';

export interface VerificationOptions {
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly addresses: AddressApplier;
  readonly sources: ObservedSources;
  readonly rules: Pick<RulesKeeper, 'check'>;
  readonly sysctls: SysctlKeeper;
  readonly prerequisites: Prerequisites;
  readonly changes: ChangeApplier;
  readonly pending: PendingWork;
  readonly refusals: KernelRefusals;
  readonly clock: Clock;
  readonly stop: StopFlag;
  /** How often the whole kernel state is read back and repaired, ms (syncPeriod). */
  readonly interval: () => number;
  readonly interleaver: Interleaver;
}

/**
 * Reads the whole kernel state back, counts what drifted, and repairs it the way changes are made. Changes of the
 * cluster that come while the kernel is read do not wait for its end: they are made in between, and what was read of
 * them is not compared.
 */
export class Verification {
  #finishedAt: number | undefined;

  constructor(readonly options: VerificationOptions) {}

  /** Milliseconds since the last finished one; undefined before the first. */
  get age(): number | undefined {
    return this.#finishedAt === undefined ? undefined : this.options.clock.now() - this.#finishedAt;
  }

  /** Milliseconds until the next one is due. */
  get dueIn(): number {
    return this.options.pending.verification ? 0 : Math.max(0, this.options.interval() - (this.age ?? Infinity));
  }

  /** All that is in the kernel is known and about to be made as desired: the interval begins. */
  skip(): void {
    this.#finishedAt = this.options.clock.now();
  }

  /** Verifies if it is time to, or something happened that asks for it. Throws when the kernel cannot be read. */
  async runIfDue(record: SyncRecord): Promise<void> {
    const { pending } = this.options;
    if (this.dueIn > 0) return;
    pending.verification = false;
    try {
      await this.#run(record);
    } catch (error) {
      pending.verification = true;
      throw error;
    }
  }

  /** What an observation is compared by. */
  get comparison(): Comparison {
    const { updater, ipvs, addresses, refusals } = this.options;
    const { excludeCIDRs } = ipvs;
    const { desired } = updater;
    const isDesired = (address: Address): boolean => addresses.isDesired(address, desired);
    const isNodeKnown = updater.cluster.node !== undefined;
    const { stop } = this.options;
    return { desired, applied: ipvs.applied, isDesired, excludeCIDRs, isNodeKnown, refusals, stop };
  }

  readonly #uninterrupted: Interruption = {
    turn: async () => {
      await nextTurn();
      this.options.stop.throwIfStopped();
    },
    disturbances: NO_DISTURBANCES,
  };

  /**
   * Reads everything, what an earlier run may have left as well if `anew`; the node's own addresses are taken note of.
   * Throws when a part cannot be read.
   */
  async observe(interruption = this.#uninterrupted, anew = false): Promise<ObservedKernel> {
    const { updater, ipvs, addresses, sources, prerequisites, stop } = this.options;
    const { brokenSets, desiredAddresses } = prerequisites;
    const definitions = new Map([...sources.definitions].filter(([name]) => !brokenSets.has(name)));
    const expectation = { applied: ipvs.applied, desired: updater.desired, addresses: desiredAddresses };
    const observed = await observeKernel(
      { ...sources, definitions },
      addresses.index!,
      expectation,
      interruption,
      stop,
      anew,
    );
    addresses.noteStale(observed.stale);
    prerequisites.takeLocalAddresses(observed.local);
    return observed;
  }

  async #run(record: SyncRecord): Promise<void> {
    const { prerequisites, sysctls, rules, updater, changes, pending, clock } = this.options;
    const start = clock.now();
    const { created, replaced } = await prerequisites.ensureSets(record);
    await this.#compare(record);
    for (const name of created) record.drift.add('set', 'missing', () => name);
    for (const name of replaced) record.drift.add('set', 'changed', () => name);
    const outcome = sysctls.ensure();
    for (const name of outcome.changed) record.drift.add('sysctl', 'changed', () => name);
    rules.check();
    await updater.updateDirty(pending.touched, record.stop);
    await changes.applyPending(record);
    this.#finishedAt = clock.now();
    record.verified = { ms: this.#finishedAt - start, sysctls: outcome };
  }

  async #compare(record: SyncRecord): Promise<void> {
    const { ipvs, pending } = this.options;
    const keys = newTouched();
    const disturbances: Disturbances = { ...NO_DISTURBANCES };
    const observed = await this.observe({
      turn: async () => {
        await nextTurn();
        record.stop.throwIfStopped();
        const interleaved = await this.options.interleaver.run(record);
        if (interleaved === undefined) return;
        mergeTouched(keys, interleaved.touched);
        disturbances.membership += interleaved.isMembership ? 1 : 0;
        disturbances.addresses += interleaved.touched.addresses.size;
        disturbances.entries += interleaved.touched.entries.size;
      },
      disturbances,
    });
    const disturbed = { keys, suspects: ipvs.suspects };
    await compareWithKernel(this.comparison, observed, disturbed, pending.touched, record.drift);
  }
}
