import { asRealObject } from './api-server-real-objects.js';

/**
 * An API object as tests write it; metadata that a real API server adds (uid, resourceVersion, ...) is added by the
 * store.
 */
export interface ApiObject {
  readonly kind?: string;
  readonly apiVersion?: string;
  readonly metadata: ApiMetadata;
  readonly [field: string]: unknown;
}

export interface ApiMetadata {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly [field: string]: unknown;
}

export type Resource = 'services' | 'endpointslices' | 'nodes';

export interface ResourceType {
  readonly resource: Resource;
  readonly path: string;
  readonly kind: string;
  readonly apiVersion: string;
  readonly namespaced: boolean;
  /** Fields besides metadata that a bookmark of this kind carries, as recorded. */
  readonly emptyFields: string;
}

export const RESOURCE_TYPES: readonly ResourceType[] = [
  {
    resource: 'services',
    path: '/api/v1/services',
    kind: 'Service',
    apiVersion: 'v1',
    namespaced: true,
    emptyFields: '"spec":{},"status":{"loadBalancer":{}}',
  },
  {
    resource: 'endpointslices',
    path: '/apis/discovery.k8s.io/v1/endpointslices',
    kind: 'EndpointSlice',
    apiVersion: 'discovery.k8s.io/v1',
    namespaced: true,
    emptyFields: '"addressType":"","endpoints":null,"ports":null',
  },
  {
    resource: 'nodes',
    path: '/api/v1/nodes',
    kind: 'Node',
    apiVersion: 'v1',
    namespaced: false,
    emptyFields: '"spec":{},"status":{}',
  },
];

/**
 * One version of one object, serialised once: its JSON is `head + revision + tail`. Immutable, so lists may share it.
 */
export interface StoredObject {
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly revision: number;
  readonly head: string;
  readonly tail: string;
}

/** What happened at one resourceVersion: `before` undefined for a creation, `after` undefined for a deletion. */
export interface StoreEvent {
  readonly revision: number;
  readonly before: StoredObject | undefined;
  readonly after: StoredObject | undefined;
}

/** The objects of one resource and the events since the last compaction. */
export class Collection {
  readonly objects = new Map<string, StoredObject>();
  history: StoreEvent[] = [];
  /** Absolute index of history[0]. */
  historyStart = 0;
  #sorted: readonly StoredObject[] | undefined;

  constructor(readonly type: ResourceType) {}

  get historyEnd(): number {
    return this.historyStart + this.history.length;
  }

  /** All objects in key order; the array is a snapshot that later changes leave alone. */
  sorted(): readonly StoredObject[] {
    this.#sorted ??= [...this.objects.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
    return this.#sorted;
  }

  record(event: StoreEvent): void {
    this.#sorted = undefined;
    if (event.after !== undefined) this.objects.set(event.after.key, event.after);
    else if (event.before !== undefined) this.objects.delete(event.before.key);
    this.history.push(event);
  }

  compact(): void {
    this.historyStart = this.historyEnd;
    this.history = [];
  }

  /** These objects and no others, without an event. */
  reset(objects: readonly StoredObject[]): void {
    this.compact();
    this.#sorted = undefined;
    this.objects.clear();
    for (const object of objects) this.objects.set(object.key, object);
  }
}

/** What a backup of etcd holds. */
export interface Backup {
  readonly revision: number;
  readonly objects: ReadonlyMap<Resource, readonly StoredObject[]>;
}

/**
 * A versioned object store as etcd behind an API server: one global, increasing resourceVersion and a history that can
 * be compacted.
 */
export class ApiStore {
  revision = 100;
  /** Watches from before this revision answer 410. */
  compactedRevision = 0;
  readonly #collections: ReadonlyMap<Resource, Collection>;

  readonly #options: { readonly realObjects: boolean };

  constructor(options: { readonly realObjects: boolean }) {
    this.#options = options;
    this.#collections = new Map(RESOURCE_TYPES.map((type) => [type.resource, new Collection(type)]));
  }

  collection(resource: Resource): Collection {
    return this.#collections.get(resource)!;
  }

  /** Creates or replaces; keeps the uid and creation time of what it replaces. Costs one JSON.stringify. */
  set(object: ApiObject): { collection: Collection; event: StoreEvent } {
    const collection = this.collection(resourceOfKind(object.kind));
    const before = collection.objects.get(keyOf(object.metadata));
    const revision = ++this.revision;
    const after = this.#serialise(object, collection.type, revision, before);
    const event = { revision, before, after };
    collection.record(event);
    return { collection, event };
  }

  /** Undefined when there is no such object. */
  delete(resource: Resource, key: string): { collection: Collection; event: StoreEvent } | undefined {
    const collection = this.collection(resource);
    const before = collection.objects.get(key);
    if (before === undefined) return undefined;
    const event = { revision: ++this.revision, before, after: undefined };
    collection.record(event);
    return { collection, event };
  }

  /** The stored object, as parsed from its JSON. */
  get(resource: Resource, key: string): ApiObject | undefined {
    const { objects, type } = this.collection(resource);
    const stored = objects.get(key);
    if (stored === undefined) return undefined;
    return { kind: type.kind, apiVersion: type.apiVersion, ...(JSON.parse(itemJson(stored)) as ApiObject) };
  }

  backup(): Backup {
    const objects = [...this.#collections].map(([resource, { objects }]) => [resource, [...objects.values()]] as const);
    return { revision: this.revision, objects: new Map(objects) };
  }

  /** Objects and version are those of the backup; the history begins there. */
  restore({ revision, objects }: Backup): void {
    this.revision = revision;
    this.compactedRevision = revision;
    for (const [resource, collection] of this.#collections) collection.reset(objects.get(resource) ?? []);
  }

  compact(): void {
    this.compactedRevision = this.revision;
    for (const collection of this.#collections.values()) collection.compact();
  }

  #serialise(plain: ApiObject, type: ResourceType, revision: number, before: StoredObject | undefined): StoredObject {
    const object = this.#options.realObjects ? asRealObject(type.kind, plain) : plain;
    const { name, namespace, labels, ...given } = object.metadata;
    const identity = before === undefined ? newIdentity(revision) : identityOf(before);
    const { kind: _kind, apiVersion: _version, metadata: _metadata, ...fields } = object;
    const metadata = {
      name,
      ...(type.namespaced ? { namespace: namespace ?? 'default' } : {}),
      uid: identity.uid,
      resourceVersion: '@',
      ...(given['generation'] === undefined ? {} : { generation: given['generation'] }),
      creationTimestamp: identity.creationTimestamp,
      ...(labels === undefined ? {} : { labels }),
      ...given,
    };
    const json = JSON.stringify({ metadata: { ...metadata, resourceVersion: '@' }, ...fields });
    const cut = json.indexOf('"resourceVersion":"@"') + '"resourceVersion":"'.length;
    return {
      key: keyOf(object.metadata, type.namespaced),
      name,
      namespace: type.namespaced ? (namespace ?? 'default') : '',
      labels: labels ?? {},
      revision,
      head: json.slice(0, cut),
      tail: json.slice(cut + 1),
    };
  }
}

/** `namespace/name`, or `name` for a Node. */
export function keyOf(metadata: ApiMetadata, isNamespaced = metadata.namespace !== undefined): string {
  return isNamespaced ? `${metadata.namespace ?? 'default'}/${metadata.name}` : metadata.name;
}

/** The object as a list item: no kind, no apiVersion, as recorded. */
export function itemJson(object: StoredObject, revision = object.revision): string {
  return object.head + String(revision) + object.tail;
}

export function resourceOfKind(kind: string | undefined): Resource {
  const type = RESOURCE_TYPES.find((candidate) => candidate.kind === kind);
  if (type === undefined) throw new TypeError(`the fake API server knows no kind ${String(kind)}`);
  return type.resource;
}

interface Identity {
  readonly uid: string;
  readonly creationTimestamp: string;
}

/** The same revision always makes the same uid and time, so that runs are repeatable. */
function newIdentity(revision: number): Identity {
  const hex = revision.toString(16).padStart(12, '0');
  const created = new Date(Date.UTC(2026, 0, 1) + revision * 1000).toISOString();
  return { uid: `00000000-0000-4000-8000-${hex}`, creationTimestamp: created.replace('.000Z', 'Z') };
}

function identityOf(stored: StoredObject): Identity {
  const { metadata } = JSON.parse(itemJson(stored)) as { metadata: Identity };
  return { uid: metadata.uid, creationTimestamp: metadata.creationTimestamp };
}
