/**
 * What clients and controllers of a real cluster put on an object besides what was asked for: labels of Helm charts,
 * annotations, owner, targetRef of endpoints, managedFields. Shapes as recorded from kube-apiserver 1.36; the labels
 * and annotations are what `helm install` and the EndpointSlice controller write.
 */
import { type ApiObject } from './api-server-store.js';

const TIME = '2026-11-21T04:07:13Z';
const SERVICE_LABEL = 'kubernetes.io/service-name';
const LEAF = {};

type Fields = Readonly<Record<string, unknown>>;

/** The object as a real cluster has it; what it says already stays. The same object is always made the same. */
export function asRealObject(kind: string, object: ApiObject): ApiObject {
  if (kind === 'Service') return realService(object);
  return kind === 'EndpointSlice' ? realSlice(object) : withManagedFields(object, [managed('kubelet', 'v1', object)]);
}

function realService(object: ApiObject): ApiObject {
  const { name, namespace = 'default' } = object.metadata;
  const annotations = {
    'meta.helm.sh/release-name': name,
    'meta.helm.sh/release-namespace': namespace,
    'prometheus.io/scrape': 'true',
    'prometheus.io/port': '9090',
    'example.com/owner': 'team-payments@bank.example',
  };
  const dressed = withMetadata(object, chartLabels(name), { annotations });
  return withManagedFields(dressed, [managed('helm', 'v1', dressed)]);
}

function realSlice(object: ApiObject): ApiObject {
  const { name, namespace = 'default', labels } = object.metadata;
  const service = labels?.[SERVICE_LABEL] ?? name;
  const controllerLabels = { 'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io' };
  const owner = { apiVersion: 'v1', kind: 'Service', name: service, uid: uidOf(service), controller: true };
  const given = object['endpoints'];
  const endpoints = Array.isArray(given)
    ? { endpoints: (given as Fields[]).map((endpoint) => realEndpoint(endpoint, service, namespace)) }
    : {};
  const dressed = {
    // The controller copies the labels of the Service.
    ...withMetadata(
      object,
      { ...chartLabels(service), ...controllerLabels },
      {
        generateName: `${service}-`,
        generation: 1,
        annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': TIME },
        ownerReferences: [{ ...owner, blockOwnerDeletion: true }],
      },
    ),
    ...endpoints,
  };
  const version = 'discovery.k8s.io/v1';
  return withManagedFields(dressed, [managed('kube-controller-manager', version, dressed)]);
}

/** A pod of a ReplicaSet, as the EndpointSlice controller names it. */
function realEndpoint(endpoint: Fields, service: string, namespace: string): Fields {
  const [address = ''] = (endpoint['addresses'] ?? []) as string[];
  const name = `${service}-${hash(service, 10)}-${hash(address, 5)}`;
  const targetRef = { kind: 'Pod', namespace, name, uid: uidOf(address) };
  return { ...endpoint, targetRef: endpoint['targetRef'] ?? targetRef };
}

function withMetadata(object: ApiObject, labels: Readonly<Record<string, string>>, more: Fields): ApiObject {
  const { metadata } = object;
  return {
    ...object,
    metadata: { ...more, ...metadata, labels: { ...labels, ...metadata.labels } },
  };
}

function withManagedFields(object: ApiObject, managedFields: readonly unknown[]): ApiObject {
  return { ...object, metadata: { ...object.metadata, managedFields } };
}

function chartLabels(service: string): Readonly<Record<string, string>> {
  return {
    app: service,
    'app.kubernetes.io/name': service,
    'app.kubernetes.io/instance': `${service}-prod`,
    'app.kubernetes.io/version': '4.17.2',
    'app.kubernetes.io/component': 'backend',
    'app.kubernetes.io/part-of': 'payments',
    'app.kubernetes.io/managed-by': 'Helm',
    'helm.sh/chart': 'service-template-2.8.1',
  };
}

/** One entry of metadata.managedFields that owns every field there is. */
function managed(manager: string, apiVersion: string, { metadata, ...rest }: ApiObject): Fields {
  const { kind: _kind, apiVersion: _version, status: _status, ...fields } = rest;
  const owned = Object.entries(fields).map(([name, value]): [string, unknown] => [`f:${name}`, ownedOf(value)]);
  const ofMetadata = {
    ...leaves('f:annotations', metadata['annotations']),
    ...leaves('f:labels', metadata.labels),
    ...(metadata['generateName'] === undefined ? {} : { 'f:generateName': LEAF }),
    ...ownersOf(metadata['ownerReferences']),
  };
  const fieldsV1 = { 'f:metadata': ofMetadata, ...Object.fromEntries(owned) };
  return { manager, operation: 'Update', apiVersion, time: TIME, fieldsType: 'FieldsV1', fieldsV1 };
}

function leaves(name: string, value: unknown): Fields {
  if (value === undefined) return {};
  const inside = Object.keys(value as Fields).map((key): [string, unknown] => [`f:${key}`, LEAF]);
  return { [name]: { '.': LEAF, ...Object.fromEntries(inside) } };
}

function ownersOf(owners: unknown): Fields {
  if (!Array.isArray(owners)) return {};
  const inside = (owners as { uid: string }[]).map(({ uid }): [string, unknown] => [`k:{"uid":"${uid}"}`, LEAF]);
  return { 'f:ownerReferences': { '.': LEAF, ...Object.fromEntries(inside) } };
}

/** Fields of spec are owned one by one, ports by their key; lists of a slice are owned as a whole. */
function ownedOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return LEAF;
  const inside = Object.entries(value).map(([name, field]): [string, unknown] => [
    `f:${name}`,
    name === 'ports' && Array.isArray(field) ? ownedPorts(field as Fields[]) : LEAF,
  ]);
  return Object.fromEntries(inside);
}

function ownedPorts(ports: readonly Fields[]): unknown {
  const entries = ports.map((port): [string, unknown] => [
    `k:${JSON.stringify({ port: port['port'], protocol: port['protocol'] ?? 'TCP' })}`,
    { '.': LEAF, ...Object.fromEntries(Object.keys(port).map((name) => [`f:${name}`, LEAF])) },
  ]);
  return { '.': LEAF, ...Object.fromEntries(entries) };
}

/** Letters as in the names of pods. */
const LETTERS = 'bcdfghjklmnpqrstvwxz2456789';

function hash(text: string, length: number): string {
  let state = fingerprint(text);
  let made = '';
  for (let i = 0; i < length; i++) {
    made += LETTERS[state % LETTERS.length];
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
  }
  return made;
}

function uidOf(text: string): string {
  const hex = (salt: string): string =>
    fingerprint(salt + text)
      .toString(16)
      .padStart(8, '0');
  const [a, b, c, d] = [hex('a'), hex('b'), hex('c'), hex('d')] as const;
  return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-8${c.slice(5)}-${c.slice(0, 4)}${d}`;
}

/** FNV-1a. */
function fingerprint(text: string): number {
  let state = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return state;
}
