import { release } from 'node:os';
import {
  type RealServerKey,
  formatRealServer,
  formatVirtualServer,
  realServerKeyLength,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type HealthSource, allReasons, formatReason } from '../serve/health.js';
import {
  type ServiceQuery,
  type StatusHealth,
  type StatusReport,
  type StatusService,
  type StatusSource,
} from '../serve/status.js';
import { type DataPlane } from './data-plane.js';
import { type RepairLog } from './repair-log.js';
import { type NoteInputs, statusNotes } from './status-notes.js';
import { tableSizes } from './sync-report.js';
import { type SyncState } from './sync-state.js';

export interface StatusInputs extends Pick<NoteInputs, 'watches' | 'skipped'> {
  readonly dataPlane: StatusDataPlane;
  readonly state: Readonly<SyncState>;
  readonly health: HealthSource;
  readonly node: string;
  readonly version: string;
  readonly startedAt: Date;
  readonly repairs: Pick<RepairLog, 'lastHour'>;
  readonly versions: StatusReport['versions'];
  /** What an operator should know besides. */
  readonly notes: () => readonly string[];
}

/** What the page reads of the data plane. */
export type StatusDataPlane = Pick<DataPlane, 'cluster' | 'updater' | 'ipvs' | 'drains' | 'clients'>;

/** What the status page shows, read from the daemon's own books at the moment somebody looks. */
export function statusSource(inputs: StatusInputs): StatusSource {
  return { status: () => statusReport(inputs), services: (query) => servicesPage(inputs.dataPlane, query) };
}

function statusReport(inputs: StatusInputs): StatusReport {
  const { dataPlane, state, health, node, version, startedAt } = inputs;
  const { desired, claims } = dataPlane.updater;
  const { runningSince } = state;
  return {
    node,
    version,
    startedAt,
    health: statusHealth(health),
    counts: {
      Services: dataPlane.cluster.services.size,
      EndpointSlices: dataPlane.cluster.sliceCount,
      'virtual servers': desired.virtualServers.size,
      'contested addresses': claims.conflicts,
      'waiting Services': dataPlane.cluster.dirtyCount,
    },
    kernel: {
      counts: kernelCounts(dataPlane),
      syncingFor: runningSince === undefined ? undefined : (performance.now() - runningSince) / 1000,
    },
    lastSync: state.lastSync,
    lastVerification: state.lastVerification,
    drains: dataPlane.drains.list().map(({ server, real, msLeft }) => ({
      virtualServer: formatVirtualServer(server),
      realServer: formatRealServer(real),
      connections: dataPlane.drains.connections(server, real),
      deadline: msLeft === Infinity ? undefined : new Date(Date.now() + msLeft),
    })),
    repairs: inputs.repairs.lastHour(Date.now()),
    versions: inputs.versions,
    notes: [
      ...inputs.notes(),
      ...statusNotes({
        state,
        claims,
        refusals: dataPlane.updater.refusals,
        watches: inputs.watches,
        skipped: inputs.skipped,
      }),
    ],
  };
}

function statusHealth(source: HealthSource): StatusHealth {
  const report = source.healthz();
  const { healthy, nodeEligible, lastUpdated } = report;
  return { healthy, nodeEligible, lastUpdated, reasons: allReasons(report).map(formatReason) };
}

function kernelCounts(dataPlane: StatusDataPlane): Record<string, number> {
  const total = [0, 0, 0];
  for (const sizes of tableSizes(dataPlane).values()) sizes.forEach((size, i) => (total[i]! += size));
  return {
    'virtual servers': total[0]!,
    'real servers': total[1]!,
    'draining real servers': dataPlane.drains.size,
  };
}

function servicesPage(dataPlane: StatusDataPlane, query: ServiceQuery): { total: number; services: StatusService[] } {
  const { search, offset, limit } = query;
  const found: string[] = [];
  for (const key of dataPlane.updater.desired.services.keys())
    if (search === '' || key.toLowerCase().includes(search) || matchesServer(dataPlane, key, search)) found.push(key);
  found.sort();
  return {
    total: found.length,
    services: found.slice(offset, offset + limit).map((key) => statusService(dataPlane, key)),
  };
}

function matchesServer(dataPlane: StatusDataPlane, service: string, search: string): boolean {
  const servers = dataPlane.updater.desired.services.get(service)?.virtualServers ?? [];
  return servers.some(({ key }) => formatVirtualServer(key).toLowerCase().includes(search));
}

function statusService(dataPlane: StatusDataPlane, service: string): StatusService {
  const slash = service.indexOf('/');
  const servers = dataPlane.updater.desired.services.get(service)?.virtualServers ?? [];
  return {
    namespace: service.slice(0, slash),
    name: service.slice(slash + 1),
    virtualServers: servers.map(({ key, settings }) => {
      const length = realServerKeyLength(virtualServerFamily(key));
      const applied = dataPlane.ipvs.applied.get(key);
      return {
        virtualServer: formatVirtualServer(key),
        scheduler: settings.scheduler,
        realServers: (applied?.realServers.length ?? 0) / length,
        draining: (applied?.draining.length ?? 0) / length,
      };
    }),
  };
}

/** Of what this daemon stands on, for the status page. */
export function versionsOf({ options }: Pick<DataPlane, 'options'>): StatusReport['versions'] {
  const { backend, version } = options.iptables;
  return {
    kernel: release(),
    iptables: `${version} (${backend})`,
    families: options.families.map((family) => `IPv${family}`).join(', '),
  };
}

/** Connections that a backend of the Service still has while it drains, over all of its virtual servers. */
export function drainingConnections(
  { updater, drains }: Pick<DataPlane, 'updater' | 'drains'>,
  service: string,
  real: RealServerKey,
): number {
  let connections = 0;
  for (const { key } of updater.desired.services.get(service)?.virtualServers ?? [])
    connections += drains.connections(key, real);
  return connections;
}
