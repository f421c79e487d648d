import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Address, isLinkLocal } from '../values/address.js';
import { type Prefix } from '../values/prefix.js';
import { type ClusterState } from '../model/cluster-state.js';
import { type Touched, keepTouched, mergeTouched, newTouched } from '../desired/desired-state.js';
import { type SetName } from '../desired/set-definitions.js';
import { type SetDefinition } from '../values/ip-set.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type AddressApplier } from './address-applier.js';
import { adopt, touchAll } from './adopt.js';
import { type Clock } from './clock.js';
import { type Comparison, compareWithKernel } from './compare.js';
import { type DesiredUpdater } from './desired-updater.js';
import { type DrainTracker } from './drain.js';
import { Drift } from './drift.js';
import { type IpvsApplier, type IpvsCounts, type StaleUdp } from './ipvs-applier.js';
import {
  type ExpectedAddresses,
  type Interruption,
  type ObservedKernel,
  type ObservedSources,
  observeKernel,
  readAddresses,
} from './observer.js';
import { type RulesKeeper } from './rules-keeper.js';
import { type SetApplier } from './set-applier.js';
import { type EnsuredSets, ensureSets } from './set-keeper.js';
import { type Failure, describeFailures, retouch } from './sync-result.js';

/** Draining real servers are looked at this often at least, ms, however many changes come. */
const MAX_DRAIN_POLL_WAIT = 30_000;

export interface ReconcilerParts {
  readonly cluster: ClusterState;
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly addresses: AddressApplier;
  readonly sets: SetApplier;
  readonly drains: DrainTracker;
  readonly rules: RulesKeeper;
  readonly sources: ObservedSources;
  readonly definitions: ReadonlyMap<string, SetDefinition>;
  readonly excludeCIDRs: readonly Prefix[];
  readonly clock: Clock;
  /** How often the whole kernel state is read back and repaired, ms (syncPeriod). */
  readonly verifyInterval: number;
  /** At least so long between two times that changes go to the kernel, ms (minSyncPeriod). */
  readonly minInterval: number;
  /** Removes conntrack entries of UDP backends that are gone; returns how many. */
  readonly cleanConntrack: (stale: readonly StaleUdp[]) => number;
  /** Sets sysctls that differ; adds them to the drift. */
  readonly ensureSysctls: (drift: Drift) => void;
  readonly onSync: (report: SyncReport) => void;
  /** Changes went to the kernel while a verification was going on. */
  readonly onInterleaved: () => void;
}

/** What one sync did. */
export interface SyncReport {
  readonly servicesChanged: number;
  readonly ipvs: IpvsCounts;
  readonly addresses: number;
  readonly setEntries: number;
  readonly conntrackDeleted: number;
  readonly failures: readonly Failure[];
  /** undefined when this sync did not verify. */
  readonly verified: { readonly drift: Drift; readonly ms: number } | undefined;
  readonly adopted: boolean;
  readonly ms: number;
}

/**
 * One sync at a time: desired state of what changed, then the messages that close the gap, then (every syncPeriod) the
 * whole kernel state read back. Order within a sync: a virtual server is in the sets before it exists and exists before its
 * address is bound; an address is gone before its virtual server is. Changes that come while the kernel is read back do not
 * wait for its end: they are made in between, and what was read of them is not compared.
 */
export class Reconciler {
  /** Until the kernel's state has been taken over: all that is desired. */
  #touched: Touched;
  #adopted = false;
  #linkLost = true;
  #setsLost = true;
  #brokenSets: ReadonlySet<string> = new Set();
  #verifiedAt: number | undefined;
  #verifyWanted = false;
  #addressesStale = true;
  #drainsPolledAt: number | undefined;
  #precomputing: Promise<number> | undefined;
  #appliedAt = -Infinity;
  #conntrackDeleted = 0;
  #servicesChanged = 0;

  constructor(readonly parts: ReconcilerParts) {
    this.#touched = touchAll(parts.updater.desired);
  }

  /** True once the kernel's state has been taken over: nothing is changed before. */
  get adopted(): boolean {
    return this.#adopted;
  }

  /** Milliseconds since the last finished verification; undefined before the first. */
  get verificationAge(): number | undefined {
    return this.#verifiedAt === undefined ? undefined : this.parts.clock.now() - this.#verifiedAt;
  }

  /** Something was changed behind our back: verify at the next sync, whatever the interval. */
  wantVerification(): void {
    this.#verifyWanted = true;
  }

  /** The node's addresses may have changed: read them at the next sync. */
  wantAddresses(): void {
    this.#addressesStale = true;
  }

  /** The dummy link vanished. */
  linkLost(): void {
    this.#linkLost = true;
    this.#verifyWanted = true;
  }

  /** An address came or went on the dummy link: repaired at the next sync unless that is what is desired. */
  touchAddress(address: Address, isBound: boolean): boolean {
    if (address.length === 16 && isLinkLocal(address)) return false; // the kernel's own, on every link that is up
    if (this.parts.addresses.isWanted(address, this.parts.updater.desired) === isBound) return false;
    this.#touched.addresses.add(address);
    return true;
  }

  /**
   * Works out the desired state of what is dirty, ahead of the first sync: while the lists are still coming in there is
   * time for it. Touches nothing but memory.
   */
  precompute(): void {
    if (this.#adopted) return;
    this.#precomputing ??= this.parts.updater
      .updateDirty(this.#touched)
      .finally(() => (this.#precomputing = undefined));
  }

  /** Resolves to false when something failed and has to be tried again; throws when the kernel cannot be read at all. */
  async sync(): Promise<boolean> {
    const { clock, cluster, updater } = this.parts;
    const start = clock.now();
    const failures: Failure[] = [];
    await this.#ensureObjects(failures);
    const adopting = !this.#adopted;
    this.#servicesChanged = cluster.dirtyCount;
    await this.#precomputing;
    await updater.updateDirty(this.#touched);
    if (adopting) {
      const first = updater.firstService();
      await this.#adopt(first);
      await this.#apply(first, failures);
    }
    await this.#applyTouched(failures);
    await this.#pollDrains();
    this.#collectFailures(failures);
    const verified = adopting ? undefined : await this.#verifyIfDue(failures);
    this.#report({ start, failures, verified, adopted: adopting });
    return failures.length === 0;
  }

  /**
   * The kernel keeps what was deleted on a list for two minutes and searches it at every add. So while more changes wait,
   * deletions do, too: a rolling update adds first.
   */
  async #pollDrains(): Promise<void> {
    const { clock, cluster, drains } = this.parts;
    const now = clock.now();
    this.#drainsPolledAt ??= now;
    if (cluster.dirtyCount > 0 && now - this.#drainsPolledAt < MAX_DRAIN_POLL_WAIT) return;
    this.#drainsPolledAt = now;
    await drains.poll();
  }

  async #ensureObjects(failures: Failure[]): Promise<void> {
    const { addresses } = this.parts;
    if (this.#linkLost) addresses.forgetLink();
    const isNew = addresses.ensureLink();
    if (isNew && this.#adopted) this.#verifyWanted = true;
    this.#linkLost = false;
    if (this.#setsLost) {
      const { created, replaced } = await this.#ensureSets(failures);
      // Whatever was in them is missing now.
      if (this.#adopted && created.length + replaced.length > 0) this.#verifyWanted = true;
    }
    if (this.#addressesStale) await this.#refreshAddresses();
    if (this.#adopted) return;
    this.parts.rules.check();
    await nextTurn(); // all of that was in one go
  }

  /** One set that cannot be made right is a failure of its own: it is left out, tried again, and nothing else waits for it. */
  async #ensureSets(failures: Failure[]): Promise<EnsuredSets> {
    const ensured = await ensureSets(this.parts.sources.ipset, this.parts.definitions);
    this.#brokenSets = new Set(ensured.failed.map(({ name }) => name));
    this.#setsLost = ensured.failed.length > 0;
    for (const { error } of ensured.failed) {
      if (failures.some(({ message }) => message === error.message)) continue; // told by this sync already
      failures.push({ operation: 'ensure-set', code: error.code, message: error.message });
    }
    return ensured;
  }

  /** Reads the node's addresses and touches what they decide, on the dummy link too. Throws NetlinkError. */
  async #refreshAddresses(): Promise<void> {
    const { sources, addresses } = this.parts;
    const { local, bound } = await readAddresses(sources.links, addresses.index, this.#expectedAddresses);
    this.#addressesStale = false;
    this.#takeLocalAddresses(local);
    if (!this.#adopted) return;
    for (const address of bound.others) this.touchAddress(address, true);
    if (bound.isComplete) return;
    for (const address of this.parts.updater.desired.addresses())
      if (!bound.has(address)) this.touchAddress(address, false);
  }

  #takeLocalAddresses(local: ReadonlySet<Address>): void {
    const { cluster } = this.parts;
    for (const address of local) if (!cluster.localAddresses.has(address)) this.#touched.addresses.add(address);
    for (const address of cluster.localAddresses) if (!local.has(address)) this.#touched.addresses.add(address);
    cluster.setLocalAddresses(local);
  }

  /** Takes over what is in the kernel: only differences are changed afterwards, among what goes `first` too. */
  async #adopt(first: Touched): Promise<void> {
    try {
      const observed = await this.#observe(undefined);
      await adopt(this.#comparison, observed, this.#touched);
    } catch (error) {
      this.#touched = touchAll(this.parts.updater.desired);
      throw error;
    }
    keepTouched(first, this.#touched);
    this.#adopted = true;
    this.#verifiedAt = this.parts.clock.now();
  }

  get #comparison(): Comparison {
    const { updater, ipvs, addresses, excludeCIDRs } = this.parts;
    const { desired } = updater;
    const isWanted = (address: Address): boolean => addresses.isWanted(address, desired);
    return { desired, applied: ipvs.applied, isWanted, excludeCIDRs };
  }

  get #expectedAddresses(): ExpectedAddresses {
    const { cluster, updater, addresses } = this.parts;
    const { desired } = updater;
    let count = desired.addressCount;
    for (const address of cluster.localAddresses) if (desired.hasAddress(address)) count--;
    return { count, has: (address) => addresses.isWanted(address, desired) };
  }

  async #observe(interruption: Interruption | undefined): Promise<ObservedKernel> {
    const { updater, ipvs, addresses, sources } = this.parts;
    const definitions = new Map([...sources.definitions].filter(([name]) => !this.#brokenSets.has(name)));
    const expected = { believed: ipvs.applied, desired: updater.desired, addresses: this.#expectedAddresses };
    const observed = await observeKernel({ ...sources, definitions }, addresses.index!, expected, interruption);
    this.#takeLocalAddresses(observed.local);
    return observed;
  }

  async #compare(failures: Failure[]): Promise<Drift> {
    const keys = newTouched();
    let isDisturbed = false;
    const observed = await this.#observe({
      turn: async () => {
        await nextTurn();
        if (await this.#interleave(keys, failures)) isDisturbed = true;
      },
      isDisturbed: () => isDisturbed,
    });
    const disturbed = { keys, suspects: this.parts.ipvs.suspects };
    return compareWithKernel(this.#comparison, observed, disturbed, this.#touched);
  }

  /** Makes the changes that came meanwhile, adding their keys to `disturbed`; true when virtual servers came or went. */
  async #interleave(disturbed: Touched, failures: Failure[]): Promise<boolean> {
    const { clock, cluster, updater, ipvs, minInterval } = this.parts;
    if (cluster.dirtyCount === 0 || clock.now() - this.#appliedAt < minInterval) return false;
    this.#servicesChanged += cluster.dirtyCount;
    const touched = newTouched();
    try {
      await updater.updateDirty(touched);
    } catch (error) {
      mergeTouched(this.#touched, touched);
      throw error;
    }
    mergeTouched(disturbed, touched);
    const { virtualServers } = updater.desired;
    const comesOrGoes = (key: VirtualServerKey): boolean => virtualServers.has(key) !== ipvs.applied.has(key);
    const isMembership = [...touched.servers].some(comesOrGoes);
    await this.#apply(touched, failures);
    this.#cleanConntrack();
    this.parts.onInterleaved();
    return isMembership;
  }

  async #verifyIfDue(failures: Failure[]): Promise<SyncReport['verified']> {
    const age = this.verificationAge ?? Infinity;
    if (age < this.parts.verifyInterval && !this.#verifyWanted) return undefined;
    this.#verifyWanted = false;
    try {
      return await this.#verify(failures);
    } catch (error) {
      this.#verifyWanted = true;
      throw error;
    }
  }

  async #verify(failures: Failure[]): Promise<SyncReport['verified']> {
    const start = this.parts.clock.now();
    const { created, replaced } = await this.#ensureSets(failures);
    const drift = await this.#compare(failures);
    for (const name of created) drift.add('set', 'missing', () => name);
    for (const name of replaced) drift.add('set', 'changed', () => name);
    this.parts.ensureSysctls(drift);
    this.parts.rules.check();
    await this.parts.updater.updateDirty(this.#touched);
    await this.#applyTouched(failures);
    this.#verifiedAt = this.parts.clock.now();
    return { drift, ms: this.#verifiedAt - start };
  }

  async #applyTouched(failures: Failure[]): Promise<void> {
    const touched = this.#touched;
    this.#touched = newTouched();
    for (const key of this.parts.ipvs.suspects) touched.servers.add(key);
    await this.#apply(touched, failures);
  }

  async #apply(touched: Touched, failures: Failure[]): Promise<void> {
    try {
      await this.#applyInOrder(touched);
    } catch (error) {
      mergeTouched(this.#touched, touched);
      throw error;
    }
    this.#appliedAt = this.parts.clock.now();
    this.#collectFailures(failures);
  }

  async #applyInOrder(touched: Touched): Promise<void> {
    const { updater, ipvs, addresses, sets } = this.parts;
    const { desired } = updater;
    // The verification that follows its repair finds what a broken set lacks.
    for (const name of this.#brokenSets) touched.entries.delete(name as SetName);
    await sets.apply(touched.entries, desired, 'add');
    await ipvs.upsert(touched.servers, desired);
    await addresses.apply(touched.addresses, desired, 'add');
    await addresses.apply(touched.addresses, desired, 'delete');
    await ipvs.remove(touched.servers, desired);
    await sets.apply(touched.entries, desired, 'delete');
  }

  #collectFailures(failures: Failure[]): void {
    const { ipvs, addresses, sets } = this.parts;
    const failed = {
      ipvs: ipvs.takeFailures(),
      addresses: addresses.takeFailures(),
      sets: sets.takeFailures(),
    };
    if (failed.addresses.some(({ error }) => error.code === 'ENODEV')) this.#linkLost = true;
    if (failed.sets.length > 0) this.#setsLost = true;
    retouch(failed, this.#touched);
    failures.push(...describeFailures(failed));
  }

  #cleanConntrack(): void {
    const stale = this.parts.ipvs.takeStaleUdp();
    if (stale.length > 0) this.#conntrackDeleted += this.parts.cleanConntrack(stale);
  }

  #report(facts: {
    start: number;
    failures: readonly Failure[];
    verified: SyncReport['verified'];
    adopted: boolean;
  }): void {
    const { ipvs, addresses, sets, clock, onSync } = this.parts;
    this.#cleanConntrack();
    const conntrackDeleted = this.#conntrackDeleted;
    this.#conntrackDeleted = 0;
    onSync({
      servicesChanged: this.#servicesChanged,
      ipvs: ipvs.takeCounts(),
      addresses: addresses.takeChanges(),
      setEntries: sets.takeChanges(),
      conntrackDeleted,
      failures: facts.failures,
      verified: facts.verified,
      adopted: facts.adopted,
      ms: clock.now() - facts.start,
    });
    this.#servicesChanged = 0;
  }
}
