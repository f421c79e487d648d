import { type Address, type Family, familyOf, formatAddress } from '../values/address.js';
import { type VirtualServerKey, addressServerKey } from '../values/virtual-server.js';
import { API_SERVER_SERVICE, type Service, type ServicePort } from '../model/service.js';
import { type DesiredContext } from './context.js';
import { lastOf } from './steps.js';

/** How a service port is exposed, in the order of their worth when two Services claim the same (claims.ts). */
export const EXPOSURE_KINDS = ['clusterIP', 'nodePort', 'loadBalancer', 'externalIP'] as const;
export type ExposureKind = (typeof EXPOSURE_KINDS)[number];

/** One address and port under which a service port is reachable: one virtual server. */
export interface Exposure {
  readonly kind: ExposureKind;
  readonly server: VirtualServerKey;
  readonly address: Address;
}

/** The exposures of one service port in one family. */
export interface PortExposures {
  readonly port: ServicePort;
  readonly family: Family;
  readonly exposures: readonly Exposure[];
}

/** What of a Service is left out though it is well-formed, and why: `protected` or `too-many`. */
export interface Refusal {
  readonly reason: 'protected' | 'too-many';
  readonly text: string;
}

export interface ServiceExposures {
  readonly ports: readonly PortExposures[];
  readonly refusals: readonly Refusal[];
}

/**
 * The most exposures of one Service, lest one object of 100 KB (ports times addresses) fills the memory of every node.
 * Far above what a cluster has: 1,000 ports on ten addresses.
 */
export const MAX_EXPOSURES = 10_000;

/** Exposures, or ports without any, worked out in one go. */
const STEP = 500;

/**
 * The families a Service is served in: those of its cluster IPs, as in kube-proxy, whatever its other addresses are.
 */
export function servedFamilies(service: Service, context: DesiredContext): readonly Family[] {
  const { clusterIPs } = service;
  return context.families.filter((family) => clusterIPs.some((address) => familyOf(address) === family));
}

/**
 * Every exposure of a Service, endpoints or not. Left out, with a refusal, are protected addresses and what is over
 * MAX_EXPOSURES; kept are then cluster IPs before NodePorts before load balancers before external IPs, each in the
 * Service's own order.
 */
export function serviceExposures(service: Service, context: DesiredContext): ServiceExposures {
  return lastOf(serviceExposureSteps(service, context));
}

/** The same in steps of some hundred exposures, between which the caller may do something else. */
export function* serviceExposureSteps(service: Service, context: DesiredContext): Generator<void, ServiceExposures> {
  const refusals: Refusal[] = [];
  const groups = servedFamilies(service, context).flatMap((family) => {
    const addresses = exposedAddresses(service, family, context, refusals);
    return service.ports.map((port) => ({ port, family, addresses, exposures: [] as Exposure[] }));
  });
  let count = 0;
  let since = 0;
  const takenBy = new Map<VirtualServerKey, ServicePort>();
  for (const kind of EXPOSURE_KINDS)
    for (const { port, addresses, exposures } of groups) {
      since += 1 + addresses[kind].length;
      if (since >= STEP) {
        since = 0;
        yield;
      }
      const number = kind === 'nodePort' ? port.nodePort : port.port;
      if (number === 0) continue;
      const room = Math.max(0, MAX_EXPOSURES - count);
      count += addresses[kind].length;
      for (const address of room < addresses[kind].length ? addresses[kind].slice(0, room) : addresses[kind]) {
        const server = addressServerKey(port.protocol, address, number);
        // A Service may contest itself: a NodePort of one port, and another port of that number on the node's address.
        if (service.ports.length > 1 && (takenBy.get(server) ?? port) !== port) continue;
        if (service.ports.length > 1) takenBy.set(server, port);
        exposures.push({ kind, address, server });
      }
    }
  if (count > MAX_EXPOSURES) refusals.push(tooMany(count));
  return { ports: groups.map(({ port, family, exposures }) => ({ port, family, exposures })), refusals };
}

type ExposedAddresses = Readonly<Record<ExposureKind, readonly Address[]>>;

function exposedAddresses(
  service: Service,
  family: Family,
  context: DesiredContext,
  refusals: Refusal[],
): ExposedAddresses {
  const allowed = (kind: ExposureKind, addresses: readonly Address[]): readonly Address[] =>
    addresses.filter((address) => {
      if (familyOf(address) !== family) return false;
      const reason = protectedBy(service, kind, address, context);
      if (reason === undefined) return true;
      refusals.push({ reason: 'protected', text: `${kind} ${formatAddress(address)} is left out: it is ${reason}` });
      return false;
    });
  return {
    clusterIP: allowed('clusterIP', service.clusterIPs).slice(0, 1),
    nodePort: context.nodePortAddresses[family],
    loadBalancer: allowed('loadBalancer', service.loadBalancerIPs),
    externalIP: context.allowsExternalIPs ? allowed('externalIP', service.externalIPs) : [],
  };
}

/**
 * Why a VIP must not be this address; undefined when it may. The node's own addresses are never bound to kube-ipvs0, so
 * serving a port on one of them takes nothing away. The cluster IP by which Pods reach the API server stays served.
 */
function protectedBy(
  service: Service,
  kind: ExposureKind,
  address: Address,
  { protectedAddresses, localAddresses }: DesiredContext,
): string | undefined {
  const protection = protectedAddresses.reason(address);
  if (protection === undefined || localAddresses.has(address)) return undefined;
  if (kind === 'clusterIP' && (protection.mayBeClusterIP === true || service.key === API_SERVER_SERVICE))
    return undefined;
  return protection.reason;
}

function tooMany(count: number): Refusal {
  const text = `${count - MAX_EXPOSURES} of ${count} virtual servers are left out: a Service may have ${MAX_EXPOSURES}`;
  return { reason: 'too-many', text };
}
