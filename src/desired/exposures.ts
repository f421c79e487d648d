import { type Address, type Family, familyOf } from '../values/address.js';
import { type VirtualServerKey, addressServerKey } from '../values/virtual-server.js';
import { type Service, type ServicePort } from '../model/service.js';
import { type DesiredContext } from './context.js';

export type ExposureKind = 'clusterIP' | 'externalIP' | 'loadBalancer' | 'nodePort';

/** One address and port under which a service port is reachable: one virtual server. */
export interface Exposure {
  readonly kind: ExposureKind;
  readonly server: VirtualServerKey;
  readonly address: Address;
}

/** The families a Service is served in: those of its cluster IPs, as in kube-proxy, whatever its other addresses are. */
export function servedFamilies(service: Service, context: DesiredContext): readonly Family[] {
  const { clusterIPs } = service;
  return context.families.filter((family) => clusterIPs.some((address) => familyOf(address) === family));
}

/** Every exposure of one service port in one family. The first of two equal ones counts (an external IP that is also the ingress IP). */
export function portExposures(
  service: Service,
  port: ServicePort,
  family: Family,
  context: DesiredContext,
): readonly Exposure[] {
  const found: Exposure[] = [];
  const add = (kind: ExposureKind, address: Address, number: number): void => {
    found.push({ kind, address, server: addressServerKey(port.protocol, address, number) });
  };
  const clusterIP = service.clusterIPs.find((address) => familyOf(address) === family);
  if (clusterIP !== undefined) add('clusterIP', clusterIP, port.port);
  for (const address of service.externalIPs) if (familyOf(address) === family) add('externalIP', address, port.port);
  for (const address of service.loadBalancerIPs)
    if (familyOf(address) === family) add('loadBalancer', address, port.port);
  if (port.nodePort > 0)
    for (const address of context.nodePortAddresses[family]) add('nodePort', address, port.nodePort);
  return found;
}

/** The exposures of one service port in one family. */
export interface PortExposures {
  readonly port: ServicePort;
  readonly family: Family;
  readonly exposures: readonly Exposure[];
}

/** Every exposure of a Service, endpoints or not. */
export function serviceExposures(service: Service, context: DesiredContext): readonly PortExposures[] {
  const found: PortExposures[] = [];
  for (const family of servedFamilies(service, context))
    for (const port of service.ports)
      found.push({ port, family, exposures: portExposures(service, port, family, context) });
  return found;
}

/** Every virtual server that these ask for: what a Service claims against others. */
export function exposedServers(found: readonly PortExposures[]): readonly VirtualServerKey[] {
  if (found.length === 1 && found[0]!.exposures.length === 1) return [found[0]!.exposures[0]!.server];
  const servers = new Set<VirtualServerKey>();
  for (const { exposures } of found) for (const { server } of exposures) servers.add(server);
  return [...servers];
}
