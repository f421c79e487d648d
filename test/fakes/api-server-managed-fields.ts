import { type ApiObject } from './api-server-store.js';

/**
 * metadata.managedFields of the size and shape that the recorded kube-apiserver 1.36 bodies have: about a third of an
 * object.
 */
export function managedFieldsOf(kind: string, object: ApiObject): unknown[] {
  const fields = kind === 'Service' ? serviceFields(object) : kind === 'EndpointSlice' ? SLICE_FIELDS : NODE_FIELDS;
  return [
    {
      manager: 'kube-controller-manager',
      operation: 'Update',
      apiVersion: kind === 'EndpointSlice' ? 'discovery.k8s.io/v1' : 'v1',
      time: '2026-11-21T04:07:13Z',
      fieldsType: 'FieldsV1',
      fieldsV1: fields,
    },
  ];
}

const LEAF = {};
const SLICE_FIELDS = {
  'f:addressType': LEAF,
  'f:endpoints': LEAF,
  'f:metadata': {
    'f:annotations': { '.': LEAF, 'f:endpoints.kubernetes.io/last-change-trigger-time': LEAF },
    'f:generateName': LEAF,
    'f:labels': {
      '.': LEAF,
      'f:endpointslice.kubernetes.io/managed-by': LEAF,
      'f:kubernetes.io/service-name': LEAF,
    },
    'f:ownerReferences': { '.': LEAF, 'k:{"uid":"b7a3baa1-1486-4b29-8b2f-45d3dbedaeef"}': LEAF },
  },
  'f:ports': LEAF,
};
const NODE_FIELDS = { 'f:metadata': { 'f:labels': { '.': LEAF, 'f:kubernetes.io/hostname': LEAF } } };

function serviceFields(object: ApiObject): unknown {
  const spec = (object['spec'] ?? {}) as Readonly<Record<string, unknown>>;
  const fields = Object.keys(spec).map((name): [string, unknown] => [`f:${name}`, LEAF]);
  const ports = (spec['ports'] ?? []) as readonly { port: number; protocol?: string }[];
  const entries = ports.map((port): [string, unknown] => [
    `k:{"port":${port.port},"protocol":"${port.protocol ?? 'TCP'}"}`,
    { '.': LEAF, 'f:name': LEAF, 'f:port': LEAF, 'f:protocol': LEAF, 'f:targetPort': LEAF },
  ]);
  return { 'f:spec': { ...Object.fromEntries(fields), 'f:ports': { '.': LEAF, ...Object.fromEntries(entries) } } };
}
