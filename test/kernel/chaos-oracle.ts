/**
 * What the kernel must hold for a cluster, computed a second time straight from the raw API objects and kube-proxy's
 * documented rules, as text that ipvsadm(8), ipset(8) and ip(8) print. On purpose it uses nothing of src/model and
 * src/desired: a mistake there must not cancel itself out here.
 */
import { isIP, isIPv4, isIPv6 } from 'node:net';
import { type Chosen, chooseEndpoints } from './chaos-oracle-endpoints.js';

/** An object as the API server holds it. */
export interface RawObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly creationTimestamp?: string;
  };
  readonly [field: string]: unknown;
}

export interface OracleInput {
  readonly services: readonly RawObject[];
  readonly slices: readonly RawObject[];
  readonly nodeName: string;
  readonly zone: string;
  /** InternalIPs of the Node object. */
  readonly nodeIPs: readonly string[];
  /** Addresses of the node's interfaces other than kube-ipvs0, without prefix length. */
  readonly localAddresses: readonly string[];
  /** Of the configuration: `rr`. */
  readonly scheduler: string;
  /** Rules in nf_tables: a source range inside another of the same Service is left out, the wider one covers it. */
  readonly widestRangesOnly?: boolean;
}

/** `-t 10.96.0.1:443` to options and real servers (`10.200.0.1:6443`); addresses and set elements as text. */
export interface Expected {
  readonly servers: Map<string, { options: string; reals: Set<string> }>;
  readonly addresses: Set<string>;
  readonly sets: Map<string, Set<string>>;
}

export interface RawPort {
  readonly name?: string;
  readonly protocol?: string;
  readonly port: number;
  readonly nodePort?: number;
}

interface RawSpec {
  readonly type?: string;
  readonly clusterIP?: string;
  readonly clusterIPs?: readonly string[];
  readonly externalIPs?: readonly string[];
  readonly ports?: readonly RawPort[];
  readonly externalTrafficPolicy?: string;
  readonly internalTrafficPolicy?: string;
  readonly sessionAffinity?: string;
  readonly sessionAffinityConfig?: { clientIP?: { timeoutSeconds?: number } };
  readonly loadBalancerSourceRanges?: readonly string[];
  readonly healthCheckNodePort?: number;
}

interface Exposure {
  readonly kind: 'clusterIP' | 'externalIP' | 'loadBalancer' | 'nodePort';
  readonly address: string;
  readonly port: number;
}

/** One Service port in one family, with all that decides it. */
interface PortFacts {
  readonly family: 4 | 6;
  readonly spec: RawSpec;
  readonly port: RawPort;
  readonly protocol: string;
  readonly exposures: readonly Exposure[];
  readonly chosen: Chosen;
  readonly externalLocal: boolean;
  readonly internalLocal: boolean;
}

const OPTION: Readonly<Record<string, string>> = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' };
/**
 * kube-proxy sets mh-port; the fallback keeps both hashing schedulers from dropping what hashes to a draining backend.
 */
const SCHEDULER_FLAGS: Readonly<Record<string, string>> = { mh: ' -b mh-fallback,mh-port', sh: ' -b sh-fallback' };
/**
 * What kube-proxy 1.36 leaves out (cmd/kube-proxy/app/server.go): slices and Services are selected by different labels.
 */
const UNSELECTED_SLICE = 'service.kubernetes.io/headless';
const UNSELECTED_SERVICE = 'service.kubernetes.io/service-proxy-name';

export function expectedState(input: OracleInput): Expected {
  return new Oracle(input).compute();
}

const canonicalForms = new Map<string, string | undefined>();

/** RFC 5952 for IPv6, as it is for IPv4; undefined for what is no unicast address that a VIP or endpoint may have. */
export function canonical(text: string): string | undefined {
  if (!canonicalForms.has(text)) canonicalForms.set(text, canonicalForm(text));
  return canonicalForms.get(text);
}

function canonicalForm(text: string): string | undefined {
  if (isIPv4(text)) return /^(127|0|22[4-9]|23\d)\.|^255\.255\.255\.255$/.test(text) ? undefined : text;
  if (!isIPv6(text)) return undefined;
  const address = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  return address === '::' || address === '::1' || /^(ff..|fe[89ab].):/.test(address) ? undefined : address;
}

export function hostPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

class Oracle {
  readonly expected: Expected = { servers: new Map(), addresses: new Set(), sets: new Map() };
  readonly #owners = new Map<string, { facts: PortFacts; sort: string }>();
  /** Cluster IPs and the Services that have them. */
  readonly #clusterIPs = new Map<string, string[]>();
  readonly #slicesOf = new Map<string, RawObject[]>();
  readonly #local: ReadonlySet<string>;

  constructor(readonly input: OracleInput) {
    this.#local = new Set(input.localAddresses);
    const slices = input.slices
      .filter(({ metadata }) => metadata.labels?.[UNSELECTED_SLICE] === undefined)
      .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
    for (const slice of slices) {
      const service = `${slice.metadata.namespace}/${slice.metadata.labels?.['kubernetes.io/service-name']}`;
      this.#slicesOf.set(service, [...(this.#slicesOf.get(service) ?? []), slice]);
    }
  }

  compute(): Expected {
    const services = this.input.services.filter(isServed);
    const facts = services.map((service) => ({ service, ports: this.#ports(service) }));
    for (const { service, ports } of facts)
      for (const { kind, address } of ports.flatMap(({ exposures }) => exposures))
        if (kind === 'clusterIP')
          this.#clusterIPs.set(address, [...(this.#clusterIPs.get(address) ?? []), keyOf(service)]);
    for (const { service, ports } of facts) this.#claim(service, ports);
    for (const { service, ports } of facts) for (const port of ports) this.#add(service, port);
    return this.expected;
  }

  /**
   * Issue 8, C3: what the control plane allocates beats what a tenant writes, so cluster IP, NodePort, load balancer,
   * external IP in this order; then the older Service, then the first by name, then its first port. An external IP that
   * is the cluster IP of another Service is void, whatever the port.
   */
  #claim(service: RawObject, ports: readonly PortFacts[]): void {
    for (const facts of ports) {
      const { protocol, exposures } = facts;
      for (const { kind, address, port } of exposures) {
        if (this.#isVoid(service, kind, address)) continue;
        const name = serverName(protocol, address, port);
        const rank = ['clusterIP', 'nodePort', 'loadBalancer', 'externalIP'].indexOf(kind);
        const sort = `${rank} ${service.metadata.creationTimestamp ?? ''} ${keyOf(service)}`;
        const owner = this.#owners.get(name);
        if (owner === undefined || sort < owner.sort) this.#owners.set(name, { facts, sort });
      }
    }
  }

  #isVoid(service: RawObject, kind: Exposure['kind'], address: string): boolean {
    const owners = this.#clusterIPs.get(address) ?? [];
    return kind === 'externalIP' && owners.length > 0 && !owners.includes(keyOf(service));
  }

  #ports(service: RawObject): PortFacts[] {
    const spec = service['spec'] as RawSpec;
    const clusterIPs = usable(spec.clusterIPs ?? [spec.clusterIP ?? '']);
    const isExternalType = spec.type === 'NodePort' || spec.type === 'LoadBalancer';
    const externalLocal =
      spec.externalTrafficPolicy === 'Local' && (isExternalType || (spec.externalIPs ?? []).length > 0);
    const internalLocal = spec.internalTrafficPolicy === 'Local';
    const slices = this.#slicesOf.get(keyOf(service)) ?? [];
    return ([4, 6] as const).flatMap((family) => {
      const clusterIP = clusterIPs.find((address) => isOf(family, address));
      if (clusterIP === undefined) return [];
      return (spec.ports ?? []).map((port) => {
        const exposures = this.#exposures(service, port, family, clusterIP);
        const isExternal = exposures.some(({ kind }) => kind !== 'clusterIP') || (port.nodePort ?? 0) > 0;
        const use = { cluster: !internalLocal || isExternal, local: internalLocal || (externalLocal && isExternal) };
        const chosen = chooseEndpoints(slices, family, port, use, this.input);
        const protocol = port.protocol ?? 'TCP';
        return { family, spec, port, protocol, exposures, chosen, externalLocal, internalLocal };
      });
    });
  }

  #exposures(service: RawObject, port: RawPort, family: 4 | 6, clusterIP: string): Exposure[] {
    const spec = service['spec'] as RawSpec;
    const ingress =
      (service['status'] as { loadBalancer?: { ingress?: { ip?: string; ipMode?: string }[] } } | undefined)
        ?.loadBalancer?.ingress ?? [];
    const balancers = ingress.filter(({ ip, ipMode = 'VIP' }) => ip !== undefined && ipMode === 'VIP');
    const at =
      (kind: Exposure['kind'], number: number) =>
      (address: string): Exposure => ({ kind, address, port: number });
    const ofFamily = (texts: readonly string[]): string[] => usable(texts).filter((address) => isOf(family, address));
    const nodePort = port.nodePort ?? 0;
    return [
      at('clusterIP', port.port)(clusterIP),
      ...ofFamily(spec.externalIPs ?? []).map(at('externalIP', port.port)),
      ...ofFamily(balancers.map(({ ip }) => ip!)).map(at('loadBalancer', port.port)),
      ...(nodePort > 0 ? this.#nodeAddresses(family).map(at('nodePort', nodePort)) : []),
    ];
  }

  #nodeAddresses(family: 4 | 6): string[] {
    return this.input.localAddresses.filter(
      (address) => isOf(family, address) && !/^(127\.|::1$|fe[89ab].:)/.test(address),
    );
  }

  #add(service: RawObject, facts: PortFacts): void {
    const { chosen, protocol, spec } = facts;
    const persistence = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? 10800;
    const options =
      `-s ${this.input.scheduler}` +
      (spec.sessionAffinity === 'ClientIP' ? ` -p ${persistence}` : '') +
      (SCHEDULER_FLAGS[this.input.scheduler] ?? '');
    const owned = facts.exposures.filter(({ kind, address, port }) => {
      return (
        !this.#isVoid(service, kind, address) && this.#owners.get(serverName(protocol, address, port))?.facts === facts
      );
    });
    for (const exposure of owned) {
      const { kind, address, port } = exposure;
      const isLocal = kind === 'clusterIP' ? facts.internalLocal : facts.externalLocal;
      const reals = isLocal && chosen.local.length > 0 ? chosen.local : chosen.cluster;
      const name = serverName(protocol, address, port);
      if (!this.expected.servers.has(name)) this.expected.servers.set(name, { options, reals: new Set(reals) });
      if (kind !== 'nodePort' && !this.#local.has(address)) {
        this.expected.addresses.add(address);
        this.#element(facts, 'IPVS-IPS', address);
      }
      this.#exposureElements(facts, exposure);
    }
    for (const { address, port } of chosen.here)
      this.#element(facts, 'LOOP-BACK', `${address},${protocol.toLowerCase()}:${port},${address}`);
    if (spec.type === 'LoadBalancer' && facts.externalLocal && (spec.healthCheckNodePort ?? 0) > 0)
      this.#element(facts, 'HEALTH-CHECK-NODE-PORT', String(spec.healthCheckNodePort));
  }

  #exposureElements(facts: PortFacts, { kind, address, port }: Exposure): void {
    const { chosen, externalLocal, internalLocal, protocol } = facts;
    const element = `${address},${protocol.toLowerCase()}:${port}`;
    const hasAny = chosen.cluster.length > 0 || chosen.local.length > 0;
    const lacksLocal = (kind === 'clusterIP' ? internalLocal : externalLocal) && chosen.local.length === 0;
    if (kind === 'clusterIP') {
      this.#element(facts, 'CLUSTER-IP', element);
      if (!hasAny || lacksLocal) this.#element(facts, 'NO-ENDPOINTS', element);
      if (lacksLocal && chosen.cluster.length > 0) this.#element(facts, 'NO-LOCAL-ENDPOINTS', element);
      return;
    }
    if (kind === 'externalIP') this.#element(facts, externalLocal ? 'EXTERNAL-IP-LOCAL' : 'EXTERNAL-IP', element);
    if (kind === 'loadBalancer') this.#balancerElements(facts, address, element);
    if (kind === 'nodePort') this.#nodePortElements(facts, String(port), element);
    if (!hasAny) this.#element(facts, 'NO-ENDPOINTS', element);
    else if (lacksLocal) this.#element(facts, 'NO-LOCAL-ENDPOINTS', element);
  }

  #nodePortElements(facts: PortFacts, port: string, element: string): void {
    const isSctp = facts.protocol === 'SCTP';
    const suffix = isSctp ? 'SCTP-HASH' : facts.protocol;
    this.#element(facts, `NODE-PORT-${suffix}`, isSctp ? element : port);
    if (facts.externalLocal) this.#element(facts, `NODE-PORT-LOCAL-${suffix}`, isSctp ? element : port);
  }

  /**
   * pkg/proxy/serviceport.go: a family without ranges is open, and so is one with /0. A difference of ours: where no
   * range of a family can be read though one seems to be meant for it, or none at all, nobody is let in (the
   * unspecified address is nobody's).
   */
  #balancerElements(facts: PortFacts, address: string, element: string): void {
    this.#element(facts, 'LOAD-BALANCER', element);
    if (facts.externalLocal) this.#element(facts, 'LOAD-BALANCER-LOCAL', element);
    const given = (facts.spec.loadBalancerSourceRanges ?? []).map((range) => range.trim());
    const good = given.filter((range) => isIP(range.split('/')[0]!) !== 0);
    const bad = given.filter((range) => !good.includes(range));
    let ranges = good.filter((range) => isOf(facts.family, range.split('/')[0]!));
    const isMeant = bad.some((range) => (facts.family === 6 ? range.includes(':') : /^[^:]*[.][^:]*$/.test(range)));
    if (ranges.length === 0 && bad.length > 0 && (good.length === 0 || isMeant))
      ranges = [facts.family === 4 ? '0.0.0.0/32' : '::/128'];
    if (ranges.length === 0 || ranges.some((range) => range.endsWith('/0'))) return;
    this.#element(facts, 'LOAD-BALANCER-FW', element);
    const listed = this.input.widestRangesOnly === true ? widest(ranges) : ranges;
    for (const range of listed)
      this.#element(
        facts,
        'LOAD-BALANCER-SOURCE-CIDR',
        `${element},${range.replace(facts.family === 4 ? /\/32$/ : /\/128$/, '')}`,
      );
    const nodeIP = this.input.nodeIPs.find((candidate) => isOf(facts.family, candidate));
    if (nodeIP !== undefined && ranges.some((range) => isInside(nodeIP, range)))
      this.#element(facts, 'LOAD-BALANCER-SOURCE-IP', `${element},${address}`);
  }

  #element({ family }: PortFacts, role: string, element: string): void {
    const name = `${family === 4 ? 'KUBE-' : 'KUBE-6-'}${role}`.slice(0, 31);
    const elements = this.expected.sets.get(name);
    if (elements === undefined) this.expected.sets.set(name, new Set([element]));
    else elements.add(element);
  }
}

/** The API server's label selector, and what is never served: headless and ExternalName. */
function isServed(service: RawObject): boolean {
  const { type, clusterIP = '' } = service['spec'] as RawSpec;
  const isSelected = service.metadata.labels?.[UNSELECTED_SERVICE] === undefined;
  return isSelected && type !== 'ExternalName' && clusterIP !== '' && clusterIP !== 'None';
}

function keyOf({ metadata }: RawObject): string {
  return `${metadata.namespace}/${metadata.name}`;
}

function serverName(protocol: string, address: string, port: number): string {
  return `${OPTION[protocol]} ${hostPort(address, port)}`;
}

function usable(texts: readonly string[]): string[] {
  return texts.map(canonical).filter((address) => address !== undefined);
}

function isOf(family: 4 | 6, address: string): boolean {
  return family === 4 ? isIPv4(address) : isIPv6(address);
}

function isInside(address: string, range: string): boolean {
  const [network = '', bits] = range.split('/');
  const shift = BigInt((isIPv4(address) ? 32 : 128) - Number(bits));
  return numberOf(address) >> shift === numberOf(network) >> shift;
}

/** Without those that are inside another; of equal ones the first. */
function widest(ranges: readonly string[]): string[] {
  const bits = (range: string): number => Number(range.split('/')[1] ?? (isIPv4(range) ? 32 : 128));
  return ranges.filter(
    (range, i) =>
      !ranges.some(
        (other, j) =>
          isInside(range.split('/')[0]!, other) &&
          (bits(other) < bits(range) || (bits(other) === bits(range) && j < i)),
      ),
  );
}

function numberOf(address: string): bigint {
  if (isIPv4(address)) return address.split('.').reduce((sum, octet) => sum * 256n + BigInt(octet), 0n);
  const [head = '', tail] = address.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return groups.reduce((sum, group) => sum * 65536n + BigInt(`0x${group}`), 0n);
}
