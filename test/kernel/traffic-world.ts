/**
 * What the traffic laboratory is made of: pods with servers, and Services as API objects. traffic-cases.ts says what
 * packets must do.
 */
import { type Protocol } from '../../src/values/protocol.js';
import { type PodSpec } from './harness/layout.js';

export const NODE_NAME = 'node-0';
export const ZONE = 'zone-a';
export const TARGET_PORT = 8080;
/** The pods' second server, which answers with `81` behind the pod's name. */
export const SECOND_PORT = 8081;
export const NODE4 = '10.200.0.2';
export const NODE6 = 'fd00:200::2';
export const OTHER4 = '10.200.0.3';
/** The node's second address, and those of its bridge. */
export const SECOND4 = '10.201.0.2';
export const BRIDGE_ADDRESSES = ['10.128.0.1', 'fd00:10:128::1'];
export const SERVICE_PREFIXES = [
  '10.96.0.0/16',
  'fd00:96::/64',
  '192.0.2.0/24',
  'fd00:192::/64',
  '198.51.100.0/24',
  'fd00:198::/64',
  '10.201.0.0/24',
];
export const OUTSIDE4 = '203.0.113.10';
export const OUTSIDE6 = 'fd00:203::10';

/** `client`, `near`, `near2` and `bridged` live on the node under test, the others on the other one. */
export const PODS: readonly (PodSpec & { readonly place: 'node' | 'other' })[] = [
  pod('client', 'node', 10),
  pod('near', 'node', 11),
  pod('near2', 'node', 12),
  pod('far', 'other', 13),
  pod('far2', 'other', 14),
  pod('farclient', 'other', 20),
  { ...pod('bridged', 'node', 30), link: 'bridge' },
];

function pod(name: string, place: 'node' | 'other', number: number): PodSpec & { place: 'node' | 'other' } {
  const prefixes = place === 'node' ? ['10.128.0.', 'fd00:10:128::'] : ['10.128.1.', 'fd00:10:128:1::'];
  return { name, place, addresses: prefixes.map((prefix) => `${prefix}${number}`) };
}

/** A pod's address of the family of `like`. */
export function podAddress(name: string, family: 4 | 6): string {
  return PODS.find((one) => one.name === name)!.addresses[family === 4 ? 0 : 1]!;
}

export interface EndpointSpec {
  /** A pod, or an address pair of a host-network endpoint. */
  readonly pod?: string;
  readonly host?: { readonly addresses: readonly [string, string]; readonly node: string; readonly port: number };
  readonly ready?: boolean;
  readonly serving?: boolean;
  readonly terminating?: boolean;
  readonly forZones?: readonly string[];
  readonly forNodes?: readonly string[];
}

export interface PortSpec {
  readonly name: string;
  /** TCP when left out. */
  readonly protocol?: Protocol;
  readonly port: number;
  /** What the EndpointSlices say; TARGET_PORT when left out. */
  readonly target?: number;
  /** nodePort(number) when left out. */
  readonly nodePort?: number;
}

/** One EndpointSlice per family: its port numbers by port name. */
export interface SliceSpec {
  readonly ports: Readonly<Record<string, number>>;
  readonly endpoints: readonly (string | EndpointSpec)[];
}

export interface ServiceSpec {
  /** Its cluster IPs are 10.96.0.N and fd00:96::N (N in decimal digits). */
  readonly number: number;
  readonly name: string;
  readonly endpoints: readonly (string | EndpointSpec)[];
  readonly type?: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName';
  readonly protocols?: readonly Protocol[];
  readonly port?: number;
  /** Instead of `protocols` and `port`. */
  readonly ports?: readonly PortSpec[];
  /** Instead of `endpoints`, which are all in one slice per family. */
  readonly slices?: readonly SliceSpec[];
  readonly labels?: Readonly<Record<string, string>>;
  /** Of its EndpointSlices, besides the Service's name. */
  readonly sliceLabels?: Readonly<Record<string, string>>;
  /** Single-stack, or dual-stack in this order; IPv4 and IPv6 when left out. */
  readonly families?: readonly (4 | 6)[];
  /** allocateLoadBalancerNodePorts: false. */
  readonly withoutNodePorts?: boolean;
  readonly externalIPs?: readonly string[];
  readonly loadBalancerIPs?: readonly string[];
  readonly sourceRanges?: readonly string[];
  readonly externalLocal?: boolean;
  readonly internalLocal?: boolean;
  readonly affinitySeconds?: number;
}

export const clusterIP = (number: number, family: 4 | 6): string =>
  family === 4 ? `10.96.0.${number}` : `fd00:96::${number}`;
export const loadBalancerIP = (number: number, family: 4 | 6): string =>
  family === 4 ? `192.0.2.${number}` : `fd00:192::${number}`;
export const externalIP = (number: number, family: 4 | 6): string =>
  family === 4 ? `198.51.100.${number}` : `fd00:198::${number}`;
export const nodePort = (number: number): number => 30000 + number;
export const healthPort = (number: number): number => 32000 + number;

const loadBalanced = (number: number): Pick<ServiceSpec, 'type' | 'loadBalancerIPs'> => ({
  type: 'LoadBalancer',
  loadBalancerIPs: [loadBalancerIP(number, 4), loadBalancerIP(number, 6)],
});
const exposed = (number: number): Pick<ServiceSpec, 'type' | 'loadBalancerIPs' | 'externalIPs'> => ({
  ...loadBalanced(number),
  externalIPs: [externalIP(number, 4), externalIP(number, 6)],
});

const ALL: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];
const BOTH = ['near', 'far'];

/** Backends on the nodes' own networks. */
const HOST: EndpointSpec = { host: { addresses: [NODE4, NODE6], node: NODE_NAME, port: 9022 } };
const OTHER_HOST: EndpointSpec = { host: { addresses: [OTHER4, 'fd00:200::3'], node: 'node-1', port: 9023 } };
const terminating = (name: string): EndpointSpec => ({ pod: name, ready: false, serving: true, terminating: true });

export const SERVICES: readonly ServiceSpec[] = [
  { number: 1, name: 'basic', endpoints: BOTH, protocols: ALL },
  { number: 2, name: 'self', endpoints: ['client'], protocols: ALL, type: 'NodePort' },
  { number: 3, name: 'node-port', endpoints: BOTH, type: 'NodePort', protocols: ALL },
  { number: 4, name: 'exposed', endpoints: BOTH, ...exposed(4), protocols: ALL },
  { number: 6, name: 'external-local', endpoints: BOTH, ...exposed(6), protocols: ['TCP', 'UDP'], externalLocal: true },
  {
    number: 7,
    name: 'external-local-remote',
    endpoints: ['far'],
    protocols: ['TCP', 'UDP'],
    ...exposed(7),
    externalLocal: true,
  },
  { number: 8, name: 'internal-local', endpoints: BOTH, internalLocal: true },
  { number: 9, name: 'internal-local-remote', endpoints: ['far'], internalLocal: true },
  {
    number: 10,
    name: 'both-local-remote',
    endpoints: ['far'],
    ...exposed(10),
    internalLocal: true,
    externalLocal: true,
  },
  {
    number: 11,
    name: 'ranges-outside',
    endpoints: BOTH,
    protocols: ['TCP', 'UDP'],
    ...loadBalanced(11),
    sourceRanges: ['203.0.113.0/24', 'fd00:203::/64'],
  },
  {
    number: 12,
    name: 'ranges-inside',
    endpoints: BOTH,
    ...loadBalanced(12),
    sourceRanges: ['10.128.0.0/24', 'fd00:10:128::/64', `${NODE4}/32`, `${NODE6}/128`],
  },
  { number: 13, name: 'shares-restricted-ip', endpoints: BOTH, ...loadBalanced(11), port: 8013 },
  { number: 14, name: 'affinity', endpoints: BOTH, affinitySeconds: 600 },
  { number: 15, name: 'no-endpoints', endpoints: [], ...exposed(15), protocols: ['TCP', 'UDP'] },
  { number: 16, name: 'not-ready', endpoints: [{ pod: 'near', ready: false, serving: false }] },
  {
    number: 17,
    name: 'terminating-only',
    endpoints: [{ pod: 'near', ready: false, serving: true, terminating: true }],
  },
  {
    number: 18,
    name: 'zone-hints',
    endpoints: [
      { pod: 'near', forZones: [ZONE] },
      { pod: 'far', forZones: ['zone-b'] },
    ],
  },
  {
    number: 19,
    name: 'node-hints',
    endpoints: [
      { pod: 'near', forNodes: ['node-1'] },
      { pod: 'far', forNodes: [NODE_NAME] },
    ],
  },
  { number: 20, name: 'external-ip-is-node', endpoints: BOTH, port: 8020, externalIPs: [NODE4, NODE6] },
  {
    number: 21,
    name: 'lb-ip-is-node',
    endpoints: BOTH,
    type: 'LoadBalancer',
    port: 8021,
    loadBalancerIPs: [NODE4, NODE6],
  },
  { number: 22, name: 'host-network', endpoints: [HOST], type: 'NodePort', protocols: ['TCP', 'UDP'] },
  { number: 23, name: 'host-network-remote', endpoints: [OTHER_HOST], type: 'NodePort', protocols: ['TCP', 'UDP'] },
  {
    number: 24,
    name: 'ranges-hold-vip',
    endpoints: BOTH,
    ...loadBalanced(24),
    sourceRanges: ['192.0.2.0/24', 'fd00:192::/64'],
  },
  {
    number: 25,
    name: 'mixed-ready',
    endpoints: ['near', { pod: 'far', ready: false, serving: true, terminating: true }],
  },
  { number: 26, name: 'self-bridged', endpoints: ['bridged'] },
  { number: 27, name: 'ranges-ipv4', endpoints: BOTH, ...loadBalanced(27), sourceRanges: ['203.0.113.0/24'] },
  {
    number: 28,
    name: 'ranges-open-ipv6',
    endpoints: BOTH,
    ...loadBalanced(28),
    sourceRanges: ['10.128.0.0/24', 'fd00:203::/64', '::/0'],
  },
  { number: 29, name: 'ranges-bad', endpoints: BOTH, ...loadBalanced(29), sourceRanges: ['10.0.0.0/33', 'everybody'] },
  {
    number: 30,
    name: 'terminating-exposed',
    endpoints: BOTH.map(terminating),
    ...exposed(30),
    protocols: ['TCP', 'UDP'],
  },
  {
    number: 31,
    name: 'terminating-local',
    endpoints: [...BOTH.map(terminating), 'far2'],
    ...exposed(31),
    protocols: ['TCP', 'UDP'],
    externalLocal: true,
  },
  { number: 32, name: 'terminating-internal-local', endpoints: [terminating('near'), 'far'], internalLocal: true },
  {
    number: 33,
    name: 'terminating-unready',
    endpoints: [{ pod: 'near', ready: false, serving: false, terminating: true }],
    type: 'NodePort',
    protocols: ['TCP', 'UDP'],
  },
  {
    number: 34,
    name: 'terminating-published',
    endpoints: [{ pod: 'near', ready: true, serving: false, terminating: true }],
    type: 'NodePort',
  },
  {
    number: 35,
    name: 'affinity-exposed',
    endpoints: BOTH,
    ...exposed(35),
    affinitySeconds: 600,
    protocols: ['TCP', 'UDP'],
  },
  {
    number: 36,
    name: 'affinity-local',
    endpoints: ['near', 'near2', 'far'],
    ...exposed(36),
    affinitySeconds: 600,
    externalLocal: true,
  },
  {
    number: 37,
    name: 'host-network-internal-local',
    endpoints: [HOST, OTHER_HOST],
    internalLocal: true,
    slices: [
      { ports: { tcp: 9022 }, endpoints: [HOST] },
      { ports: { tcp: 9023 }, endpoints: [OTHER_HOST] },
    ],
  },
  {
    number: 38,
    name: 'many-slices',
    endpoints: [],
    type: 'NodePort',
    ports: [
      { name: 'http', port: 80 },
      { name: 'admin', port: 81, nodePort: 30138 },
    ],
    // The same names, other numbers; one address in two slices.
    slices: [
      { ports: { http: TARGET_PORT, admin: SECOND_PORT }, endpoints: ['near'] },
      { ports: { http: SECOND_PORT, admin: TARGET_PORT }, endpoints: ['far'] },
      { ports: { http: TARGET_PORT }, endpoints: ['near', 'near2'] },
    ],
  },
  {
    number: 39,
    name: 'port-per-slice',
    endpoints: [],
    ports: [
      { name: 'http', port: 80 },
      { name: 'admin', port: 81 },
      { name: 'nowhere', port: 82 },
    ],
    slices: [
      { ports: { http: TARGET_PORT }, endpoints: ['near'] },
      { ports: { admin: SECOND_PORT }, endpoints: ['far', 'near2'] },
    ],
  },
  { number: 46, name: 'single-ipv4', endpoints: BOTH, type: 'NodePort', protocols: ['TCP', 'UDP'], families: [4] },
  { number: 47, name: 'single-ipv6', endpoints: BOTH, type: 'NodePort', protocols: ['TCP', 'UDP'], families: [6] },
  { number: 48, name: 'ipv6-first', endpoints: BOTH, type: 'NodePort', protocols: ['TCP', 'UDP'], families: [6, 4] },
];
