import { release } from 'node:os';
import {
  type RealServerKey,
  formatRealServer,
  formatVirtualServer,
  realServerKeyLength,
  virtualServerFamily,
} from '../../values/virtual-server.js';
import { type HealthSource, allReasons, formatReason } from '../../serve/health.js';
import {
  type ServiceQuery,
  type StatusHealth,
  type StatusReport,
  type StatusService,
  type StatusSource,
} from '../../serve/status.js';
import { type DataPlane } from '../data-plane.js';
import { type EventRecorder } from '../report/event-recorder.js';
import { describeRepair } from './last-repair.js';
import { listServices } from './service-list.js';
import { Turns } from '../../time/turns.js';
import { type StatusNotesOptions, statusNotes } from './status-notes.js';
import { tableSizes } from '../report/sync-report.js';
import { type SyncState } from '../report/sync-state.js';

export interface StatusSourceOptions extends Pick<StatusNotesOptions, 'watches' | 'skipped'> {
  readonly dataPlane: StatusDataPlane;
  readonly state: Readonly<SyncState>;
  readonly health: HealthSource;
  readonly node: string;
  readonly version: string;
  readonly startedAt: Date;
  readonly events: Pick<EventRecorder, 'repairs' | 'latest'>;
  readonly versions: StatusReport['versions'];
  /** What an operator should know besides. */
  readonly notes: () => readonly string[];
}

/** Named on the page and in JSON; `kernel.counts` has their number. */
const MOST_DRAINS = 1000;
/** Steps that one Service of the answer costs. */
const STEPS_PER_SERVICE = 20;

/** What the page reads of the data plane. */
export type StatusDataPlane = Pick<DataPlane, 'cluster' | 'updater' | 'ipvs' | 'drains' | 'clients' | 'estimation'>;

/** What the status page shows, read from the daemon's own books at the moment somebody looks. */
export function statusSource(options: StatusSourceOptions): StatusSource {
  return {
    status: () => statusReport(options),
    services: (query) => servicesPage(options.dataPlane, query),
    changes: (service, most) => options.events.latest(service, most),
  };
}

async function statusReport(options: StatusSourceOptions): Promise<StatusReport> {
  const { dataPlane, state, health, node, version, startedAt } = options;
  const kernel = await kernelCounts(dataPlane);
  const { repairs } = options.events;
  const now = Date.now();
  const { desired, claims } = dataPlane.updater;
  const { runningSince } = state;
  return {
    node,
    version,
    startedAt,
    health: statusHealth(health),
    counts: {
      services: dataPlane.cluster.services.size,
      endpointSlices: dataPlane.cluster.sliceCount,
      virtualServers: desired.virtualServers.size,
      contestedAddresses: claims.conflicts,
      waitingServices: dataPlane.cluster.dirtyCount,
    },
    kernel: {
      counts: kernel,
      syncingFor: runningSince === undefined ? undefined : (performance.now() - runningSince) / 1000,
    },
    lastSync: state.lastSync,
    lastVerification: state.lastVerification,
    drains: dataPlane.drains.list(MOST_DRAINS).map(({ server, real, msLeft }) => ({
      virtualServer: formatVirtualServer(server),
      realServer: formatRealServer(real),
      connections: dataPlane.drains.connections(server, real),
      deadline: msLeft === Infinity ? undefined : new Date(now + msLeft),
    })),
    repairs: repairs.lastHour(now),
    lastRepair: describeRepair(repairs.last, dataPlane),
    history: { syncs: state.history.list(), repairs: repairs.perMinute(now) },
    versions: options.versions,
    notes: [
      ...options.notes(),
      ...(dataPlane.estimation.note === undefined ? [] : [dataPlane.estimation.note]),
      ...statusNotes({
        state,
        claims,
        refusals: dataPlane.updater.refusals,
        watches: options.watches,
        skipped: options.skipped,
      }),
    ],
  };
}

function statusHealth(source: HealthSource): StatusHealth {
  const report = source.healthz();
  const { healthy, nodeEligible, lastUpdated } = report;
  return { healthy, nodeEligible, lastUpdated, reasons: allReasons(report).map(formatReason) };
}

async function kernelCounts(dataPlane: StatusDataPlane): Promise<Record<string, number>> {
  const total = [0, 0, 0];
  for (const sizes of (await tableSizes(dataPlane)).values()) sizes.forEach((size, i) => (total[i]! += size));
  return {
    virtualServers: total[0]!,
    realServers: total[1]!,
    drainingRealServers: dataPlane.drains.size,
  };
}

async function servicesPage(
  dataPlane: StatusDataPlane,
  { search, offset, limit }: ServiceQuery,
): Promise<{ total: number; services: StatusService[] }> {
  const turns = new Turns();
  const everything = { namespace: '', match: '', filter: 'all', order: 'name', descending: false } as const;
  const found = (await listServices(dataPlane, { ...everything, search }, turns)).services;
  const services: StatusService[] = [];
  for (const { key } of found.slice(offset, offset + limit)) {
    services.push(statusService(dataPlane, key));
    if (turns.spend(STEPS_PER_SERVICE)) await turns.next();
  }
  return { total: found.length, services };
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
  const { iptables } = options;
  return {
    kernel: release(),
    iptables: iptables === undefined ? 'not used (rules in nf_tables)' : `${iptables.version} (${iptables.backend})`,
    families: options.families.map((family) => `IPv${family}`).join(', '),
    vips: options.config.vips,
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
