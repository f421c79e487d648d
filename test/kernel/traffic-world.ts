/**
 * What the traffic laboratory is made of: pods with servers, and Services as API objects. traffic-cases.ts says what
 * packets must do.
 */
import { type Protocol } from '../../src/values/protocol.js';
import { type PodSpec } from './harness/layout.js';

export const NODE_NAME = 'node-0';
export const ZONE = 'zone-a';
export const TARGET_PORT = 8080;
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

export interface ServiceSpec {
  /** Its cluster IPs are 10.96.0.N and fd00:96::N (N in decimal digits). */
  readonly number: number;
  readonly name: string;
  readonly endpoints: readonly (string | EndpointSpec)[];
  readonly type?: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  readonly protocols?: readonly Protocol[];
  readonly port?: number;
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

export const SERVICES: readonly ServiceSpec[] = [
  { number: 1, name: 'basic', endpoints: BOTH, protocols: ALL },
  { number: 2, name: 'self', endpoints: ['client'], protocols: ['TCP', 'UDP'] },
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
  {
    number: 22,
    name: 'host-network',
    endpoints: [{ host: { addresses: [NODE4, NODE6], node: NODE_NAME, port: 9022 } }],
  },
  {
    number: 23,
    name: 'host-network-remote',
    endpoints: [{ host: { addresses: [OTHER4, 'fd00:200::3'], node: 'node-1', port: 9023 } }],
  },
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
];

/** The node under test, as an API object. */
export function nodeObject(): object {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: NODE_NAME, labels: { 'topology.kubernetes.io/zone': ZONE } },
    spec: { podCIDRs: ['10.128.0.0/24', 'fd00:10:128::/64'], podCIDR: '10.128.0.0/24' },
    status: {
      addresses: [
        { type: 'InternalIP', address: NODE4 },
        { type: 'InternalIP', address: NODE6 },
      ],
    },
  };
}

/** The Service and its EndpointSlices (one per family). */
export function serviceObjects(spec: ServiceSpec): object[] {
  return [serviceObject(spec), sliceObject(spec, 4), sliceObject(spec, 6)];
}

function servicePorts(spec: ServiceSpec): { name: string; protocol: Protocol }[] {
  return (spec.protocols ?? ['TCP']).map((protocol) => ({ name: protocol.toLowerCase(), protocol }));
}

function serviceObject(spec: ServiceSpec): object {
  const type = spec.type ?? 'ClusterIP';
  const isExternal = type !== 'ClusterIP' || spec.externalIPs !== undefined;
  const clusterIPs = [clusterIP(spec.number, 4), clusterIP(spec.number, 6)];
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: spec.name, namespace: 'traffic', creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: {
      type,
      clusterIP: clusterIPs[0],
      clusterIPs,
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
      internalTrafficPolicy: spec.internalLocal === true ? 'Local' : 'Cluster',
      sessionAffinity: spec.affinitySeconds === undefined ? 'None' : 'ClientIP',
      ...(spec.affinitySeconds === undefined
        ? {}
        : { sessionAffinityConfig: { clientIP: { timeoutSeconds: spec.affinitySeconds } } }),
      ...(isExternal ? { externalTrafficPolicy: spec.externalLocal === true ? 'Local' : 'Cluster' } : {}),
      ...(type === 'LoadBalancer' && spec.externalLocal === true
        ? { healthCheckNodePort: healthPort(spec.number) }
        : {}),
      ...(spec.externalIPs === undefined ? {} : { externalIPs: spec.externalIPs }),
      ...(spec.sourceRanges === undefined ? {} : { loadBalancerSourceRanges: spec.sourceRanges }),
      ports: servicePorts(spec).map((port) => ({
        ...port,
        port: spec.port ?? 80,
        targetPort: TARGET_PORT,
        ...(type === 'ClusterIP' ? {} : { nodePort: nodePort(spec.number) }),
      })),
    },
    status: {
      loadBalancer: { ingress: (spec.loadBalancerIPs ?? []).map((ip) => ({ ip, ipMode: 'VIP' })) },
    },
  };
}

function sliceObject(spec: ServiceSpec, family: 4 | 6): object {
  const endpoints = spec.endpoints.map((one) => (typeof one === 'string' ? { pod: one } : one));
  const port = endpoints.find((one) => one.host !== undefined)?.host?.port ?? TARGET_PORT;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${spec.name}-ipv${family}`,
      namespace: 'traffic',
      labels: { 'kubernetes.io/service-name': spec.name },
    },
    addressType: `IPv${family}`,
    ports: servicePorts(spec).map(({ name, protocol }) => ({ name, protocol, port })),
    endpoints: endpoints.map((endpoint) => endpointObject(endpoint, family)),
  };
}

function endpointObject(endpoint: EndpointSpec, family: 4 | 6): object {
  const isHere =
    endpoint.host === undefined
      ? PODS.find((one) => one.name === endpoint.pod)!.place === 'node'
      : endpoint.host.node === NODE_NAME;
  const address = endpoint.host?.addresses[family === 4 ? 0 : 1] ?? podAddress(endpoint.pod!, family);
  const zones = endpoint.forZones?.map((name) => ({ name }));
  const nodes = endpoint.forNodes?.map((name) => ({ name }));
  return {
    addresses: [address],
    nodeName: isHere ? NODE_NAME : 'node-1',
    zone: isHere ? ZONE : 'zone-b',
    conditions: {
      ready: endpoint.ready ?? true,
      serving: endpoint.serving ?? true,
      terminating: endpoint.terminating ?? false,
    },
    ...(zones === undefined && nodes === undefined
      ? {}
      : { hints: { ...(zones && { forZones: zones }), ...(nodes && { forNodes: nodes }) } }),
  };
}
