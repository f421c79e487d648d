import { type Address } from '../values/address.js';
import { type IpsetDefinition, type IpsetEntry } from '../values/ipset.js';
import { type VipForm } from '../values/vip-form.js';
import {
  type RealServerList,
  type VirtualServerKey,
  isFwmarkKey,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type SetBackend } from '../kernel/set-backend.js';
import { type IpvsTableSource } from '../kernel/ipvs/observed-table.js';
import { type LinkClient } from '../kernel/rtnetlink/client.js';
import { type AppliedVirtualServer } from '../plan/applied.js';
import { type OwnershipTraces } from '../plan/ownership.js';
import { type DesiredServer } from '../plan/virtual-server-plan.js';
import { type IpsetName, ipsetDefinitions, ipsetName } from '../desired/ipset-definitions.js';
import { observeTableEntry } from './observe-ipvs.js';
import { type BoundAddresses, type DesiredAddresses, readAddresses } from './observe-addresses.js';
import { StopFlag } from '../time/pacer.js';
import { type SetEntries, joinSets, readSets } from './ipset-keeper.js';

const EMPTY = '' as RealServerList;

/** All that this program keeps in the kernel, as it is now, other people's included where they share a table. */
export interface ObservedKernel extends ObservedTable {
  readonly bound: BoundAddresses;
  /** VIPs in the form that is not in use (values/vip-form.ts), as an earlier run or kube-proxy left them. */
  readonly stale: ReadonlySet<Address>;
  /** Addresses on every other link. */
  readonly local: ReadonlySet<Address>;
  /** The entries of a set that holds what is desired are `desired.entries` itself. */
  readonly sets: Map<IpsetName, SetEntries>;
  /** At the start, those that the other backend of rules has still. */
  readonly earlierSets?: ReadonlyMap<IpsetName, SetEntries> | undefined;
}

export interface ObservedTable {
  /** Virtual servers keyed by an address. One that is just as applied is the very object in `applied`. */
  readonly servers: Map<VirtualServerKey, AppliedVirtualServer>;
  /** True: those that are desired and just as applied are left out of `servers`, and every applied one is there. */
  readonly onlyDifferent: boolean;
}

export interface ObservedSources {
  readonly table: IpvsTableSource;
  readonly links: LinkClient;
  readonly sets: SetBackend;
  readonly definitions: ReadonlyMap<string, IpsetDefinition>;
  /** In which form VIPs are. */
  readonly vips: VipForm;
}

/** What is likely to be observed: then the reading leaves nothing behind for the garbage collector. */
export interface Expectation {
  readonly applied: ReadonlyMap<VirtualServerKey, AppliedVirtualServer>;
  readonly desired: {
    readonly virtualServers: { get(key: VirtualServerKey): DesiredServer | undefined };
    entries(set: IpsetName): SetEntries;
  };
  readonly addresses: DesiredAddresses;
}

/** Lets changes in while the kernel is read. */
export interface Interruption {
  /** Called where the reading can be interrupted; may change what is being read. */
  readonly turn: () => Promise<void>;
  /** Whether a virtual server was created or deleted since the reading began. */
  readonly isDisturbed: () => boolean;
}

/** Throws the error of the first part that cannot be read. */
export async function observeKernel(
  sources: ObservedSources,
  dummyIndex: number,
  expectation: Expectation,
  interruption?: Interruption,
  stop = new StopFlag(),
  anew?: boolean,
): Promise<ObservedKernel> {
  const addresses = await readAddresses(sources, dummyIndex, expectation.addresses, stop, anew);
  return {
    ...(await readTable(sources.table, expectation, interruption)),
    ...addresses,
    sets: await readSets(
      sources.sets,
      sources.definitions,
      (set) => expectation.desired.entries(set),
      interruption?.turn,
      stop,
    ),
  };
}

/**
 * Reads the IPVS table. When a virtual server that is applied is missing, or was created or deleted meanwhile, it is
 * read once more without interruption, so that all is there for a comparison. Throws NetlinkError or IpvsSockoptError.
 */
export async function readTable(
  table: IpvsTableSource,
  {
    applied,
    desired,
  }: Pick<Expectation, 'applied'> & { readonly desired: Pick<Expectation['desired'], 'virtualServers'> },
  interruption?: Interruption,
): Promise<ObservedTable> {
  const servers = new Map<VirtualServerKey, AppliedVirtualServer>();
  const options = { mayHaveIPv6: hasIPv6(applied) };
  let known = 0;
  await table.read(
    (observed) => {
      if (isFwmarkKey(observed.key)) return;
      const before = applied.get(observed.key);
      const desiredServer = desired.virtualServers.get(observed.key);
      const now = observeTableEntry(observed, before ?? asApplied(desiredServer));
      if (before !== undefined) known++;
      if (now !== before || desiredServer === undefined) servers.set(observed.key, now);
    },
    { ...options, turn: interruption?.turn },
  );
  if (known === applied.size && interruption?.isDisturbed() !== true) return { servers, onlyDifferent: true };
  servers.clear();
  await table.read((observed) => {
    if (!isFwmarkKey(observed.key)) servers.set(observed.key, observeTableEntry(observed, applied.get(observed.key)));
  }, options);
  return { servers, onlyDifferent: false };
}

/** What is not applied yet, as far as known, is most likely what is desired: after a restart. */
function asApplied(desired: DesiredServer | undefined): AppliedVirtualServer | undefined {
  return desired && { settings: desired.settings, realServers: desired.realServers, draining: EMPTY, modified: EMPTY };
}

function hasIPv6(applied: Expectation['applied']): boolean {
  for (const key of applied.keys()) if (virtualServerFamily(key) === 6) return true;
  return false;
}

/** By what virtual servers of ours, or kube-proxy's, are distinguished from other people's (ownership.ts). */
export function ownershipTraces(
  observed: Pick<ObservedKernel, 'bound' | 'stale' | 'local' | 'sets' | 'earlierSets'>,
): OwnershipTraces {
  const { earlierSets } = observed;
  const sets = earlierSets === undefined ? observed.sets : joinSets(observed.sets, earlierSets);
  const addressPorts = new Set<IpsetEntry>();
  const nodePorts = { TCP: new Set<IpsetEntry>(), UDP: new Set<IpsetEntry>() };
  for (const family of [4, 6] as const) {
    for (const { name, type } of ipsetDefinitions(family)) {
      if (type === 'hash:ip,port')
        for (const entry of sets.get(name as IpsetName)?.keys() ?? []) addressPorts.add(entry);
    }
    for (const protocol of ['TCP', 'UDP'] as const) {
      const set = sets.get(ipsetName(family, `NODE-PORT-${protocol}`));
      for (const entry of set?.keys() ?? []) nodePorts[protocol].add(entry);
    }
  }
  const boundAddresses = { has: (address: Address) => observed.bound.has(address) || observed.stale.has(address) };
  return { boundAddresses, addressPorts, nodePorts, localAddresses: observed.local };
}
