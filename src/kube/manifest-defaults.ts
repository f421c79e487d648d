import { type JsonObject, asArray, asObject, asString } from '../model/json.js';

/** Kinds that a manifest directory serves. */
export type ManifestKind = 'Service' | 'EndpointSlice' | 'Node';

const API_VERSIONS: Readonly<Record<ManifestKind, string>> = {
  Service: 'v1',
  EndpointSlice: 'discovery.k8s.io/v1',
  Node: 'v1',
};

/** The kind when this program serves it in that apiVersion; undefined otherwise. */
export function manifestKind(object: JsonObject): ManifestKind | undefined {
  const kind = object['kind'];
  if (kind !== 'Service' && kind !== 'EndpointSlice' && kind !== 'Node') return undefined;
  return object['apiVersion'] === API_VERSIONS[kind] ? kind : undefined;
}

/**
 * The object as the API server would have stored it, as far as fields matter here (pkg/apis/core/v1/defaults.go,
 * discovery/v1).
 */
export function withDefaults(kind: ManifestKind, object: JsonObject): JsonObject {
  const metadata = asObject(object['metadata']) ?? {};
  if (kind === 'Node') return object;
  const namespaced = { ...object, metadata: { ...metadata, namespace: asString(metadata['namespace']) || 'default' } };
  return kind === 'Service' ? serviceDefaults(namespaced) : sliceDefaults(namespaced);
}

/**
 * As the label selectors of resources.ts: Services of another proxy and slices of headless Services are none of ours.
 */
export function isSelected(kind: ManifestKind, object: JsonObject): boolean {
  const labels = asObject(asObject(object['metadata'])?.['labels']) ?? {};
  if (kind === 'Service') return !Object.hasOwn(labels, 'service.kubernetes.io/service-proxy-name');
  return kind !== 'EndpointSlice' || !Object.hasOwn(labels, 'service.kubernetes.io/headless');
}

function serviceDefaults(object: JsonObject): JsonObject {
  const spec = asObject(object['spec']) ?? {};
  const type = asString(spec['type']) || 'ClusterIP';
  const given = asArray(spec['clusterIPs']);
  const clusterIP = asString(spec['clusterIP']) || asString(given[0]);
  const affinity = asString(spec['sessionAffinity']) || 'None';
  const isExternal = type === 'NodePort' || type === 'LoadBalancer' || asArray(spec['externalIPs']).length > 0;
  return {
    ...object,
    spec: {
      internalTrafficPolicy: 'Cluster',
      ...(isExternal ? { externalTrafficPolicy: 'Cluster' } : {}),
      ...(affinity === 'ClientIP' ? { sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } } } : {}),
      ...spec,
      type,
      sessionAffinity: affinity,
      ...(clusterIP === '' ? {} : { clusterIP, clusterIPs: given.length > 0 ? given : [clusterIP] }),
      ports: ports(spec['ports']),
    },
  };
}

function sliceDefaults(object: JsonObject): JsonObject {
  return { ...object, endpoints: asArray(object['endpoints']), ports: ports(object['ports']) };
}

function ports(value: unknown): unknown[] {
  return asArray(value).map((port) => {
    const fields = asObject(port);
    return fields === undefined
      ? port
      : { ...fields, name: fields['name'] ?? '', protocol: fields['protocol'] ?? 'TCP' };
  });
}
