/**
 * Observed against applied: what differs goes into `touched`, to be repaired like any other change, and `applied` is
 * corrected. At the start, when nothing is applied yet, adopt.ts takes its place.
 */
import { type Address, FAMILIES, type Family, formatAddress, isIpv6LinkLocal } from '../values/address.js';
import { type IpsetEntry, formatIpsetEntry } from '../values/ipset.js';
import { type Prefix } from '../values/prefix.js';
import {
  type RealServerKey,
  type RealServerList,
  type VirtualServerKey,
  formatRealServer,
  formatVirtualServer,
  realServerKeys,
  virtualServerFamily,
  virtualServerIdentity,
} from '../values/virtual-server.js';
import { type DesiredState, type Touched, touchEntry } from '../desired/desired-state.js';
import { type IpsetName, allIpsetDefinitions, ipsetName } from '../desired/ipset-definitions.js';
import { type AppliedVirtualServer, sameSettings } from '../plan/applied.js';
import { type OwnershipTraces, isExcluded, leftByServiceProxy } from '../plan/ownership.js';
import { type Drift } from './drift.js';
import { type KernelRefusals } from './kernel-refusals.js';
import { type ObservedKernel, ownershipTraces } from './observe-kernel.js';
import { Pacer, type StopFlag } from '../time/pacer.js';

export interface Comparison {
  readonly desired: DesiredState;
  /** What the kernel holds as far as this program knows; corrected here. */
  readonly applied: Map<VirtualServerKey, AppliedVirtualServer>;
  /** Whether an address is to be a VIP of this node. */
  readonly isDesired: (address: Address) => boolean;
  readonly excludeCIDRs: readonly Prefix[];
  /**
   * False: this Node's own addresses are not known yet, so nothing says that what follows from them is desired no more.
   */
  readonly isNodeKnown?: boolean;
  /** Set, the work breaks off. */
  readonly stop?: StopFlag;
  /** Objects that the kernel refuses: that they are missing is no drift. */
  readonly refusals?: Pick<KernelRefusals, 'isServerSkipped' | 'isAddressSkipped' | 'isEntrySkipped'>;
}

/** What was changed while the kernel was read: what was read of it may be what was there before. */
export interface Disturbed {
  readonly keys: Touched;
  /** Takes the virtual servers among them that differ, to be read again. */
  readonly suspects: Set<VirtualServerKey>;
}

/**
 * Notes every difference in `touched` and adds it to `drift`; changes nothing in the kernel. `isOurs` says which of the
 * observed virtual servers are this program's business.
 */
export async function compareWithKernel(
  comparison: Comparison,
  observed: ObservedKernel,
  disturbed: Disturbed,
  touched: Touched,
  drift: Drift,
  isOurs = ownership(comparison),
): Promise<void> {
  const pacer = comparison.stop?.pacer() ?? new Pacer();
  await compareServers(comparison, observed, isOurs, disturbed, touched, drift, pacer);
  await compareAddresses(comparison, observed, disturbed.keys.addresses, touched, drift, pacer);
  await compareEntries(comparison, observed, disturbed.keys.entries, touched, drift, pacer);
}

async function compareServers(
  comparison: Comparison,
  observed: ObservedKernel,
  isOurs: IsOurs,
  { keys: { servers: disturbed }, suspects }: Disturbed,
  touched: Touched,
  drift: Drift,
  pacer: Pacer,
): Promise<void> {
  const { desired, applied } = comparison;
  const isThere = (key: VirtualServerKey): boolean =>
    observed.servers.has(key) || (applied.has(key) && !observed.missing.has(key));
  for (const [key, observedServer] of observed.servers) {
    if (!isOurs(key)) continue;
    if (pacer.isDue) await pacer.yieldIfDue();
    const appliedServer = applied.get(key);
    const isDesired = desired.virtualServers.has(key);
    if (isDesired && appliedServer !== undefined && isSame(appliedServer, observedServer)) continue;
    if (disturbed.has(key)) {
      suspects.add(key);
      continue;
    }
    if (!isDesired) drift.add('virtual_server', 'extra', () => formatVirtualServer(key));
    else if (appliedServer !== undefined) compareServer(key, appliedServer, observedServer, drift);
    applied.set(key, observedServer);
    touched.servers.add(key);
  }
  for (const key of applied.keys()) if (!isThere(key) && !disturbed.has(key)) applied.delete(key);
  for (const key of desired.virtualServers.keys()) {
    if (pacer.isDue) await pacer.yieldIfDue();
    if (isThere(key) || disturbed.has(key) || comparison.refusals?.isServerSkipped(key) === true) continue;
    touched.servers.add(key);
    drift.add('virtual_server', 'missing', () => formatVirtualServer(key));
  }
}

export type IsOurs = (key: VirtualServerKey) => boolean;

/** Says which of the observed virtual servers are this program's to change, or to delete, while it runs. */
export function ownership({ desired, applied, isDesired, excludeCIDRs }: Comparison): IsOurs {
  return (key) => {
    if (desired.virtualServers.has(key)) return true;
    return (applied.has(key) || isOnVip(key, isDesired)) && !isExcluded(key, excludeCIDRs);
  };
}

/** The same at start, when what an earlier run or kube-proxy left is known by its traces alone. */
export function ownershipAtStart(comparison: Comparison, observed: ObservedKernel): IsOurs {
  const isKnown = ownership(comparison);
  // Both are only made when there are virtual servers that nobody here knows.
  let traces: OwnershipTraces | undefined;
  let endpoints: ReadonlySet<RealServerKey> | undefined;
  return (key) => {
    if (isKnown(key)) return true;
    const servesEndpoints = (): boolean => {
      endpoints ??= endpointsOf(comparison.desired);
      return hasOnly(observed.servers.get(key), virtualServerFamily(key), endpoints);
    };
    const isLeft = leftByServiceProxy(key, (traces ??= ownershipTraces(observed)), servesEndpoints);
    return isLeft && !isExcluded(key, comparison.excludeCIDRs);
  };
}

function endpointsOf(desired: DesiredState): ReadonlySet<RealServerKey> {
  const endpoints = new Set<RealServerKey>();
  for (const { key, realServers } of desired.virtualServers.values())
    for (const real of realServerKeys(realServers, virtualServerFamily(key))) endpoints.add(real);
  return endpoints;
}

function hasOnly(
  server: AppliedVirtualServer | undefined,
  family: Family,
  endpoints: ReadonlySet<RealServerKey>,
): boolean {
  const lists = server === undefined ? [] : [server.realServers, server.draining, server.modified];
  const reals = lists.flatMap((list) => realServerKeys(list, family));
  return reals.length > 0 && reals.every((real) => endpoints.has(real));
}

/** Nobody else has business on a VIP, even while its address is off the dummy link (somebody removed that). */
function isOnVip(key: VirtualServerKey, isDesiredAddress: Comparison['isDesired']): boolean {
  const identity = virtualServerIdentity(key);
  return identity.kind === 'address' && isDesiredAddress(identity.address);
}

function isSame(a: AppliedVirtualServer, b: AppliedVirtualServer): boolean {
  if (a === b) return true;
  return (
    sameSettings(a.settings, b.settings) &&
    a.realServers === b.realServers &&
    a.draining === b.draining &&
    a.modified === b.modified
  );
}

function compareServer(
  key: VirtualServerKey,
  applied: AppliedVirtualServer,
  observed: AppliedVirtualServer,
  drift: Drift,
): void {
  if (!sameSettings(applied.settings, observed.settings))
    drift.add('virtual_server', 'changed', () => formatVirtualServer(key));
  const family = virtualServerFamily(key);
  const keys = (list: RealServerList): Set<string> => new Set(realServerKeys(list, family));
  const [kept, draining] = [keys(applied.realServers), keys(applied.draining)];
  const [active, idle, modified] = [keys(observed.realServers), keys(observed.draining), keys(observed.modified)];
  const name = (real: string) => (): string => `${formatVirtualServer(key)} -> ${formatRealServer(real as never)}`;
  for (const real of kept) {
    if (active.has(real)) continue;
    drift.add('real_server', idle.has(real) || modified.has(real) ? 'changed' : 'missing', name(real));
  }
  for (const real of [...active, ...idle, ...modified]) {
    if (kept.has(real)) continue;
    if (!draining.has(real)) drift.add('real_server', 'extra', name(real));
    else if (!idle.has(real)) drift.add('real_server', 'changed', name(real));
  }
}

async function compareAddresses(
  comparison: Comparison,
  observed: ObservedKernel,
  disturbed: ReadonlySet<Address>,
  touched: Touched,
  drift: Drift,
  pacer: Pacer,
): Promise<void> {
  const { desired, isDesired } = comparison;
  for (const address of observed.bound.isComplete ? [] : desired.addresses()) {
    if (pacer.isDue) await pacer.yieldIfDue();
    if (!isDesired(address) || observed.bound.has(address) || disturbed.has(address)) continue;
    if (comparison.refusals?.isAddressSkipped(address) === true) continue;
    touched.addresses.add(address);
    drift.add('address', 'missing', () => formatAddress(address));
  }
  for (const address of observed.bound.others) {
    if (pacer.isDue) await pacer.yieldIfDue();
    if (!isExtraAddress(address, comparison) || disturbed.has(address)) continue;
    touched.addresses.add(address);
    drift.add('address', 'extra', () => formatAddress(address));
  }
  for (const address of observed.stale) drift.add('address', 'extra', () => formatAddress(address));
}

/** Whether a VIP has no business there. */
export function isExtraAddress(address: Address, { isDesired }: Pick<Comparison, 'isDesired'>): boolean {
  // The kernel gives every link that is up an fe80:: address by itself.
  return !isDesired(address) && !isIpv6LinkLocal(address);
}

/** Source ranges that hold the node's own address let it in by an entry of its own: those stay until that is known. */
export function mayFollowFromNode(set: IpsetName, isNodeKnown: boolean | undefined): boolean {
  return isNodeKnown === false && FAMILIES.some((family) => set === ipsetName(family, 'LOAD-BALANCER-SOURCE-IP'));
}

async function compareEntries(
  { desired, refusals, isNodeKnown }: Comparison,
  observed: ObservedKernel,
  disturbed: Touched['entries'],
  touched: Touched,
  drift: Drift,
  pacer: Pacer,
): Promise<void> {
  const definitions = allIpsetDefinitions();
  for (const [set, observedEntries] of observed.sets) {
    const desiredEntries = desired.entries(set);
    if (observedEntries === desiredEntries) continue;
    const changed = disturbed.get(set);
    const note = (entry: IpsetEntry, kind: 'missing' | 'extra'): void => {
      if (changed?.has(entry) === true || refusals?.isEntrySkipped(set, entry) === true) return;
      touchEntry(touched, set, entry);
      drift.add('set_entry', kind, () => `${set} ${formatIpsetEntry(definitions.get(set)!.type, entry)}`);
    };
    for (const entry of desiredEntries.keys()) {
      if (!observedEntries.has(entry)) note(entry, 'missing');
      if (pacer.isDue) await pacer.yieldIfDue();
    }
    for (const entry of observedEntries.keys()) {
      if (!desiredEntries.has(entry) && !mayFollowFromNode(set, isNodeKnown)) note(entry, 'extra');
      if (pacer.isDue) await pacer.yieldIfDue();
    }
  }
}
