/** The Services of the traffic tests as API objects, each with its EndpointSlices. */
import { type ApiObject } from '../fakes/api-server-store.js';
import {
  clusterIP,
  type EndpointSpec,
  healthPort,
  NODE4,
  NODE6,
  NODE_NAME,
  nodePort,
  podAddress,
  PODS,
  type PortSpec,
  type ServiceSpec,
  type SliceSpec,
  TARGET_PORT,
  ZONE,
} from './traffic-world.js';

const FAMILIES = [4, 6] as const;

/** The node under test, as an API object. */
/** The node of the daemon, in a zone. */
export function nodeObject(zone = ZONE): ApiObject {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: NODE_NAME, labels: { 'topology.kubernetes.io/zone': zone } },
    spec: { podCIDRs: ['10.128.0.0/24', 'fd00:10:128::/64'], podCIDR: '10.128.0.0/24' },
    status: {
      addresses: [
        { type: 'InternalIP', address: NODE4 },
        { type: 'InternalIP', address: NODE6 },
      ],
    },
  };
}

/** The Service and its EndpointSlices (one per family and SliceSpec). */
export function serviceObjects(spec: ServiceSpec): ApiObject[] {
  return [serviceObject(spec), ...sliceObjects(spec)];
}

export function serviceObject(spec: ServiceSpec): ApiObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: spec.name,
      namespace: 'traffic',
      creationTimestamp: '2026-01-01T00:00:00Z',
      ...(spec.labels === undefined ? {} : { labels: spec.labels }),
    },
    spec:
      spec.type === 'ExternalName'
        ? { type: 'ExternalName', externalName: 'elsewhere.example', ports: servicePorts(spec) }
        : clusterIPSpec(spec),
    // The API server takes the status away with the type.
    status: { loadBalancer: spec.type === 'LoadBalancer' ? { ingress: ingress(spec) } : {} },
  };
}

function ingress(spec: ServiceSpec): object[] {
  return (spec.loadBalancerIPs ?? []).map((ip) => ({ ip, ipMode: 'VIP' }));
}

function clusterIPSpec(spec: ServiceSpec): object {
  const type = spec.type ?? 'ClusterIP';
  const isExternal = type !== 'ClusterIP' || isSome(spec.externalIPs);
  const families = spec.families ?? FAMILIES;
  const clusterIPs = families.map((family) => clusterIP(spec.number, family));
  return {
    type,
    clusterIP: clusterIPs[0],
    clusterIPs,
    ipFamilies: families.map((family) => `IPv${family}`),
    ipFamilyPolicy: families.length === 1 ? 'SingleStack' : 'RequireDualStack',
    internalTrafficPolicy: spec.internalLocal === true ? 'Local' : 'Cluster',
    sessionAffinity: spec.affinitySeconds === undefined ? 'None' : 'ClientIP',
    ...(spec.affinitySeconds === undefined
      ? {}
      : { sessionAffinityConfig: { clientIP: { timeoutSeconds: spec.affinitySeconds } } }),
    ...(isExternal ? { externalTrafficPolicy: spec.externalLocal === true ? 'Local' : 'Cluster' } : {}),
    ...(type === 'LoadBalancer' && spec.externalLocal === true ? { healthCheckNodePort: healthPort(spec.number) } : {}),
    ...(isSome(spec.externalIPs) ? { externalIPs: spec.externalIPs } : {}),
    ...(isSome(spec.sourceRanges) ? { loadBalancerSourceRanges: spec.sourceRanges } : {}),
    ...(spec.withoutNodePorts === true ? { allocateLoadBalancerNodePorts: false } : {}),
    ports: servicePorts(spec),
  };
}

/** The API server leaves empty lists out. */
function isSome(list: readonly string[] | undefined): boolean {
  return list !== undefined && list.length > 0;
}

/** The ports of a Service, whether they are given one by one or as protocols of one number. */
export function portsOf(spec: ServiceSpec): readonly Required<PortSpec>[] {
  const ports: readonly PortSpec[] =
    spec.ports ??
    (spec.protocols ?? ['TCP']).map((protocol) => ({ name: protocol.toLowerCase(), protocol, port: spec.port ?? 80 }));
  return ports.map((port) => ({ protocol: 'TCP', target: TARGET_PORT, nodePort: nodePort(spec.number), ...port }));
}

function servicePorts(spec: ServiceSpec): object[] {
  const hasNodePorts = spec.type !== undefined && spec.type !== 'ClusterIP' && spec.withoutNodePorts !== true;
  return portsOf(spec).map(({ name, protocol, port, target, nodePort }) => ({
    name,
    protocol,
    port,
    targetPort: target,
    ...(hasNodePorts && spec.type !== 'ExternalName' ? { nodePort } : {}),
  }));
}

export function sliceObjects(spec: ServiceSpec): ApiObject[] {
  const slices = spec.slices ?? [oneSlice(spec)];
  return slices.flatMap((slice, index) =>
    (spec.families ?? FAMILIES).map((family) => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        name: `${spec.name}-ipv${family}${index === 0 ? '' : `-${index}`}`,
        namespace: 'traffic',
        labels: { 'kubernetes.io/service-name': spec.name, ...spec.sliceLabels },
      },
      addressType: `IPv${family}`,
      ports: portsOf(spec)
        .filter(({ name }) => slice.ports[name] !== undefined)
        .map(({ name, protocol }) => ({ name, protocol, port: slice.ports[name] })),
      endpoints: slice.endpoints.map((endpoint) => endpointObject(endpoint, family)),
    })),
  );
}

function oneSlice(spec: ServiceSpec): SliceSpec {
  const host = spec.endpoints.map((one) => (typeof one === 'string' ? undefined : one.host?.port)).find(Boolean);
  return {
    ports: Object.fromEntries(portsOf(spec).map(({ name, target }) => [name, host ?? target])),
    endpoints: spec.endpoints,
  };
}

function endpointObject(given: string | EndpointSpec, family: 4 | 6): object {
  const endpoint = typeof given === 'string' ? { pod: given } : given;
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
