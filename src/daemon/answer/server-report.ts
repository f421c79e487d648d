import { familyOf, formatAddress } from '../../values/address.js';
import {
  type RealServerKey,
  realServerKeyLength,
  realServerKeys,
  virtualServerFamily,
  virtualServerIdentity,
} from '../../values/virtual-server.js';
import { type Exposure, type PortExposures } from '../../desired/exposures.js';
import { isLocalPolicy, virtualServerSettings } from '../../desired/service.js';
import { type Service } from '../../model/service.js';
import { type VirtualServerReport } from '../../serve/inspection.js';
import { type DataPlane } from '../data-plane.js';

/** A report of one costs as much as so many look-ups. */
export const STEPS_PER_SERVER = 20;

/** What is read of the data plane. */
export type InspectedDataPlane = Pick<DataPlane, 'cluster' | 'updater' | 'ipvs'>;

/** One virtual server of a Service, desired and applied; `known` are the endpoints that its port has. */
export function serverReport(
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

/** Two addresses of a Service may be the same; the first one counts. */
export function distinct(exposures: readonly Exposure[]): readonly Exposure[] {
  return [...new Map([...exposures].reverse().map((exposure) => [exposure.server, exposure])).values()].reverse();
}

/** The Service's key taken apart. */
export function nameOf({ key }: Service): { namespace: string; name: string } {
  const slash = key.indexOf('/');
  return { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}
