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
import { type Interruption, UNINTERRUPTED, calmOf } from './interruption.js';
import { observeTableEntry } from './observe-ipvs.js';
import { type BoundAddresses, type DesiredAddresses, readAddresses } from './observe-addresses.js';
import { Pacer, READING_SLICE_MS, StopFlag } from '../time/pacer.js';
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
  /** What is applied and not there. What else is not in `servers` is desired and just as applied. */
  readonly missing: ReadonlySet<VirtualServerKey>;
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

const NONE: ReadonlySet<VirtualServerKey> = new Set();

/** Throws the error of the first part that cannot be read. */
export async function observeKernel(
  sources: ObservedSources,
  dummyIndex: number,
  expectation: Expectation,
  interruption = UNINTERRUPTED,
  stop = new StopFlag(),
  anew?: boolean,
): Promise<ObservedKernel> {
  const addresses = await readAddresses(sources, dummyIndex, expectation.addresses, stop, interruption, anew);
  return {
    ...(await readTable(sources.table, expectation, interruption)),
    ...addresses,
    sets: await readSets(
      sources.sets,
      sources.definitions,
      (set) => expectation.desired.entries(set),
      interruption,
      stop,
    ),
  };
}

/** Reads the IPVS table once. Throws NetlinkError or IpvsSockoptError. */
export async function readTable(
  table: IpvsTableSource,
  {
    applied,
    desired,
  }: Pick<Expectation, 'applied'> & { readonly desired: Pick<Expectation['desired'], 'virtualServers'> },
  interruption: Interruption = UNINTERRUPTED,
): Promise<ObservedTable> {
  const servers = new Map<VirtualServerKey, AppliedVirtualServer>();
  const isCalm = calmOf(interruption, ({ membership }) => membership);
  let known = 0;
  const read = await table.read(
    (observed) => {
      if (isFwmarkKey(observed.key)) return;
      const before = applied.get(observed.key);
      const desiredServer = desired.virtualServers.get(observed.key);
      const now = observeTableEntry(observed, before ?? asApplied(desiredServer));
      if (before !== undefined) known++;
      if (now !== before || desiredServer === undefined) servers.set(observed.key, now);
    },
    { mayHaveIPv6: hasIPv6(applied), turn: interruption.turn },
  );
  if (isCalm()) return { servers, missing: known === applied.size ? NONE : missingOf(applied, read()) };
  // What came while the table was read is not in its list, but there.
  return { servers, missing: await absentOf(missingOf(applied, read()), table, interruption) };
}

function missingOf(
  applied: Expectation['applied'],
  read: ReadonlySet<VirtualServerKey>,
): ReadonlySet<VirtualServerKey> {
  return new Set([...applied.keys()].filter((key) => !read.has(key)));
}

async function absentOf(
  servers: ReadonlySet<VirtualServerKey>,
  table: IpvsTableSource,
  { turn }: Interruption,
): Promise<ReadonlySet<VirtualServerKey>> {
  const pacer = new Pacer(READING_SLICE_MS, undefined, 1);
  const absent = new Set<VirtualServerKey>();
  for (const key of servers) {
    if (!table.has(key)) absent.add(key);
    await pacer.yieldIfDue(turn);
  }
  return absent;
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
