import { type KubeClient } from './client.js';
import { type KubeClock } from './clock.js';
import { Reflector } from './reflector.js';
import { type KubeLog, type ObjectParser, type ObjectProblem, type ResourceSink } from './sink.js';

/** Services and EndpointSlices that are not for a service proxy, or are for another one (kube-proxy's own selector). */
export const PROXY_SELECTOR = '!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name';

export interface WatchOptions<T> {
  readonly client: Pick<KubeClient, 'open'>;
  readonly parse: ObjectParser<T>;
  readonly sink: ResourceSink<T>;
  readonly onProblem: ObjectProblem;
  readonly log: KubeLog;
  readonly clock?: KubeClock;
}

/** All Services of the cluster; keys are `namespace/name`. */
export function watchServices<T extends { readonly key: string }>(options: WatchOptions<T>): Reflector<T> {
  return new Reflector({
    ...options,
    resource: 'services',
    path: '/api/v1/services',
    labelSelector: PROXY_SELECTOR,
    keyOf: ({ key }) => key,
  });
}

/** All EndpointSlices of the cluster; keys are `namespace/name`. */
export function watchEndpointSlices<T extends { readonly key: string }>(options: WatchOptions<T>): Reflector<T> {
  return new Reflector({
    ...options,
    resource: 'endpointslices',
    path: '/apis/discovery.k8s.io/v1/endpointslices',
    labelSelector: PROXY_SELECTOR,
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
