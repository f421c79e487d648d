import {
  formatRealServer,
  formatVirtualServer,
  realServerKeyLength,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type HealthSource } from '../serve/health.js';
import { type ServiceQuery, type StatusReport, type StatusService, type StatusSource } from '../serve/status.js';
import { type DataPlane } from './data-plane.js';
import { type SyncState } from './sync-reporter.js';

export interface StatusInputs {
  readonly dataPlane: DataPlane;
  readonly state: SyncState;
  readonly health: HealthSource;
  readonly node: string;
  readonly version: string;
  readonly startedAt: Date;
}

/** What the status page shows, read from the daemon's own books at the moment somebody looks. */
export function statusSource(inputs: StatusInputs): StatusSource {
  return { status: () => statusReport(inputs), services: (query) => servicesPage(inputs.dataPlane, query) };
}

const MAX_REFUSAL_NOTES = 50;

function statusReport({ dataPlane, state, health, node, version, startedAt }: StatusInputs): StatusReport {
  const { desired, claims } = dataPlane.updater;
  const notes = [...state.failedSysctls.values()];
  if (state.lastFailure !== undefined) notes.push(`being retried: ${state.lastFailure}`);
  notes.push(...refusalNotes(dataPlane.updater.refusals));
  if (state.rulesFailure !== undefined) notes.push(`iptables rules: ${state.rulesFailure}`);
  return {
    node,
    version,
    startedAt,
    health: health.healthz(),
    counts: {
      Services: dataPlane.cluster.services.size,
      EndpointSlices: dataPlane.cluster.sliceCount,
      'virtual servers': desired.virtualServers.size,
      'draining real servers': dataPlane.drains.size,
      'contested addresses': claims.conflicts,
      'waiting Services': dataPlane.cluster.dirtyCount,
    },
    lastSync: state.lastSync,
    lastVerification: state.lastVerification,
    drains: dataPlane.drains.list().map(({ server, real, msLeft }) => ({
      virtualServer: formatVirtualServer(server),
      realServer: formatRealServer(real),
      connections: dataPlane.drains.connections(server, real),
      deadline: new Date(Date.now() + msLeft),
    })),
    notes,
  };
}

/** A line per Service, and no more lines than a page can show. */
function refusalNotes(refused: DataPlane['updater']['refusals']): string[] {
  const shown = [...refused].slice(0, MAX_REFUSAL_NOTES);
  const lines = shown.map(([service, [first, ...rest]]) => {
    return `Service ${service}: ${first!.text}${rest.length > 0 ? ` (and ${rest.length} more)` : ''}`;
  });
  if (refused.size > shown.length) lines.push(`parts of ${refused.size - shown.length} more Services are left out`);
  return lines;
}

function servicesPage(dataPlane: DataPlane, query: ServiceQuery): { total: number; services: StatusService[] } {
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

function matchesServer(dataPlane: DataPlane, service: string, search: string): boolean {
  const servers = dataPlane.updater.desired.services.get(service)?.virtualServers ?? [];
  return servers.some(({ key }) => formatVirtualServer(key).toLowerCase().includes(search));
}

function statusService(dataPlane: DataPlane, service: string): StatusService {
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
