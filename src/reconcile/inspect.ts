/** What a sync would do, without doing it: for `plan`, `verify`, and tests. */
import { type Address } from '../values/address.js';
import { type IpsetDefinition } from '../values/ipset.js';
import { type Prefix } from '../values/prefix.js';
import {
  type RealServerList,
  type VirtualServerKey,
  realServerKeys,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { newTouched, touchEntry } from '../desired/desired-state.js';
import { type IpsetName } from '../desired/ipset-definitions.js';
import { type AppliedVirtualServer } from '../plan/applied.js';
import { drains } from '../plan/virtual-server-plan.js';
import { DUMMY_LINK } from './address-applier.js';
import { type Change } from './change.js';
import { compareWithKernel, ownershipAtStart } from './compare.js';
import { type DesiredUpdater } from './desired-updater.js';
import { Drift } from './drift.js';
import { changesOf } from './inspect-changes.js';
import { NO_ADDRESSES, readAddresses } from './observe-addresses.js';
import { type ObservedSources, observeKernel } from './observe-kernel.js';

export interface Inspection {
  readonly drift: Drift;
  /** What a sync would do, in its order. */
  readonly changes: Change[];
}

const EMPTY = '' as RealServerList;

/** Compares the kernel with the desired state of `updater`, whose cluster state must be complete. Writes nothing. */
export async function inspect(
  updater: DesiredUpdater,
  sources: ObservedSources,
  excludeCIDRs: readonly Prefix[],
): Promise<Inspection> {
  const link = sources.links.findLink(DUMMY_LINK);
  const index = link?.index ?? -1;
  updater.cluster.setLocalAddresses((await readAddresses(sources, index)).local);
  await updater.updateDirty(newTouched());
  const sets = inspectSets(sources);
  const { definitions } = sets;
  const { desired, cluster } = updater;
  const applied = new Map<VirtualServerKey, AppliedVirtualServer>();
  for (const { key, settings, realServers } of desired.virtualServers.values())
    applied.set(key, { settings, realServers, draining: EMPTY, modified: EMPTY });
  const observed = await observeKernel({ ...sources, definitions }, index, {
    applied,
    desired,
    addresses: NO_ADDRESSES,
  });
  for (const [key, server] of observed.servers) expectDrains(applied, key, server);
  const touched = newTouched();
  const isDesired = (address: Address): boolean => desired.hasAddress(address) && !cluster.localAddresses.has(address);
  const comparison = { desired, applied, isDesired, excludeCIDRs };
  const drift = new Drift(Infinity);
  const undisturbed = { keys: newTouched(), suspects: new Set<VirtualServerKey>() };
  const isOurs = ownershipAtStart(comparison, observed);
  await compareWithKernel(comparison, observed, undisturbed, touched, drift, isOurs);
  if (link === undefined) drift.add('link', 'missing', () => DUMMY_LINK);
  for (const { name } of sets.missing) drift.add('set', 'missing', () => name);
  for (const { name } of sets.misfits) drift.add('set', 'changed', () => name);
  for (const name of sources.definitions.keys())
    if (!definitions.has(name))
      for (const entry of desired.entries(name as IpsetName).keys()) touchEntry(touched, name as IpsetName, entry);
  const changes = changesOf({
    ...{ desired, isDesired, touched, servers: observed.servers, vips: sources.vips, stale: observed.stale },
    ...{ hasLink: link !== undefined, missingSets: sets.missing, misfitSets: sets.misfits },
  });
  return { drift, changes };
}

interface InspectedSets {
  /** Those that are there and can hold what they should. */
  readonly definitions: ReadonlyMap<string, IpsetDefinition>;
  readonly missing: readonly IpsetDefinition[];
  /** Of another type under the same name, or with entries that expire: a sync makes them anew. */
  readonly misfits: readonly IpsetDefinition[];
}

/** Throws IpsetError or NetlinkError. */
function inspectSets(sources: ObservedSources): InspectedSets {
  const present = sources.sets.present(sources.definitions.values());
  const definitions = new Map<string, IpsetDefinition>();
  const missing: IpsetDefinition[] = [];
  const misfits: IpsetDefinition[] = [];
  for (const definition of sources.definitions.values()) {
    const state = present.get(definition.name);
    if (state === undefined) missing.push(definition);
    else if (state !== 'fits') misfits.push(definition);
    if (state === 'fits' || state === 'readable') definitions.set(definition.name, definition);
  }
  return { definitions, missing, misfits };
}

/** A backend at weight 0 that nobody wants is on its way out: the daemon's work, no difference. */
function expectDrains(
  applied: Map<VirtualServerKey, AppliedVirtualServer>,
  key: VirtualServerKey,
  { draining }: AppliedVirtualServer,
): void {
  const server = applied.get(key);
  if (server === undefined || draining === '' || !drains(key)) return;
  const family = virtualServerFamily(key);
  const keys = new Set(realServerKeys(server.realServers, family));
  const leaving = realServerKeys(draining, family).filter((real) => !keys.has(real));
  applied.set(key, { ...server, draining: realServerList(leaving) });
}
