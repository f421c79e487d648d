import { type DesiredContext } from '../../desired/context.js';
import { endpointKeys } from '../../desired/endpoint-report.js';
import { serviceExposures } from '../../desired/exposures.js';
import { type Service } from '../../model/service.js';
import {
  type ServiceReport,
  type ServicesPage,
  type ServicesQuery,
  type VirtualServerReport,
} from '../../serve/inspection.js';
import { type InspectedDataPlane, STEPS_PER_SERVER, distinct, nameOf, serverReport } from './server-report.js';
import { listServices } from './service-list.js';
import { Turns } from '../../time/turns.js';

/** Virtual servers after which a page of Services ends: each is a look into several tables. */
const MOST_SERVERS = 1000;

/** The Services that a query finds, a page of them. */
export async function servicesPage(dataPlane: InspectedDataPlane, query: ServicesQuery): Promise<ServicesPage> {
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
