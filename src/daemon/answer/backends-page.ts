import { formatAddress } from '../../values/address.js';
import { formatVirtualServer, realServerAddress, realServerPort } from '../../values/virtual-server.js';
import { type ReportedEndpoint, reportEndpoints } from '../../desired/endpoint-report.js';
import { type EndpointChoice } from '../../desired/endpoints.js';
import { type Exposure, type PortExposures, serviceExposures } from '../../desired/exposures.js';
import { isLocalPolicy, portEndpoints } from '../../desired/service.js';
import { LOCAL, READY, SERVING, TERMINATING } from '../../model/endpoint-slice.js';
import { type Service } from '../../model/service.js';
import {
  type BackendGroup,
  type BackendsPage,
  type BackendsQuery,
  type EndpointReport,
} from '../../serve/inspection.js';
import { type InspectedDataPlane, STEPS_PER_SERVER, distinct, nameOf, serverReport } from './server-report.js';
import { Turns } from '../../time/turns.js';

/**
 * The virtual servers and endpoints of one Service, a page of the endpoints; undefined when there is no such Service.
 * `refusals` is what the kernel is known to refuse.
 */
export async function backendsPage(
  dataPlane: InspectedDataPlane,
  refusals: readonly string[],
  { service: key, offset, limit }: BackendsQuery,
): Promise<BackendsPage | undefined> {
  const { cluster, updater } = dataPlane;
  const service = cluster.services.get(key);
  if (service === undefined) return undefined;
  const { topology } = updater.context;
  const exposures = serviceExposures(service, updater.context);
  const slices = cluster.slicesOf(key);
  const groups: BackendGroup[] = [];
  const endpoints: EndpointReport[] = [];
  const turns = new Turns();
  let total = 0;
  for (const exposed of exposures.ports) {
    const { family, port } = exposed;
    if (exposed.exposures.length === 0) continue;
    if (turns.spend(STEPS_PER_SERVER)) await turns.next();
    const choice = portEndpoints(service, slices, family, port, topology);
    const reported = reportEndpoints(slices, family, port, choice, topology);
    turns.spend(reported.length);
    // Words are made of those that are asked for.
    const first = Math.max(0, offset - total);
    const shown = reported.slice(first, Math.max(first, offset + limit - total));
    total += reported.length;
    for (const endpoint of shown) endpoints.push(endpointReport(endpoint, groups.length));
    groups.push(backendGroup(dataPlane, service, exposed, { choice, reported, refusals }));
  }
  const notes = exposures.refusals.map(({ text }) => text);
  return { ...nameOf(service), notes, groups, total, endpoints };
}

/** `group`: the index of the virtual servers that the endpoint may be behind. */
function endpointReport(endpoint: ReportedEndpoint, group: number): EndpointReport {
  const { key, flags, zoneHints, nodeHints, cluster, local } = endpoint;
  return {
    group,
    address: formatAddress(realServerAddress(key)),
    port: realServerPort(key),
    ready: (flags & READY) !== 0,
    serving: (flags & SERVING) !== 0,
    terminating: (flags & TERMINATING) !== 0,
    local: (flags & LOCAL) !== 0,
    zoneHints,
    nodeHints,
    leftOut: { cluster: cluster ?? null, local: local ?? null },
  };
}

/** What is known of the endpoints of one port. */
interface PortFacts {
  readonly choice: EndpointChoice;
  readonly reported: readonly ReportedEndpoint[];
  readonly refusals: readonly string[];
}

function backendGroup(
  dataPlane: InspectedDataPlane,
  service: Service,
  exposed: PortExposures,
  { choice, reported, refusals }: PortFacts,
): BackendGroup {
  const known = new Set(reported.map(({ key }) => key));
  return {
    virtualServers: distinct(exposed.exposures).map((exposure) => ({
      ...serverReport(dataPlane, service, exposed, exposure, known),
      list: usedList(service, exposure, choice),
      refusals: refusals.filter((text) => names(text, formatVirtualServer(exposure.server))),
    })),
  };
}

/** Messages are `add-real-server TCP 10.96.0.1:80 -> 10.0.0.1:80: EINVAL ...`. */
function names(message: string, place: string): boolean {
  return message.includes(`${place} `) || message.includes(`${place}: `);
}

/** As service.ts: a Local policy without an endpoint here falls back to the cluster's. */
function usedList(service: Service, { kind }: Exposure, { cluster, local }: EndpointChoice): 'cluster' | 'local' {
  return isLocalPolicy(service, kind) && (local !== '' || cluster === '') ? 'local' : 'cluster';
}
