import { type Address, FAMILIES, type Family, isServable, parseAddress } from '../values/address.js';
import { type Prefix, hostPrefix, parsePrefix, prefixFamily } from '../values/prefix.js';
import { exact } from '../values/exact.js';
import { type Protocol, isProtocol } from '../values/protocol.js';
import { names } from './intern.js';
import {
  type JsonObject,
  type Report,
  asArray,
  asInteger,
  asObject,
  asString,
  boundedReport,
  objectMeta,
  shown,
} from './json.js';

/** One entry of Service.spec.ports; `nodePort` is 0 when none is allocated. */
export interface ServicePort {
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
  readonly nodePort: number;
}

/** What of a Service decides packets; everything else of the API object is dropped as it is parsed. */
export interface Service {
  /** `namespace/name` */
  readonly key: string;
  /** Creation time in seconds since the epoch: the older Service wins an address and port that two claim. */
  readonly createdAt: number;
  readonly clusterIPs: readonly Address[];
  readonly externalIPs: readonly Address[];
  /** Ingress addresses whose ipMode is VIP (KEP-1860). */
  readonly loadBalancerIPs: readonly Address[];
  readonly loadBalancerSourceRanges: readonly Prefix[];
  /** ClientIP affinity timeout in seconds; 0 for none. */
  readonly affinitySeconds: number;
  readonly externalLocal: boolean;
  readonly internalLocal: boolean;
  /** 0 unless the Service is a LoadBalancer with externalTrafficPolicy Local. */
  readonly healthCheckNodePort: number;
  readonly ports: readonly ServicePort[];
}

/** True when both mean the same for traffic. */
export function isSameService(one: Service, other: Service): boolean {
  return (
    one.key === other.key &&
    one.createdAt === other.createdAt &&
    one.affinitySeconds === other.affinitySeconds &&
    one.externalLocal === other.externalLocal &&
    one.internalLocal === other.internalLocal &&
    one.healthCheckNodePort === other.healthCheckNodePort &&
    isSameList(one.clusterIPs, other.clusterIPs) &&
    isSameList(one.externalIPs, other.externalIPs) &&
    isSameList(one.loadBalancerIPs, other.loadBalancerIPs) &&
    isSameList(one.loadBalancerSourceRanges, other.loadBalancerSourceRanges, isSamePrefix) &&
    isSameList(one.ports, other.ports, isSamePort)
  );
}

function isSamePrefix(one: Prefix, other: Prefix): boolean {
  return one.address === other.address && one.bits === other.bits;
}

function isSamePort(one: ServicePort, other: ServicePort): boolean {
  return (
    one.name === other.name &&
    one.protocol === other.protocol &&
    one.port === other.port &&
    one.nodePort === other.nodePort
  );
}

function isSameList<T>(
  one: readonly T[],
  other: readonly T[],
  isSame: (a: T, b: T) => boolean = (a, b) => a === b,
): boolean {
  return one.length === other.length && one.every((item, i) => isSame(item, other[i]!));
}

/** The most external IPs, and the most load balancer addresses, of one Service; the API has no limit of its own. */
export const MAX_ADDRESSES = 256;

/** The Service by which Pods reach the API server. */
export const API_SERVER_SERVICE = 'default/kubernetes';

const NONE: readonly never[] = [];

/**
 * Trims a Service to what decides packets. Returns undefined for what kube-proxy does not serve either (headless,
 * ExternalName, no cluster IP) and for objects without a usable identity; each bad field is reported and left out
 * alone.
 */
export function parseService(object: unknown, reportAll: Report): Service | undefined {
  const report = boundedReport(reportAll);
  const root = asObject(object) ?? {};
  const meta = objectMeta(root, report);
  const spec = asObject(root['spec']);
  if (meta === undefined) return undefined;
  if (spec === undefined) {
    report('spec is missing');
    return undefined;
  }
  const type = asString(spec['type']) || 'ClusterIP';
  const clusterIP = asString(spec['clusterIP']);
  if (type === 'ExternalName' || clusterIP === 'None' || clusterIP === '') return undefined;
  const clusterIPs = addresses(asArray(spec['clusterIPs'] ?? [clusterIP]), 'spec.clusterIPs', report);
  const externalIPs = addresses(asArray(spec['externalIPs']), 'spec.externalIPs', report);
  const isExternal = type === 'LoadBalancer' || type === 'NodePort' || externalIPs.length > 0;
  const externalLocal = isExternal && spec['externalTrafficPolicy'] === 'Local';
  return {
    key: names.intern(meta.key),
    createdAt: Math.floor((Date.parse(asString(meta.metadata['creationTimestamp'])) || 0) / 1000),
    clusterIPs,
    externalIPs,
    loadBalancerIPs: loadBalancerAddresses(root, report),
    loadBalancerSourceRanges: sourceRanges(spec, report),
    affinitySeconds: affinitySeconds(spec, report),
    externalLocal,
    internalLocal: spec['internalTrafficPolicy'] === 'Local',
    healthCheckNodePort:
      type === 'LoadBalancer' && externalLocal ? (asInteger(spec['healthCheckNodePort'], 1, 65535) ?? 0) : 0,
    ports: servicePorts(spec, report),
  };
}

function addresses(values: readonly unknown[], path: string, report: Report): readonly Address[] {
  if (values.length === 0) return NONE;
  const parsed = new Set<Address>();
  for (const value of values) {
    const address = serviceAddress(value);
    if (address === undefined) report(`${path}: ${shown(value)} is not a usable unicast IP address`);
    else parsed.add(address);
  }
  if (parsed.size > MAX_ADDRESSES)
    report(`${path}: ${parsed.size - MAX_ADDRESSES} of ${parsed.size} addresses are left out`);
  return [...parsed].slice(0, MAX_ADDRESSES);
}

/** A VIP bound to kube-ipvs0 becomes the node's own address: loopback, multicast and such must never get there. */
function serviceAddress(value: unknown): Address | undefined {
  const address = parseAddress(asString(value));
  return address !== undefined && isServable(address) ? address : undefined;
}

function loadBalancerAddresses(root: JsonObject, report: Report): readonly Address[] {
  const ingress = asArray(asObject(asObject(root['status'])?.['loadBalancer'])?.['ingress']);
  const wanted = ingress.map((entry) => asObject(entry) ?? {}).filter((entry) => asString(entry['ip']) !== '');
  const vips = wanted.filter((entry) => (entry['ipMode'] ?? 'VIP') === 'VIP');
  return addresses(
    vips.map((entry) => entry['ip']),
    'status.loadBalancer.ingress',
    report,
  );
}

function sourceRanges(spec: JsonObject, report: Report): readonly Prefix[] {
  const values = asArray(spec['loadBalancerSourceRanges']);
  if (values.length === 0) return NONE;
  const parsed: Prefix[] = [];
  const bad: string[] = [];
  for (const value of values) {
    const text = asString(value).trim(); // the API server's validation trims too
    const bare = parseAddress(text);
    const prefix = bare === undefined ? parsePrefix(text) : hostPrefix(bare);
    if (prefix !== undefined) parsed.push(prefix);
    else {
      report(`spec.loadBalancerSourceRanges: ${shown(value)} is not a CIDR`);
      bad.push(text);
    }
  }
  return bad.length === 0 ? parsed : [...parsed, ...FAMILIES.filter(isClosed).map((family) => UNREACHABLE[family])];

  /** Every range bad must not mean "open to all": an impossible range keeps the restriction of the family in force. */
  function isClosed(family: Family): boolean {
    if (parsed.some((prefix) => prefixFamily(prefix) === family)) return false;
    return parsed.length === 0 || bad.some((text) => familyMeant(text) === family);
  }
}

function familyMeant(text: string): Family | undefined {
  if (text.includes(':')) return 6;
  return text.includes('.') ? 4 : undefined;
}

const UNREACHABLE: Readonly<Record<Family, Prefix>> = { 4: parsePrefix('0.0.0.0/32')!, 6: parsePrefix('::/128')! };

/** API default 10800 s (v1.DefaultClientIPServiceAffinitySeconds), at most a day as the API's validation has it. */
function affinitySeconds(spec: JsonObject, report: Report): number {
  if (spec['sessionAffinity'] !== 'ClientIP') return 0;
  const value = asObject(asObject(spec['sessionAffinityConfig'])?.['clientIP'])?.['timeoutSeconds'] ?? 10800;
  const seconds = asInteger(value, 1, 86400);
  if (seconds === undefined) report(`sessionAffinityConfig.clientIP.timeoutSeconds: ${shown(value)} is not 1..86400`);
  return seconds ?? 10800;
}

function servicePorts(spec: JsonObject, report: Report): readonly ServicePort[] {
  const ports: ServicePort[] = [];
  for (const value of asArray(spec['ports'])) {
    const entry = asObject(value) ?? {};
    const protocol = entry['protocol'] ?? 'TCP';
    const port = asInteger(entry['port'], 1, 65535);
    const nodePort = asInteger(entry['nodePort'] ?? 0, 0, 65535);
    if (!isProtocol(protocol)) report(`spec.ports: unknown protocol ${shown(protocol)}`);
    else if (port === undefined) report(`spec.ports: port ${shown(entry['port'])} is not 1..65535`);
    else if (nodePort === undefined) report(`spec.ports: nodePort ${shown(entry['nodePort'])} is not 0..65535`);
    else ports.push({ name: names.intern(asString(entry['name'])), protocol, port, nodePort });
  }
  if (ports.length === 0) report('spec.ports: no usable port');
  return exact(ports);
}
