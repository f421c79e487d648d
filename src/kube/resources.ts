import { type Log } from '../values/log.js';
import { type KubeClient } from './client.js';
import { type WallClock } from '../time/clock.js';
import { readPage } from './list-pages.js';
import { Reflector } from './reflector.js';
import { type SkippedObjects } from './skipped-objects.js';
import { type ObjectParser, type ObjectProblem, type ResourceSink } from './sink.js';

/**
 * What kube-proxy 1.36 selects: Services that are not for another proxy, and slices that are not of a headless Service.
 * Headless Services are recognised by their clusterIP, where they are parsed: a field selector for it is refused by
 * older API servers.
 */
export const SERVICE_SELECTOR = '!service.kubernetes.io/service-proxy-name';
export const SLICE_SELECTOR = '!service.kubernetes.io/headless';

const NODES = '/api/v1/nodes';

export interface WatchOptions<T> {
  readonly client: Pick<KubeClient, 'open'>;
  readonly parse: ObjectParser<T>;
  readonly sink: ResourceSink<T>;
  readonly onProblem: ObjectProblem;
  readonly skipped?: SkippedObjects;
  readonly log: Log;
  /** See ReflectorOptions. */
  readonly relistMs?: number;
  readonly clock?: WallClock;
}

/** All Services of the cluster; keys are `namespace/name`. */
export function watchServices<T extends { readonly key: string }>(options: WatchOptions<T>): Reflector<T> {
  return new Reflector({
    ...options,
    resource: 'services',
    path: '/api/v1/services',
    labelSelector: SERVICE_SELECTOR,
    keyOf: ({ key }) => key,
  });
}

/** All EndpointSlices of the cluster; keys are `namespace/name`. */
export function watchEndpointSlices<T extends { readonly key: string }>(options: WatchOptions<T>): Reflector<T> {
  return new Reflector({
    ...options,
    resource: 'endpointslices',
    path: '/apis/discovery.k8s.io/v1/endpointslices',
    labelSelector: SLICE_SELECTOR,
    keyOf: ({ key }) => key,
  });
}

/** One Node, by name; the key is its name. */
export function watchNode<T>(name: string, options: WatchOptions<T>): Reflector<T> {
  return new Reflector({
    ...options,
    resource: 'nodes',
    path: NODES,
    fieldSelector: `metadata.name=${name}`,
  });
}

/** All Nodes; keys are their names. */
export function watchAllNodes<T>(options: WatchOptions<T>): Reflector<T> {
  return new Reflector({ ...options, resource: 'all nodes', path: NODES });
}

/**
 * How many Nodes there are, from a list of one: the API server says how many remain. Infinity where it does not say.
 * Rejects with KubeError.
 */
export async function countNodes(client: Pick<KubeClient, 'open'>, signal: AbortSignal): Promise<number> {
  const operation = 'count nodes';
  const body = await client.open({ operation, path: NODES, query: { limit: '1' }, signal, idleMs: () => 30_000 });
  let count = 0;
  const { continueToken, remainingItemCount } = await readPage(operation, body, {
    heard: () => undefined,
    item: () => Promise.resolve(void count++),
  });
  return count + (continueToken === '' ? 0 : (remainingItemCount ?? Infinity));
}
