import {
  formatRealServer,
  formatVirtualServer,
  realServerKeyLength,
  virtualServerFamily,
} from '../values/virtual-server.js';
import { type HealthSource } from '../serve/health.js';
import { type ServiceQuery, type StatusReport, type StatusService, type StatusSource } from '../serve/status.js';
import { type Daemon } from './daemon.js';
import { type SyncState } from './sync-observer.js';

export interface StatusInputs {
  readonly daemon: Daemon;
  readonly state: SyncState;
  readonly health: HealthSource;
  readonly node: string;
  readonly version: string;
  readonly startedAt: Date;
}

/** What the status page shows, read from the daemon's own books at the moment somebody looks. */
export function statusSource(inputs: StatusInputs): StatusSource {
  return { status: () => statusReport(inputs), services: (query) => servicesPage(inputs.daemon, query) };
}

function statusReport({ daemon, state, health, node, version, startedAt }: StatusInputs): StatusReport {
  const { desired, claims } = daemon.updater;
  const notes = [...state.failedSysctls.values()];
  if (state.lastFailure !== undefined) notes.push(`being retried: ${state.lastFailure}`);
  if (state.rulesFailure !== undefined) notes.push(`iptables rules: ${state.rulesFailure}`);
  return {
    node,
    version,
    startedAt,
    health: health.healthz(),
    counts: {
      Services: daemon.cluster.services.size,
      EndpointSlices: daemon.cluster.sliceCount,
      'virtual servers': desired.virtualServers.size,
      'draining real servers': daemon.drains.size,
      'contested addresses': claims.conflicts,
      'waiting Services': daemon.cluster.dirtyCount,
    },
    lastSync: state.lastSync,
    lastVerification: state.lastVerification,
    drains: daemon.drains.list().map(({ server, real, msLeft }) => ({
      virtualServer: formatVirtualServer(server),
      realServer: formatRealServer(real),
      connections: daemon.drains.connections(server, real),
      deadline: new Date(Date.now() + msLeft),
    })),
    notes,
  };
}

function servicesPage(daemon: Daemon, query: ServiceQuery): { total: number; services: StatusService[] } {
  const { search, offset, limit } = query;
  const found: string[] = [];
  for (const key of daemon.updater.desired.services.keys())
    if (search === '' || key.toLowerCase().includes(search) || matchesServer(daemon, key, search)) found.push(key);
  found.sort();
  return {
    total: found.length,
    services: found.slice(offset, offset + limit).map((key) => statusService(daemon, key)),
  };
}

function matchesServer(daemon: Daemon, service: string, search: string): boolean {
  const servers = daemon.updater.desired.services.get(service)?.virtualServers ?? [];
  return servers.some(({ key }) => formatVirtualServer(key).toLowerCase().includes(search));
}

function statusService(daemon: Daemon, service: string): StatusService {
  const slash = service.indexOf('/');
  const servers = daemon.updater.desired.services.get(service)?.virtualServers ?? [];
  return {
    namespace: service.slice(0, slash),
    name: service.slice(slash + 1),
    virtualServers: servers.map(({ key, settings }) => {
      const length = realServerKeyLength(virtualServerFamily(key));
      const applied = daemon.ipvs.applied.get(key);
      return {
        virtualServer: formatVirtualServer(key),
        scheduler: settings.scheduler,
        realServers: (applied?.realServers.length ?? 0) / length,
        draining: (applied?.draining.length ?? 0) / length,
      };
    }),
  };
}
