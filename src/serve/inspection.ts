/** What `/services.json` and `/backends.json` say: Services and their endpoints as this daemon wants them here. */

/** One address and port of a Service. Absent facts are null, so that every key is always there. */
export interface VirtualServerReport {
  readonly protocol: string;
  readonly address: string;
  readonly port: number;
  /** Empty when the Service names it not. */
  readonly portName: string;
  readonly kind: 'clusterIP' | 'nodePort' | 'loadBalancer' | 'externalIP';
  /** The traffic policy for those who come by this address. */
  readonly policy: 'Cluster' | 'Local';
  readonly scheduler: string;
  /** Seconds of ClientIP affinity; 0 for none. */
  readonly affinitySeconds: number;
  /** Endpoints that are to get traffic by this address, those that drain, and those that are left out. */
  readonly ready: number;
  readonly draining: number;
  readonly leftOut: number;
  /** The Service that has this address and port, when it is another one. */
  readonly contestedBy: string | null;
  /** False when the kernel has refused it, or was not told yet. */
  readonly written: boolean;
  /** Real servers that were written and get traffic, by the daemon's own books. */
  readonly inKernel: number;
  /** Policy Local without an endpoint on this node: clients from outside the cluster are dropped. */
  readonly noLocalEndpoint: boolean;
}

export interface ServiceReport {
  readonly namespace: string;
  readonly name: string;
  readonly virtualServers: readonly VirtualServerReport[];
  /** Addresses that are there besides, when fewer were asked for. */
  readonly more?: number;
  /** What of the Service is left out, and why; one sentence each. */
  readonly notes: readonly string[];
}

/**
 * `noEndpoints`: an address of the Service has nobody to send traffic to; `contested`: another Service claims an
 * address of it, whoever has it; `unwritten`: the kernel does not have what is wanted of it.
 */
export const SERVICE_FILTERS = ['all', 'noEndpoints', 'draining', 'contested', 'unwritten'] as const;
export type ServiceFilter = (typeof SERVICE_FILTERS)[number];
export const SERVICE_ORDERS = ['name', 'backends', 'draining'] as const;
export type ServiceOrder = (typeof SERVICE_ORDERS)[number];

/** From `offset` on as many as were asked for, or fewer: `total` says whether there are more. */
export interface ServicesPage {
  readonly total: number;
  /** How many of those that match each filter has. */
  readonly counts: Readonly<Record<ServiceFilter, number>>;
  readonly services: readonly ServiceReport[];
}

export interface ServicesQuery {
  /** Empty: all. */
  readonly namespace: string;
  /**
   * A name, `namespace/name`, an address of a Service or of an endpoint, or such an address with a port. Empty: all.
   */
  readonly match: string;
  /** Part of `namespace/name` or of an address of the Service, or what `match` takes. Empty: all. */
  readonly search: string;
  /** Addresses reported of each Service; all when absent. */
  readonly mostServers?: number;
  readonly filter: ServiceFilter;
  readonly order: ServiceOrder;
  readonly descending: boolean;
  readonly offset: number;
  readonly limit: number;
}

/** Why an endpoint gets no traffic by a list; null: it does. */
export type LeftOutReport =
  'duplicate' | 'notReady' | 'terminating' | 'otherNode' | 'otherZone' | 'otherNodeHint' | null;

export interface EndpointReport {
  /** Index into `groups`. */
  readonly group: number;
  readonly address: string;
  readonly port: number;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** Runs on this node. */
  readonly local: boolean;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
  readonly leftOut: { readonly cluster: LeftOutReport; readonly local: LeftOutReport };
}

/** Virtual servers that have the same endpoints to choose from: one service port in one family. */
export interface BackendGroup {
  readonly virtualServers: readonly BackendServer[];
}

export interface BackendServer extends VirtualServerReport {
  /** Which of the two lists of endpoints it uses. */
  readonly list: 'cluster' | 'local';
  /** What the kernel says against it or its real servers; as much as the daemon keeps. */
  readonly refusals: readonly string[];
}

export interface BackendsPage extends Pick<ServiceReport, 'namespace' | 'name' | 'notes'> {
  readonly groups: readonly BackendGroup[];
  /** Number of endpoints over all groups. */
  readonly total: number;
  readonly endpoints: readonly EndpointReport[];
}

/** What IPVS has and has counted of one virtual server, read from the kernel for who asks. */
export interface KernelServer {
  /** As VirtualServerReport has them. */
  readonly protocol: string;
  readonly address: string;
  readonly port: number;
  /** False: the kernel has no such virtual server. */
  readonly exists: boolean;
  /** Since the virtual server was made. */
  readonly connections: number;
  readonly inBytes: number;
  readonly outBytes: number;
  readonly realServers: readonly KernelRealServer[];
}

export interface KernelRealServer {
  readonly address: string;
  readonly port: number;
  readonly weight: number;
  readonly activeConnections: number;
  readonly inactiveConnections: number;
}

/** Why the kernel could not be asked, or the first so many virtual servers of the Service. */
export type KernelAnswer = { readonly failure: string } | { readonly servers: readonly KernelServer[] };

export interface BackendsQuery {
  /** `namespace/name` */
  readonly service: string;
  readonly offset: number;
  readonly limit: number;
}

/** Answers come in pieces of bounded work, with other work of the event loop in between. */
export interface InspectionSource {
  services(query: ServicesQuery): Promise<ServicesPage>;
  /** undefined when there is no such Service, or none that a proxy serves. */
  backends(query: BackendsQuery): Promise<BackendsPage | undefined>;
  /** Of the Service's own virtual servers, as the kernel has them now. */
  kernel(service: string): Promise<KernelAnswer>;
}

/** Each Service costs a look at its endpoints. */
const LARGEST_SERVICES_PAGE = 200;
const LARGEST_BACKENDS_PAGE = 1000;
/** `namespace/name` at its longest. */
const LONGEST_TEXT = 63 + 1 + 253;

/**
 * Reads `namespace`, `match`, `search`, `show` (a filter), `sort` (an order; with `-desc` turned round), `offset` and
 * `limit` (1 to 200); nonsense becomes the default.
 */
export function servicesQuery(parameters: URLSearchParams): ServicesQuery {
  const sort = parameters.get('sort') ?? '';
  return {
    namespace: text(parameters, 'namespace'),
    match: text(parameters, 'match'),
    search: text(parameters, 'search').trim().toLowerCase(),
    filter: SERVICE_FILTERS.find((filter) => filter === parameters.get('show')) ?? 'all',
    order: SERVICE_ORDERS.find((order) => order === sort.replace('-desc', '')) ?? 'name',
    descending: sort.endsWith('-desc'),
    ...range(parameters, LARGEST_SERVICES_PAGE),
  };
}

/** Reads `service`, `offset` and `limit` (1 to 1,000). */
export function backendsQuery(parameters: URLSearchParams): BackendsQuery {
  return { service: text(parameters, 'service'), ...range(parameters, LARGEST_BACKENDS_PAGE) };
}

function text(parameters: URLSearchParams, name: string): string {
  return (parameters.get(name) ?? '').slice(0, LONGEST_TEXT);
}

function range(parameters: URLSearchParams, largest: number): { offset: number; limit: number } {
  const number = (name: string): number => {
    const value = parameters.get(name) ?? '';
    return /^[0-9]{1,15}$/.test(value) ? Number(value) : 0;
  };
  return { offset: number('offset'), limit: Math.min(number('limit') || largest, largest) };
}
