/** Small API objects for the reliability tests. */
import { type Protocol } from '../../src/values/protocol.js';

export interface ServiceSpec {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly protocol?: Protocol;
  readonly targetPort?: number;
  readonly affinitySeconds?: number;
  readonly externalIPs?: readonly string[];
  readonly nodePort?: number;
  readonly creationTimestamp?: string;
}

/** The Service and its one EndpointSlice; more slices of it have other `suffix`es. */
export function serviceWithEndpoints(spec: ServiceSpec, endpoints: readonly string[]): object[] {
  return [service(spec), endpointSlice(spec, endpoints)];
}

export function service(spec: ServiceSpec): object {
  const { affinitySeconds, nodePort } = spec;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: spec.name,
      namespace: 'default',
      creationTimestamp: spec.creationTimestamp ?? '2026-01-01T00:00:00Z',
    },
    spec: {
      type: nodePort === undefined ? 'ClusterIP' : 'NodePort',
      clusterIP: spec.address,
      clusterIPs: [spec.address],
      ipFamilies: [spec.address.includes(':') ? 'IPv6' : 'IPv4'],
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: affinitySeconds === undefined ? 'None' : 'ClientIP',
      ...(affinitySeconds !== undefined && {
        sessionAffinityConfig: { clientIP: { timeoutSeconds: affinitySeconds } },
      }),
      ...(spec.externalIPs !== undefined && { externalIPs: spec.externalIPs, externalTrafficPolicy: 'Cluster' }),
      ports: [
        {
          name: 'main',
          protocol: spec.protocol ?? 'TCP',
          port: spec.port,
          targetPort: spec.targetPort ?? 8080,
          ...(nodePort !== undefined && { nodePort }),
        },
      ],
    },
    status: { loadBalancer: {} },
  };
}

export function endpointSlice(spec: ServiceSpec, endpoints: readonly string[]): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${spec.name}-1`,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': spec.name },
    },
    addressType: spec.address.includes(':') ? 'IPv6' : 'IPv4',
    ports: [{ name: 'main', protocol: spec.protocol ?? 'TCP', port: spec.targetPort ?? 8080 }],
    endpoints: endpoints.map((address) => ({
      addresses: [address],
      conditions: { ready: true, serving: true, terminating: false },
    })),
  };
}

/** The node under test. */
export function node(fields: { metadata?: object; spec?: object } = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'node-0', ...fields.metadata },
    spec: { podCIDR: '10.128.0.0/24', podCIDRs: ['10.128.0.0/24'], ...fields.spec },
    status: { addresses: [{ type: 'InternalIP', address: '10.200.0.2' }] },
  };
}
