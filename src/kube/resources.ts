import { type KubeClient } from './client.js';
import { type KubeClock } from './clock.js';
import { Reflector } from './reflector.js';
import { type SkippedObjects } from './skipped-objects.js';
import { type KubeLog, type ObjectParser, type ObjectProblem, type ResourceSink } from './sink.js';

/**
 * What kube-proxy 1.36 selects: Services that are not for another proxy, and slices that are not of a headless Service. Headless
 * Services are told by their clusterIP, where they are parsed: a field selector for it is refused by older API servers.
 */
export const SERVICE_SELECTOR = '!service.kubernetes.io/service-proxy-name';
export const SLICE_SELECTOR = '!service.kubernetes.io/headless';

export interface WatchOptions<T> {
  readonly client: Pick<KubeClient, 'open'>;
  readonly parse: ObjectParser<T>;
  readonly sink: ResourceSink<T>;
  readonly onProblem: ObjectProblem;
  readonly skipped?: SkippedObjects;
  readonly log: KubeLog;
  readonly clock?: KubeClock;
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
    path: '/api/v1/nodes',
    fieldSelector: `metadata.name=${name}`,
  });
}
