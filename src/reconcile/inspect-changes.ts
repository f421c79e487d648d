/** From keys that differ to what a sync would do about each. */
import { type Address, formatAddress } from '../values/address.js';
import { type IpsetDefinition, type IpsetEntry, formatIpsetEntry } from '../values/ipset.js';
import { VIP_LINKS, type VipForm } from '../values/vip-form.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type DesiredState, type Touched } from '../desired/desired-state.js';
import { type IpsetName, allIpsetDefinitions } from '../desired/ipset-definitions.js';
import { type AppliedVirtualServer } from '../plan/applied.js';
import { type IpvsOperations, inAddingOrder, planVirtualServer } from '../plan/virtual-server-plan.js';
import { DUMMY_LINK } from './address-applier.js';
import { type Change, realServerRef, settingsData, virtualServerRef } from './change.js';

export interface Differences {
  readonly desired: DesiredState;
  readonly isDesired: (address: Address) => boolean;
  /** What was observed in the kernel. */
  readonly servers: ReadonlyMap<VirtualServerKey, AppliedVirtualServer>;
  readonly touched: Touched;
  readonly vips: VipForm;
  /** VIPs in the other form. */
  readonly stale: ReadonlySet<Address>;
  readonly hasLink: boolean;
  /** Sets that are not there, and those of another type, which are made anew. */
  readonly missingSets: readonly IpsetDefinition[];
  readonly misfitSets: readonly IpsetDefinition[];
}

/** In the order of a sync: link, sets, entries to add, virtual servers, addresses, entries to delete. */
export function changesOf(differences: Differences): Change[] {
  const { desired, isDesired, touched } = differences;
  const owners = new Owners(desired, touched);
  const changes: Change[] = [];
  if (!differences.hasLink) changes.push({ action: 'add', object: 'link', link: DUMMY_LINK });
  const addSet = (action: 'add' | 'change', { name, type, family }: IpsetDefinition): void =>
    void changes.push({ action, object: 'set', set: name, type, family });
  for (const definition of differences.missingSets) addSet('add', definition);
  for (const definition of differences.misfitSets) addSet('change', definition);
  pushEntries('add', desired, touched, owners, changes);
  for (const key of touched.servers) pushServer(key, differences, changes);
  for (const address of touched.addresses)
    changes.push({
      action: isDesired(address) ? 'add' : 'delete',
      object: 'address',
      service: owners.ofAddress(address),
      address: formatAddress(address),
      link: VIP_LINKS[differences.vips],
    });
  const other = differences.vips === 'routes' ? 'addresses' : 'routes';
  for (const address of differences.stale)
    changes.push({ action: 'delete', object: 'address', address: formatAddress(address), link: VIP_LINKS[other] });
  pushEntries('delete', desired, touched, owners, changes);
  return changes;
}

function pushEntries(
  action: 'add' | 'delete',
  desired: DesiredState,
  touched: Touched,
  owners: Owners,
  changes: Change[],
): void {
  const definitions = allIpsetDefinitions();
  for (const [set, entries] of touched.entries) {
    const { type } = definitions.get(set)!;
    for (const entry of entries) {
      if (desired.hasEntry(set, entry) !== (action === 'add')) continue;
      const service = owners.ofEntry(set, entry);
      changes.push({ action, object: 'set_entry', service, set, entry: formatIpsetEntry(type, entry) });
    }
  }
}

function pushServer(key: VirtualServerKey, { desired, servers }: Differences, changes: Change[]): void {
  const desiredServer = desired.virtualServers.get(key);
  const observed = servers.get(key);
  const before = observed && settingsData(observed.settings);
  const virtualServer = virtualServerRef(key);
  const common = { service: desiredServer?.service, virtualServer };
  if (desiredServer === undefined) {
    changes.push({ action: 'delete', object: 'virtual_server', ...common, before });
    return;
  }
  const push = (change: Change): void => void changes.push(change);
  const real = { object: 'real_server', ...common } as const;
  const server = { object: 'virtual_server', ...common } as const;
  const operations: IpvsOperations = {
    addVirtualServer: (_key, settings) => push({ action: 'add', ...server, after: settingsData(settings) }),
    setVirtualServer: (_key, settings) => push({ action: 'change', ...server, before, after: settingsData(settings) }),
    addRealServers: (_key, reals, from) => {
      for (const one of inAddingOrder(key, reals, from))
        push({ action: 'add', ...real, realServer: realServerRef(one), weight: 1 });
    },
    setRealServer: (_key, one, weight) => push({ action: 'change', ...real, realServer: realServerRef(one), weight }),
    deleteRealServer: (_key, one) => push({ action: 'delete', ...real, realServer: realServerRef(one) }),
  };
  planVirtualServer(key, desiredServer, observed, operations, 0);
}

/** Which Service asks for an address or an entry: the first, where several do. */
class Owners {
  readonly #addresses = new Map<Address, string>();
  readonly #entries = new Map<IpsetName, Map<IpsetEntry, string>>();

  constructor(desired: DesiredState, touched: Touched) {
    for (const [service, { addresses, setEntries }] of desired.services) {
      for (const address of addresses)
        if (touched.addresses.has(address) && !this.#addresses.has(address)) this.#addresses.set(address, service);
      for (let i = 0; i < setEntries.length; i += 2)
        this.#noteEntry(setEntries[i] as IpsetName, setEntries[i + 1] as IpsetEntry, service, touched);
    }
  }

  ofAddress(address: Address): string | undefined {
    return this.#addresses.get(address);
  }

  ofEntry(set: IpsetName, entry: IpsetEntry): string | undefined {
    return this.#entries.get(set)?.get(entry);
  }

  #noteEntry(set: IpsetName, entry: IpsetEntry, service: string, touched: Touched): void {
    if (touched.entries.get(set)?.has(entry) !== true) return;
    const entries = this.#entries.get(set) ?? new Map<IpsetEntry, string>();
    this.#entries.set(set, entries);
    if (!entries.has(entry)) entries.set(entry, service);
  }
}
