import { type ApiObject } from './api-server-store.js';

export interface ScaleOptions {
  readonly services: number;
  readonly endpointsPerService: number;
  /** How many node names the endpoints are spread over; the first is `node-0`. */
  readonly nodes?: number;
}

/** The EndpointSlice controller's default --max-endpoints-per-slice. */
const MAX_ENDPOINTS_PER_SLICE = 100;
const SERVICE_RANGE = ipv4(10, 96, 1, 0);
const POD_RANGE = ipv4(10, 128, 0, 0);

/**
 * N ClusterIP Services with M ready endpoints each, as the published scale tables have them. The same numbers make the
 * same objects, one at a time: 50,000 x 10 need not be held at once.
 */
export function* scaleCluster(options: ScaleOptions): Generator<ApiObject, void> {
  for (let i = 0; i < options.services; i++) {
    yield scaleService(i);
    yield* scaleSlices(i, options);
  }
}

/** Service number `i` of a scale cluster; `10.96.1.0 + i` in one of 100 namespaces. */
export function scaleService(i: number): ApiObject {
  const clusterIP = dotted(SERVICE_RANGE + i);
  return {
    kind: 'Service',
    apiVersion: 'v1',
    metadata: { ...scaleName(i), labels: { app: `svc-${i}`, 'app.kubernetes.io/managed-by': 'Helm' } },
    spec: {
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
      selector: { app: `svc-${i}` },
      clusterIP,
      clusterIPs: [clusterIP],
      type: 'ClusterIP',
      sessionAffinity: 'None',
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
    },
    status: { loadBalancer: {} },
  };
}

/**
 * The EndpointSlices of Service number `i`. `moved` shifts the address of endpoint number `moved.endpoint` by
 * `moved.by` million: a pod that was replaced by another.
 */
export function scaleSlices(
  i: number,
  { endpointsPerService, nodes = 100 }: ScaleOptions,
  moved?: { readonly endpoint: number; readonly by: number },
): ApiObject[] {
  const slices: ApiObject[] = [];
  const { name, namespace } = scaleName(i);
  for (let start = 0; start < endpointsPerService; start += MAX_ENDPOINTS_PER_SLICE) {
    const size = Math.min(MAX_ENDPOINTS_PER_SLICE, endpointsPerService - start);
    const endpoints = Array.from({ length: size }, (_, j) => {
      const number = i * endpointsPerService + start + j;
      const shift = moved?.endpoint === start + j ? moved.by * 1_000_000 : 0;
      return scaleEndpoint(number + shift, number % nodes);
    });
    slices.push({
      kind: 'EndpointSlice',
      apiVersion: 'discovery.k8s.io/v1',
      metadata: {
        name: `${name}-${String(start / MAX_ENDPOINTS_PER_SLICE).padStart(5, 'x')}`,
        namespace,
        generateName: `${name}-`,
        labels: {
          app: name,
          'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
          'kubernetes.io/service-name': name,
        },
        annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': '2026-11-21T04:07:13Z' },
        ownerReferences: [{ apiVersion: 'v1', kind: 'Service', name, uid: uid(i), controller: true }],
      },
      addressType: 'IPv4',
      endpoints,
      ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    });
  }
  return slices;
}

/** A Node with one InternalIP; `zone` defaults to zone-a. */
export function scaleNode(name: string, address: string, zone = 'zone-a'): ApiObject {
  return {
    kind: 'Node',
    apiVersion: 'v1',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, 'topology.kubernetes.io/zone': zone } },
    spec: { podCIDR: '10.128.0.0/24', podCIDRs: ['10.128.0.0/24'] },
    status: { addresses: [{ type: 'InternalIP', address }] },
  };
}

/** A seeded generator of numbers in [0, 1) (mulberry32): small, fast, and the same on every machine. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

function scaleEndpoint(number: number, node: number): unknown {
  const address = dotted(POD_RANGE + 2 + number);
  return {
    addresses: [address],
    conditions: { ready: true, serving: true, terminating: false },
    nodeName: `node-${node}`,
    zone: `zone-${'abc'[node % 3]}`,
  };
}

function scaleName(i: number): { name: string; namespace: string } {
  return { name: `svc-${i}`, namespace: `ns-${i % 100}` };
}

function uid(number: number): string {
  return `b7a3baa1-1486-4b29-8b2f-${number.toString(16).padStart(12, '0')}`;
}

function ipv4(a: number, b: number, c: number, d: number): number {
  return ((a * 256 + b) * 256 + c) * 256 + d;
}

function dotted(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
}
