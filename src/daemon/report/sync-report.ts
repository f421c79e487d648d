import { FAMILIES, type Family, familyOf } from '../../values/address.js';
import { realServerKeyLength, virtualServerFamily } from '../../values/virtual-server.js';
import { type ClusterState } from '../../model/cluster-state.js';
import { type DesiredUpdater } from '../../reconcile/desired-updater.js';
import { type DrainTracker } from '../../reconcile/drain.js';
import { type IpvsApplier } from '../../reconcile/ipvs-applier.js';
import { type KernelClients } from '../../kernel/clients.js';
import { type KernelRefusals } from '../../reconcile/kernel-refusals.js';
import { type SyncRecord } from '../../reconcile/sync-record.js';
import { Turns } from '../../time/turns.js';

/** What reports read of the data plane, which itself knows who reports. */
export interface ReportedDataPlane {
  readonly cluster: ClusterState;
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly drains: DrainTracker;
  readonly clients: KernelClients;
  readonly reconciler: { readonly refusals: KernelRefusals };
}

/** One line per sync that changed something; silence for the others. */
export function isWorthALine(record: SyncRecord): boolean {
  const { ipvs, addresses, setEntries, failures, adopted } = record;
  const changes = (Object.values(ipvs) as number[]).some((count) => count > 0);
  return adopted || changes || addresses > 0 || setEntries > 0 || failures.length > 0;
}

/** The numbers of that line; zeros are left out. */
export function syncFields(record: SyncRecord): Record<string, number> {
  const all: Record<string, number> = {
    services: record.servicesChanged,
    ...record.ipvs,
    addresses: record.addresses,
    setEntries: record.setEntries,
    conntrackDeleted: record.conntrackDeleted,
    failures: record.failures.length,
    refused: record.newlySkipped.length,
  };
  const fields = Object.fromEntries(Object.entries(all).filter(([, count]) => count > 0));
  return { ...fields, ms: Math.round(record.ms * 10) / 10 };
}

const CHANGES: readonly (readonly [field: string, one: string, many: string])[] = [
  ['services', 'Service', 'Services'],
  ['virtualServersAdded', 'virtual server added', 'virtual servers added'],
  ['virtualServersChanged', 'virtual server changed', 'virtual servers changed'],
  ['virtualServersDeleted', 'virtual server deleted', 'virtual servers deleted'],
  ['realServersAdded', 'real server added', 'real servers added'],
  ['realServersChanged', 'real server changed', 'real servers changed'],
  ['realServersDeleted', 'real server deleted', 'real servers deleted'],
  ['addresses', 'address bound or released', 'addresses bound or released'],
  ['setEntries', 'set entry changed', 'set entries changed'],
  ['conntrackDeleted', 'stale conntrack entry removed', 'stale conntrack entries removed'],
  ['failures', 'change failed and is retried', 'changes failed and are retried'],
];

/** The same as a sentence for the status page: `1 Service, 2 real servers added`. */
export function syncSentence(record: SyncRecord): string {
  const fields = syncFields(record);
  const parts = CHANGES.filter(([field]) => (fields[field] ?? 0) > 0).map(([field, one, many]) => {
    const count = fields[field]!;
    return `${count} ${count === 1 ? one : many}`;
  });
  const text = parts.length === 0 ? 'nothing changed' : parts.join(', ');
  return record.adopted ? `took over the kernel state: ${text}` : text;
}

/** Virtual servers, real servers and bound addresses, per family; counted in turns with other work. */
export async function tableSizes(
  dataPlane: Pick<ReportedDataPlane, 'cluster' | 'updater' | 'ipvs'>,
  turns = new Turns(),
): Promise<Map<Family, [servers: number, reals: number, addresses: number]>> {
  const sizes = new Map<Family, [number, number, number]>([
    [4, [0, 0, 0]],
    [6, [0, 0, 0]],
  ]);
  for (const [key, { realServers }] of dataPlane.ipvs.applied) {
    const family = virtualServerFamily(key);
    const size = sizes.get(family)!;
    size[0]++;
    size[1] += realServers.length / realServerKeyLength(family);
    if (turns.spend()) await turns.next();
  }
  const { localAddresses } = dataPlane.cluster;
  for (const address of dataPlane.updater.desired.addresses()) {
    if (!localAddresses.has(address)) sizes.get(address.length === 4 ? 4 : 6)![2]++;
    if (turns.spend()) await turns.next();
  }
  return sizes;
}

/**
 * For each family how many Services have a cluster IP of it, though this node does not serve it; undefined where it
 * does. Walks through all Services when a family is left out, so for somebody who asks.
 */
export function unservedServices(
  families: readonly Family[],
  { services }: Pick<ClusterState, 'services'>,
): Map<Family, number | undefined> {
  const unserved = new Map<Family, number | undefined>();
  for (const family of FAMILIES) {
    if (families.includes(family)) unserved.set(family, undefined);
    else {
      let count = 0;
      for (const { clusterIPs } of services.values())
        if (clusterIPs.some((address) => familyOf(address) === family)) count++;
      unserved.set(family, count);
    }
  }
  return unserved;
}
