import { type Address, type Family, familyOf } from '../values/address.js';
import { exact } from '../values/exact.js';
import { type IpsetEntry } from '../values/ipset.js';
import {
  FLAG_PERSISTENT,
  FLAG_SCHED_FALLBACK,
  FLAG_SCHED_PORT,
  type RealServerList,
  type VirtualServerKey,
  type VirtualServerSettings,
} from '../values/virtual-server.js';
import { type EndpointSlice } from '../model/endpoint-slice.js';
import { SharedValues } from '../model/intern.js';
import { type Service, type ServicePort } from '../model/service.js';
import { type DesiredContext } from './context.js';
import { type EndpointChoice, type EndpointUse, type Topology, chooseEndpoints, countLocalReady } from './endpoints.js';
import { type Exposure, type ExposureKind, type PortExposures } from './exposures.js';
import { type AddIpsetEntry, exposureIpsetEntries, servicePortIpsetEntries } from './service-ipsets.js';
import { type IpsetName } from './ipset-definitions.js';

export interface DesiredVirtualServer {
  readonly key: VirtualServerKey;
  /** The Service that owns it, for logs and for moves between Services. */
  readonly service: string;
  readonly settings: VirtualServerSettings;
  readonly realServers: RealServerList;
}

/** Everything one Service asks of the kernel. */
export interface DesiredService {
  readonly virtualServers: readonly DesiredVirtualServer[];
  /** VIPs; whether one is bound to kube-ipvs0 depends on the node's own addresses (desired-state.ts). */
  readonly addresses: readonly Address[];
  /** set, entry, set, entry, ... : flat because there are 100,000 of them */
  readonly setEntries: readonly (IpsetName | IpsetEntry)[];
  readonly healthCheck: { readonly port: number; readonly localEndpoints: number } | undefined;
  /** undefined for the many Services of which every policy finds what it needs. */
  readonly withoutLocal: Readonly<Record<Family, WithoutLocal>> | undefined;
}

/**
 * Whether (1) or not (0) a Local policy finds no endpoint here, for some port of the Service, though there are some
 * elsewhere.
 */
export interface WithoutLocal {
  readonly internal: number;
  readonly external: number;
}

export type Owns = (server: VirtualServerKey) => boolean;

/** A cluster has a handful; tenants could make 86,400, one per affinity timeout. */
const settingsCache = new SharedValues<VirtualServerSettings>(1000);

/** kube-proxy's settings for a Service; one shared object per distinct value. */
export function virtualServerSettings(scheduler: string, affinitySeconds: number): VirtualServerSettings {
  return settingsCache.get(`${scheduler} ${affinitySeconds}`, 1, () => {
    const flags = (affinitySeconds > 0 ? FLAG_PERSISTENT : 0) | schedulerFlags(scheduler);
    return { scheduler, flags, timeout: affinitySeconds };
  });
}

/** Exposures worked out in one go. */
const STEP = 100;
/** Ten endpoints (of six characters each in a list of IPv4) cost about as much as an exposure. */
const CHARACTERS_PER_EXPOSURE = 60;

/**
 * `mh` hashes the port too, as kube-proxy sets it. Both hashing schedulers get the fallback flag, which kube-proxy
 * omits: without it they drop new connections that hash to a draining (weight 0) backend.
 */
function schedulerFlags(scheduler: string): number {
  if (scheduler === 'mh') return FLAG_SCHED_PORT | FLAG_SCHED_FALLBACK;
  return scheduler === 'sh' ? FLAG_SCHED_FALLBACK : 0;
}

/**
 * What a Service asks of the kernel, in steps of some hundred exposures, between which the caller may do something
 * else.
 */
export function* desiredServiceSteps(
  service: Service,
  slices: readonly EndpointSlice[],
  context: DesiredContext,
  owns: Owns,
  exposures: readonly PortExposures[],
): Generator<void, DesiredService> {
  const builder = new Builder(service, slices, context, owns);
  let since = 0;
  for (const one of exposures) {
    since += builder.addPort(one);
    if (since < STEP) continue;
    since = 0;
    yield;
  }
  return builder.result();
}

/** The endpoints of one service port here, as its policies want them. */
export function portEndpoints(
  service: Service,
  slices: readonly EndpointSlice[],
  family: Family,
  port: ServicePort,
  topology: Topology,
): EndpointChoice {
  const isExternal = isExternallyAccessible(service, port, family);
  return chooseEndpoints(slices, family, port, endpointUse(service, isExternal), topology);
}

/** Whether the policy for traffic that comes by this kind of address is Local. */
export function isLocalPolicy(service: Service, kind: ExposureKind): boolean {
  return kind === 'clusterIP' ? service.internalLocal : service.externalLocal;
}

/** ServicePort.ExternallyAccessible of kube-proxy, which sees one family at a time. */
function isExternallyAccessible(service: Service, port: ServicePort, family: Family): boolean {
  const isOfFamily = (address: Address): boolean => familyOf(address) === family;
  return port.nodePort > 0 || service.externalIPs.some(isOfFamily) || service.loadBalancerIPs.some(isOfFamily);
}

/** KEP-1669 and ServicePort.UsesClusterEndpoints/UsesLocalEndpoints of kube-proxy. */
function endpointUse(service: Service, isExternal: boolean): EndpointUse {
  return {
    cluster: !service.internalLocal || isExternal,
    local: service.internalLocal || (service.externalLocal && isExternal),
  };
}

class Builder {
  readonly #virtualServers: DesiredVirtualServer[] = [];
  readonly #addresses = new Set<Address>();
  readonly #setEntries: (IpsetName | IpsetEntry)[] = [];
  readonly #settings: VirtualServerSettings;
  #withoutLocal: Record<Family, { internal: number; external: number }> | undefined;

  constructor(
    readonly service: Service,
    readonly slices: readonly EndpointSlice[],
    readonly context: DesiredContext,
    readonly owns: Owns,
  ) {
    this.#settings = virtualServerSettings(context.scheduler, service.affinitySeconds);
  }

  /** Returns what it cost, in exposures. */
  addPort({ family, port, exposures: claimed }: PortExposures): number {
    const { service, context } = this;
    const exposures = claimed.filter((exposure) => this.owns(exposure.server));
    const isExternal = isExternallyAccessible(service, port, family);
    const choice = portEndpoints(service, this.slices, family, port, context.topology);
    const seen = new Set<VirtualServerKey>();
    for (const exposure of exposures) {
      if (seen.has(exposure.server)) continue;
      seen.add(exposure.server);
      this.#virtualServers.push(this.#virtualServer(exposure, choice));
      if (exposure.kind !== 'nodePort') this.#addresses.add(exposure.address);
    }
    if (choice.hasAny && choice.local === '') this.#noteWithoutLocal(family, isExternal);
    const facts = { service, port, family, choice, context };
    const add: AddIpsetEntry = (set, entry) => void this.#setEntries.push(set, entry);
    for (const exposure of exposures) exposureIpsetEntries(exposure, facts, add);
    servicePortIpsetEntries(facts, add);
    return claimed.length + (choice.cluster.length + choice.local.length) / CHARACTERS_PER_EXPOSURE;
  }

  /** As kube-proxy counts for its metric: each Service once per family, whatever the number of its ports. */
  #noteWithoutLocal(family: Family, isExternal: boolean): void {
    const { internalLocal, externalLocal } = this.service;
    if (!internalLocal && !externalLocal) return;
    this.#withoutLocal ??= { 4: { internal: 0, external: 0 }, 6: { internal: 0, external: 0 } };
    if (internalLocal) this.#withoutLocal[family].internal = 1;
    if (externalLocal && (isExternal || internalLocal)) this.#withoutLocal[family].external = 1;
  }

  result(): DesiredService {
    return {
      virtualServers: exact(this.#virtualServers),
      addresses: [...this.#addresses],
      setEntries: exact(this.#setEntries),
      healthCheck: this.#healthCheck(),
      withoutLocal: this.#withoutLocal,
    };
  }

  /**
   * Local policy without a local endpoint falls back to the cluster's, as in kube-proxy: Pods and the node itself
   * are to be served; the rules drop the others (proxy-rules.ts).
   */
  #virtualServer(exposure: Exposure, choice: EndpointChoice): DesiredVirtualServer {
    const { service } = this;
    const realServers = isLocalPolicy(service, exposure.kind) && choice.local !== '' ? choice.local : choice.cluster;
    return { key: exposure.server, service: service.key, settings: this.#settings, realServers };
  }

  #healthCheck(): DesiredService['healthCheck'] {
    const { service } = this;
    if (service.healthCheckNodePort === 0) return undefined;
    const families = new Set(service.clusterIPs.map((address) => familyOf(address)));
    // A dual-stack Pod has an address in each family and is still one endpoint.
    let localEndpoints = 0;
    for (const family of families) localEndpoints = Math.max(localEndpoints, countLocalReady(this.slices, family));
    return { port: service.healthCheckNodePort, localEndpoints };
  }
}
