import { type Family } from '../values/address.js';
import { realServerKeyLength, virtualServerFamily } from '../values/virtual-server.js';
import { type ClusterState } from '../model/cluster-state.js';
import { type DesiredUpdater } from '../reconcile/desired-updater.js';
import { type DrainTracker } from '../reconcile/drain.js';
import { type IpvsApplier } from '../reconcile/ipvs-applier.js';
import { type KernelClients } from '../kernel/clients.js';
import { type SyncReport } from '../reconcile/reconciler.js';

/** What reports read of the dataPlane, which itself knows who reports. */
export interface ReportedDataPlane {
  readonly cluster: ClusterState;
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly drains: DrainTracker;
  readonly clients: KernelClients;
}

/** One line per sync that changed something; silence for the others. */
export function isWorthALine(report: SyncReport): boolean {
  const { ipvs, addresses, setEntries, failures, adopted } = report;
  const changes = Object.values(ipvs as unknown as Record<string, number>).some((count) => count > 0);
  return adopted || changes || addresses > 0 || setEntries > 0 || failures.length > 0;
}

/** The numbers of that line; zeros are left out. */
export function syncFields(report: SyncReport): Record<string, number> {
  const all: Record<string, number> = {
    services: report.servicesChanged,
    ...report.ipvs,
    addresses: report.addresses,
    setEntries: report.setEntries,
    conntrackDeleted: report.conntrackDeleted,
    failures: report.failures.length,
  };
  const fields = Object.fromEntries(Object.entries(all).filter(([, count]) => count > 0));
  return { ...fields, ms: Math.round(report.ms * 10) / 10 };
}

/** Virtual servers, real servers and bound addresses, per family. */
export function tableSizes(
  dataPlane: ReportedDataPlane,
): Map<Family, [servers: number, reals: number, addresses: number]> {
  const sizes = new Map<Family, [number, number, number]>([
    [4, [0, 0, 0]],
    [6, [0, 0, 0]],
  ]);
  for (const [key, { realServers }] of dataPlane.ipvs.applied) {
    const family = virtualServerFamily(key);
    const size = sizes.get(family)!;
    size[0]++;
    size[1] += realServers.length / realServerKeyLength(family);
  }
  const { localAddresses } = dataPlane.cluster;
  for (const address of dataPlane.updater.desired.addresses())
    if (!localAddresses.has(address)) sizes.get(address.length === 4 ? 4 : 6)![2]++;
  return sizes;
}
