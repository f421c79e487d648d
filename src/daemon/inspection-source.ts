import { familyOf, formatAddress } from '../values/address.js';
import {
  formatVirtualServer,
  realServerAddress,
  type RealServerKey,
  realServerKeyLength,
  realServerKeys,
  realServerPort,
  virtualServerFamily,
  virtualServerIdentity,
} from '../values/virtual-server.js';
import { type DesiredContext } from '../desired/context.js';
import { endpointKeys, reportEndpoints } from '../desired/endpoint-report.js';
import { type EndpointChoice } from '../desired/endpoints.js';
import { type Exposure, type PortExposures, serviceExposures } from '../desired/exposures.js';
import { isLocalPolicy, portEndpoints, virtualServerSettings } from '../desired/service.js';
import { LOCAL, READY, SERVING, TERMINATING } from '../model/endpoint-slice.js';
import { type Service } from '../model/service.js';
import {
  type BackendGroup,
  type BackendsPage,
  type BackendsQuery,
  type EndpointReport,
  type InspectionSource,
  type ServiceReport,
  type ServicesPage,
  type ServicesQuery,
  type VirtualServerReport,
} from '../serve/inspection.js';
import { type DataPlane } from './data-plane.js';
import { type KernelLook } from './kernel-look.js';
import { listServices } from './service-list.js';
import { Turns } from './turns.js';

/** Virtual servers after which a page of Services ends: each is a look into several tables. */
const MOST_SERVERS = 1000;
/** A report of one costs as much as so many look-ups. */
const STEPS_PER_SERVER = 20;

/** What is read of the data plane. */
export type InspectedDataPlane = Pick<DataPlane, 'cluster' | 'updater' | 'ipvs'>;

/**
 * Services and endpoints as this daemon wants them, worked out from its books when somebody asks: nothing is kept for
 * it. `refusals` is what the kernel is known to refuse, `kernel` reads the kernel itself.
 */
export function inspectionSource(
  dataPlane: InspectedDataPlane,
  refusals: () => readonly string[],
  kernel: KernelLook,
): InspectionSource {
  return {
    services: (query) => servicesPage(dataPlane, query),
    backends: (query) => backendsPage(dataPlane, refusals(), query),
    kernel: (service) => kernel.service(dataPlane.updater.desired.services.get(service)?.virtualServers ?? []),
  };
}

async function servicesPage(dataPlane: InspectedDataPlane, query: ServicesQuery): Promise<ServicesPage> {
  const { offset, limit } = query;
  const turns = new Turns();
  const { counts, services: found } = await listServices(dataPlane, query, turns);
  const { context } = dataPlane.updater;
  const services: ServiceReport[] = [];
  let servers = 0;
  for (const service of found.slice(offset, offset + limit)) {
    // A page ends early behind Services of many addresses and ports: who asks goes on where it ended.
    if (servers > MOST_SERVERS) break;
    const report = serviceReport(dataPlane, service, context, query.mostServers);
    servers += report.virtualServers.length;
    services.push(report);
    if (turns.spend(STEPS_PER_SERVER * (1 + report.virtualServers.length))) await turns.next();
  }
  return { total: found.length, counts, services };
}

function serviceReport(
  dataPlane: InspectedDataPlane,
  service: Service,
  context: DesiredContext,
  most = Infinity,
): ServiceReport {
  const { ports, refusals } = serviceExposures(service, context);
  const virtualServers: VirtualServerReport[] = [];
  let total = 0;
  for (const exposed of ports) {
    const exposures = distinct(exposed.exposures);
    const shown = exposures.slice(0, Math.max(0, most - total));
    total += exposures.length;
    if (shown.length === 0) continue;
    const known = endpointKeys(dataPlane.cluster.slicesOf(service.key), exposed.family, exposed.port);
    for (const exposure of shown) virtualServers.push(serverReport(dataPlane, service, exposed, exposure, known));
  }
  const more = total > virtualServers.length ? { more: total - virtualServers.length } : {};
  return { ...nameOf(service), virtualServers, ...more, notes: refusals.map(({ text }) => text) };
}

/** `known` are the endpoints that its port has. */
function serverReport(
  { updater, ipvs }: InspectedDataPlane,
  service: Service,
  { port }: Pick<PortExposures, 'port'>,
  { kind, server, address }: Exposure,
  known: ReadonlySet<RealServerKey>,
): VirtualServerReport {
  const length = realServerKeyLength(virtualServerFamily(server));
  const desired = updater.desired.virtualServers.get(server);
  const isOurs = desired?.service === service.key;
  const applied = isOurs ? ipvs.applied.get(server) : undefined;
  const settings = isOurs
    ? desired.settings
    : virtualServerSettings(updater.settings.scheduler, service.affinitySeconds);
  const ready = isOurs ? desired.realServers.length / length : 0;
  const draining = applied === undefined ? [] : realServerKeys(applied.draining, virtualServerFamily(server));
  const identity = virtualServerIdentity(server);
  const isLocal = isLocalPolicy(service, kind);
  const without = updater.desired.services.get(service.key)?.withoutLocal?.[familyOf(address)];
  return {
    protocol: port.protocol,
    address: formatAddress(address),
    port: identity.kind === 'address' ? identity.port : 0,
    portName: port.name,
    kind,
    policy: isLocal ? 'Local' : 'Cluster',
    scheduler: settings.scheduler,
    affinitySeconds: settings.timeout,
    ready,
    draining: draining.length,
    // Of those that drain most are no endpoints any more; the others are told once.
    leftOut: known.size - ready - draining.filter((key) => known.has(key)).length,
    contestedBy: desired === undefined || isOurs ? null : desired.service,
    written: applied !== undefined,
    inKernel: (applied?.realServers.length ?? 0) / length,
    noLocalEndpoint:
      isLocal && without !== undefined && (kind === 'clusterIP' ? without.internal : without.external) > 0,
  };
}

async function backendsPage(
  dataPlane: InspectedDataPlane,
  refusals: readonly string[],
  { service: key, offset, limit }: BackendsQuery,
): Promise<BackendsPage | undefined> {
  const { cluster, updater } = dataPlane;
  const service = cluster.services.get(key);
  if (service === undefined) return undefined;
  const { context } = updater;
  const exposures = serviceExposures(service, context);
  const slices = cluster.slicesOf(key);
  const groups: BackendGroup[] = [];
  const endpoints: EndpointReport[] = [];
  const turns = new Turns();
  let total = 0;
  for (const exposed of exposures.ports) {
    const { family, port } = exposed;
    if (exposed.exposures.length === 0) continue;
    if (turns.spend(STEPS_PER_SERVER)) await turns.next();
    const choice = portEndpoints(service, slices, family, port, context.topology);
    const reported = reportEndpoints(slices, family, port, choice, context.topology);
    const group = groups.length;
    turns.spend(reported.length);
    // Words are made of those that are asked for.
    const first = Math.max(0, offset - total);
    const shown = reported.slice(first, Math.max(first, offset + limit - total));
    total += reported.length;
    for (const { key: real, flags, zoneHints, nodeHints, cluster: inCluster, local } of shown)
      endpoints.push({
        group,
        address: formatAddress(realServerAddress(real)),
        port: realServerPort(real),
        ready: (flags & READY) !== 0,
        serving: (flags & SERVING) !== 0,
        terminating: (flags & TERMINATING) !== 0,
        local: (flags & LOCAL) !== 0,
        zoneHints,
        nodeHints,
        leftOut: { cluster: inCluster ?? null, local: local ?? null },
      });
    const known = new Set(reported.map(({ key: real }) => real));
    groups.push({
      virtualServers: distinct(exposed.exposures).map((exposure) => ({
        ...serverReport(dataPlane, service, exposed, exposure, known),
        list: usedList(service, exposure, choice),
        refusals: refusals.filter((text) => names(text, formatVirtualServer(exposure.server))),
      })),
    });
  }
  const notes = exposures.refusals.map(({ text }) => text);
  return { ...nameOf(service), notes, groups, total, endpoints };
}

/** Messages are `add-real-server TCP 10.96.0.1:80 -> 10.0.0.1:80: EINVAL ...`. */
function names(message: string, place: string): boolean {
  return message.includes(`${place} `) || message.includes(`${place}: `);
}

/** As service.ts: a Local policy without an endpoint here falls back to the cluster's. */
function usedList(service: Service, { kind }: Exposure, { cluster, local }: EndpointChoice): 'cluster' | 'local' {
  return isLocalPolicy(service, kind) && (local !== '' || cluster === '') ? 'local' : 'cluster';
}

/** Two addresses of a Service may be the same; the first one counts. */
function distinct(exposures: readonly Exposure[]): readonly Exposure[] {
  return [...new Map([...exposures].reverse().map((exposure) => [exposure.server, exposure])).values()].reverse();
}

function nameOf({ key }: Service): { namespace: string; name: string } {
  const slash = key.indexOf('/');
  return { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}
