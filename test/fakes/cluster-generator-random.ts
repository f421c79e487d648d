import { type ApiObject, type Resource } from './api-server-store.js';
import { seededRandom } from './cluster-generator.js';

/** What to do with the fake API server. */
export type ClusterChange =
  | { readonly op: 'set'; readonly object: ApiObject }
  | { readonly op: 'delete'; readonly resource: Resource; readonly key: string };

export interface RandomClusterOptions {
  readonly seed: number;
  /** Sometimes two Services claim the same external address and port. */
  readonly conflicts?: boolean;
  /** Now and then an object has a bad field (never one that makes its good rest unusable). */
  readonly badFields?: boolean;
  /** Protocols to choose from. */
  readonly protocols?: readonly string[];
  /** IPv6 Services and slices too. */
  readonly ipv6?: boolean;
}

interface Known {
  readonly id: number;
  /** The lowest number that no living Service has: what ports and addresses outside of the cluster are made from. */
  readonly slot: number;
  readonly service: ApiObject;
  slices: ApiObject[];
}

type Fields = Record<string, unknown>;

/** Three node ports each, from 30000 up to the first health check node port, 32000. */
const MAX_SERVICES = 660;
const NODES = ['node-0', 'node-1', 'node-2'] as const;

/** A cluster that uses every feature at random, repeatable by its seed; every change is a list of API writes. */
export class RandomCluster {
  readonly #random: () => number;
  readonly #known: Known[] = [];
  #nextId = 1;

  readonly #options: RandomClusterOptions;

  constructor(options: RandomClusterOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
  }

  get serviceCount(): number {
    return this.#known.length;
  }

  /** All objects that exist now. */
  objects(): ApiObject[] {
    return this.#known.flatMap(({ service, slices }) => [service, ...slices]);
  }

  /** A new Service with its slices. */
  create(): ClusterChange[] {
    const id = this.#nextId++;
    const slot = this.#freeSlot();
    const service = this.#service(id, slot);
    const known = { id, slot, service, slices: this.#slices(id, service) };
    this.#known.push(known);
    return [service, ...known.slices].map((object) => ({ op: 'set', object }));
  }

  /** One random change: endpoints come, go or change state; a Service changes, appears or disappears. */
  step(): ClusterChange[] {
    const dice = this.#random();
    const index = Math.floor(this.#random() * this.#known.length);
    const known = this.#known[index];
    if (known === undefined || dice < 0.1) return this.create();
    if (dice < 0.18) return this.#remove(index, known);
    if (dice < 0.35) return this.#changeService(index, known);
    const before = new Set(known.slices.map((slice) => slice.metadata.name));
    known.slices = this.#slices(known.id, known.service);
    for (const slice of known.slices) before.delete(slice.metadata.name);
    return [
      ...known.slices.map((object): ClusterChange => ({ op: 'set', object })),
      ...[...before].map((name): ClusterChange => ({ op: 'delete', resource: 'endpointslices', key: `chaos/${name}` })),
    ];
  }

  #remove(index: number, known: Known): ClusterChange[] {
    this.#known.splice(index, 1);
    const slices = known.slices.map((slice): ClusterChange => ({
      op: 'delete',
      resource: 'endpointslices',
      key: `chaos/${slice.metadata.name}`,
    }));
    const service: ClusterChange = { op: 'delete', resource: 'services', key: `chaos/${known.service.metadata.name}` };
    return this.#chance(0.5) ? [service, ...slices] : [...slices, service];
  }

  /** The same Service with other policies, ports or type; its cluster IPs stay, as the API demands. */
  #changeService(index: number, known: Known): ClusterChange[] {
    const service = this.#service(known.id, known.slot);
    this.#known[index] = { ...known, service };
    return [{ op: 'set', object: service }];
  }

  /** So node ports and external addresses go to a new Service when the old one is gone, and never to two at a time. */
  #freeSlot(): number {
    const used = new Set(this.#known.map(({ slot }) => slot));
    for (let slot = 0; slot < MAX_SERVICES; slot++) if (!used.has(slot)) return slot;
    throw new RangeError(`a random cluster holds at most ${MAX_SERVICES} Services`);
  }

  #service(id: number, slot: number): ApiObject {
    const type = this.#pick([
      'ClusterIP',
      'ClusterIP',
      'ClusterIP',
      'NodePort',
      'NodePort',
      'LoadBalancer',
      'LoadBalancer',
    ]);
    const labels: Record<string, string> = { app: `chaos-${id}` };
    if (this.#chance(0.03)) labels['service.kubernetes.io/service-proxy-name'] = 'other';
    const metadata = { name: `chaos-${id}`, namespace: 'chaos', labels };
    const families = familiesOf(id, this.#options.ipv6 !== false);
    if (this.#chance(0.04)) return { kind: 'Service', apiVersion: 'v1', metadata, ...unservedSpec(this.#chance(0.5)) };
    const clusterIPs = families.map((family) =>
      family === 'IPv4' ? `10.96.${8 + (id >> 8)}.${id & 255}` : `fd00:96::8:${hex(id)}`,
    );
    const spec: Fields = {
      type,
      clusterIP: clusterIPs[0],
      clusterIPs,
      ipFamilies: families,
      ipFamilyPolicy: families.length > 1 ? 'RequireDualStack' : 'SingleStack',
      selector: { app: `chaos-${id}` },
      ports: this.#ports(slot, type !== 'ClusterIP'),
      internalTrafficPolicy: this.#chance(0.15) ? 'Local' : 'Cluster',
      sessionAffinity: 'None',
    };
    this.#addOptional(slot, spec, type, families);
    return {
      kind: 'Service',
      apiVersion: 'v1',
      metadata,
      spec,
      status: { loadBalancer: this.#ingress(slot, type, families) },
    };
  }

  #addOptional(slot: number, spec: Fields, type: string, families: readonly string[]): void {
    if (this.#chance(0.2)) {
      spec['sessionAffinity'] = 'ClientIP';
      spec['sessionAffinityConfig'] = { clientIP: { timeoutSeconds: this.#pick([60, 600, 10800]) } };
    }
    if (this.#chance(0.15)) spec['externalIPs'] = this.#externalIPs(slot, families);
    if (type !== 'ClusterIP' || spec['externalIPs'] !== undefined) {
      spec['externalTrafficPolicy'] = this.#chance(0.3) ? 'Local' : 'Cluster';
    }
    if (type === 'LoadBalancer') {
      spec['allocateLoadBalancerNodePorts'] = true;
      if (spec['externalTrafficPolicy'] === 'Local') spec['healthCheckNodePort'] = 32000 + slot;
      if (this.#chance(0.4)) spec['loadBalancerSourceRanges'] = this.#sourceRanges(families);
    }
    if (this.#chance(0.2))
      spec['trafficDistribution'] = this.#pick(['PreferClose', 'PreferSameNode', 'PreferSameZone']);
  }

  #ports(slot: number, hasNodePorts: boolean): Fields[] {
    const count = 1 + Math.floor(this.#random() * 3);
    const protocols = this.#options.protocols ?? ['TCP', 'TCP', 'UDP', 'SCTP'];
    return Array.from({ length: count }, (_, i) => ({
      ...(count === 1 && this.#chance(0.3) ? {} : { name: `p${i}` }),
      protocol: this.#pick(protocols),
      port: 80 + i,
      targetPort: 8080 + i,
      ...(hasNodePorts ? { nodePort: 30000 + slot * 3 + i } : {}),
    }));
  }

  #externalIPs(slot: number, families: readonly string[]): string[] {
    const host = this.#options.conflicts === true && this.#chance(0.3) ? 7 : 8 + slot;
    const addresses = families.map((family) =>
      family === 'IPv4' ? `198.51.${100 + (host >> 8)}.${host & 255}` : `2001:db8:51::${hex(host)}`,
    );
    return this.#isBad() ? [...addresses, this.#pick(['127.0.0.1', '0.0.0.0', '224.0.0.5', 'not-an-ip'])] : addresses;
  }

  #ingress(slot: number, type: string, families: readonly string[]): Fields {
    if (type !== 'LoadBalancer' || this.#chance(0.1)) return {};
    if (this.#chance(0.1)) return { ingress: [{ hostname: 'lb.example.com' }] };
    const ipMode = this.#chance(0.15) ? 'Proxy' : 'VIP';
    const host = 8 + slot;
    const ip = (family: string): string =>
      family === 'IPv4' ? `203.0.${113 + (host >> 8)}.${host & 255}` : `2001:db8:113::${hex(host)}`;
    return { ingress: families.map((family) => ({ ip: ip(family), ...(this.#chance(0.8) ? { ipMode } : {}) })) };
  }

  #sourceRanges(families: readonly string[]): string[] {
    const all = families.flatMap((family) =>
      family === 'IPv4' ? ['192.0.2.0/24', '198.18.0.0/15', ' 10.128.0.0/9'] : ['2001:db8::/32', 'fd00:10:128::/48'],
    );
    const chosen = all.filter(() => this.#chance(0.6));
    return this.#isBad() ? [...chosen, '300.1.2.3/8'] : chosen;
  }

  /** One to three slices per family; endpoints in every state, sometimes twice, sometimes with hints. */
  #slices(id: number, service: ApiObject): ApiObject[] {
    const spec = service['spec'] as { ports?: { name?: string; protocol: string; targetPort: number }[] };
    if (this.#chance(0.08)) return [];
    return familiesOf(id, this.#options.ipv6 !== false).flatMap((family) => {
      const hasHints = this.#chance(0.3);
      return Array.from({ length: 1 + Math.floor(this.#random() * 3) }, (_, part) => ({
        kind: 'EndpointSlice',
        apiVersion: 'discovery.k8s.io/v1',
        metadata: {
          name: `chaos-${id}-${family.toLowerCase()}-${part}`,
          namespace: 'chaos',
          labels: { 'kubernetes.io/service-name': `chaos-${id}` },
        },
        addressType: family,
        endpoints: Array.from({ length: Math.floor(this.#random() * 5) }, () => this.#endpoint(id, family, hasHints)),
        ports: this.#slicePorts(spec.ports ?? [], part),
      }));
    });
  }

  #slicePorts(ports: readonly { name?: string; protocol: string; targetPort: number }[], part: number): Fields[] {
    const kept = this.#chance(0.05) ? ports.slice(1) : ports;
    return kept.map(({ name = '', protocol, targetPort }) => ({
      name,
      protocol,
      port: targetPort + (part === 2 ? 1000 : 0),
    }));
  }

  #endpoint(id: number, family: string, hasHints: boolean): Fields {
    const node = this.#pick(NODES);
    const host = 2 + Math.floor(this.#random() * 6);
    const block = (id * 4) % 250;
    const nodeNumber = NODES.indexOf(node);
    const address =
      family === 'IPv4'
        ? `10.128.${nodeNumber}.${block + (host % 4)}`
        : `fd00:10:128:${nodeNumber}::${hex(id)}:${hex(host)}`;
    const zone = node === 'node-0' ? 'zone-a' : this.#pick(['zone-a', 'zone-b']);
    return {
      addresses: [this.#isBad() ? 'bad-address' : address],
      conditions: this.#conditions(),
      ...(this.#chance(0.9) ? { nodeName: node } : {}),
      zone,
      ...(hasHints && this.#chance(0.9) ? { hints: this.#hints(zone, node) } : {}),
    };
  }

  #conditions(): Fields {
    const dice = this.#random();
    if (dice < 0.6) return { ready: true, serving: true, terminating: false };
    if (dice < 0.7) return {};
    if (dice < 0.85) return { ready: false, serving: true, terminating: true };
    return { ready: false, serving: false, terminating: this.#chance(0.5) };
  }

  #hints(zone: string, node: string): Fields {
    return { forZones: [{ name: zone }], ...(this.#chance(0.5) ? { forNodes: [{ name: node }] } : {}) };
  }

  #isBad(): boolean {
    return this.#options.badFields === true && this.#chance(0.04);
  }

  #chance(probability: number): boolean {
    return this.#random() < probability;
  }

  #pick<T>(values: readonly T[]): T {
    return values[Math.floor(this.#random() * values.length)]!;
  }
}

/** Every fifth Service is dual-stack, every seventh IPv6 only; decided by the id because cluster IPs never change. */
function familiesOf(id: number, hasIPv6: boolean): string[] {
  if (hasIPv6 && id % 5 === 0) return ['IPv4', 'IPv6'];
  return hasIPv6 && id % 7 === 0 ? ['IPv6'] : ['IPv4'];
}

/** Headless or ExternalName: nothing to program. */
function unservedSpec(isHeadless: boolean): { spec: Fields; status: Fields } {
  const headless = { type: 'ClusterIP', clusterIP: 'None', clusterIPs: ['None'], ports: [] };
  const spec = isHeadless ? headless : { type: 'ExternalName', externalName: 'example.com' };
  return { spec: { ...spec, sessionAffinity: 'None' }, status: { loadBalancer: {} } };
}

function hex(value: number): string {
  return value.toString(16);
}
