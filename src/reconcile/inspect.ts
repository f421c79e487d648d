/** What a sync would do, without doing it: for `plan`, `verify`, and tests. */
import { formatAddress } from '../values/address.js';
import { formatSetEntry } from '../values/ip-set.js';
import { type Prefix } from '../values/prefix.js';
import {
  type RealServerList,
  type VirtualServerKey,
  formatRealServer,
  formatVirtualServer,
  realServerKeys,
  realServerList,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { newTouched } from '../desired/desired-state.js';
import { allSetDefinitions } from '../desired/set-definitions.js';
import { type AppliedVirtualServer } from '../plan/applied.js';
import { type IpvsOperations, drains, inAddingOrder, planVirtualServer } from '../plan/virtual-server-plan.js';
import { DUMMY_LINK } from './address-applier.js';
import { compareWithKernel, ownershipAtStart } from './compare.js';
import { type DesiredUpdater } from './desired-updater.js';
import { Drift } from './drift.js';
import { NO_ADDRESSES, type ObservedSources, observeKernel, readAddresses } from './observer.js';

export interface Inspection {
  readonly drift: Drift;
  /** One line per change that a sync would make. */
  readonly changes: string[];
}

const EMPTY = '' as RealServerList;

/** Compares the kernel with the desired state of `updater`, whose cluster state must be complete. Writes nothing. */
export async function inspect(
  updater: DesiredUpdater,
  sources: ObservedSources,
  excludeCIDRs: readonly Prefix[],
): Promise<Inspection> {
  const index = sources.links.findLink(DUMMY_LINK)?.index ?? -1;
  updater.cluster.setLocalAddresses((await readAddresses(sources.links, index)).local);
  await updater.updateDirty(newTouched());
  const present = new Set(sources.ipset.listSets().map(({ name }) => name));
  const definitions = new Map([...sources.definitions].filter(([name]) => present.has(name)));
  const { desired, cluster } = updater;
  const applied = new Map<VirtualServerKey, AppliedVirtualServer>();
  for (const { key, settings, realServers } of desired.virtualServers.values())
    applied.set(key, { settings, realServers, draining: EMPTY, odd: EMPTY });
  const observed = await observeKernel({ ...sources, definitions }, index, {
    believed: applied,
    desired,
    addresses: NO_ADDRESSES,
  });
  for (const [key, seen] of observed.servers) expectDrains(applied, key, seen);
  const touched = newTouched();
  const isWanted = (address: Parameters<typeof formatAddress>[0]): boolean =>
    desired.hasAddress(address) && !cluster.localAddresses.has(address);
  const comparison = { desired, applied, isWanted, excludeCIDRs };
  const drift = new Drift();
  const undisturbed = { keys: newTouched(), suspects: new Set<VirtualServerKey>() };
  const isOurs = ownershipAtStart(comparison, observed);
  await compareWithKernel(comparison, observed, undisturbed, touched, drift, isOurs);
  for (const name of sources.definitions.keys()) if (!present.has(name)) drift.add('set', 'missing', () => name);
  const changes: string[] = [];
  for (const key of touched.servers) {
    const wanted = desired.virtualServers.get(key);
    if (wanted === undefined) changes.push(`delete virtual server ${formatVirtualServer(key)}`);
    else planVirtualServer(key, wanted, observed.servers.get(key), printer(changes), 0);
  }
  for (const address of touched.addresses)
    changes.push(`${isWanted(address) ? 'add' : 'delete'} address ${formatAddress(address)}`);
  for (const [set, entries] of touched.entries) {
    const { type } = allSetDefinitions().get(set)!;
    for (const entry of entries)
      changes.push(`${desired.hasEntry(set, entry) ? 'add' : 'delete'} ${set} ${formatSetEntry(type, entry)}`);
  }
  return { drift, changes };
}

/** A backend at weight 0 that nobody wants is on its way out: the daemon's work, no difference. */
function expectDrains(
  applied: Map<VirtualServerKey, AppliedVirtualServer>,
  key: VirtualServerKey,
  { draining }: AppliedVirtualServer,
): void {
  const expected = applied.get(key);
  if (expected === undefined || draining === '' || !drains(key)) return;
  const family = virtualServerFamily(key);
  const wanted = new Set(realServerKeys(expected.realServers, family));
  const leaving = realServerKeys(draining, family).filter((real) => !wanted.has(real));
  applied.set(key, { ...expected, draining: realServerList(leaving) });
}

function printer(lines: string[]): IpvsOperations {
  const server = formatVirtualServer;
  return {
    addVirtualServer: (key, { scheduler }) => lines.push(`add virtual server ${server(key)} ${scheduler}`),
    setVirtualServer: (key, { scheduler }) => lines.push(`change virtual server ${server(key)} ${scheduler}`),
    deleteVirtualServer: (key) => lines.push(`delete virtual server ${server(key)}`),
    addRealServers: (key, reals, from) => {
      for (const real of inAddingOrder(key, reals, from))
        lines.push(`add real server ${server(key)} -> ${formatRealServer(real)}`);
    },
    setRealServer: (key, real, weight) =>
      lines.push(`change real server ${server(key)} -> ${formatRealServer(real)} weight ${weight}`),
    deleteRealServer: (key, real) => lines.push(`delete real server ${server(key)} -> ${formatRealServer(real)}`),
  };
}
