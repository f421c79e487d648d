import { KubeClient } from '../../kube/client.js';
import { readPages } from '../../kube/list-pages.js';
import { asArray, asObject, asString } from '../../model/json.js';
import { formatAddress, parseAddress } from '../../values/address.js';
import { type ProxyConfig } from '../../config/proxy-config.js';

/** Who stands behind an endpoint's address; empty where the EndpointSlice does not say. */
export interface PodNames {
  /** The name of the Pod, or `Kind/name` of another object. */
  readonly pod: string;
  readonly node: string;
  readonly zone: string;
}

/** Whoever asks wants to see the rest soon. */
const TIMEOUT_MS = 5000;
const PAGE = 500;

/**
 * By address, of one Service: asked of the API server now, for nobody keeps these names. Rejects with KubeError, after
 * five seconds at the latest.
 */
export async function lookUpPodNames(
  { kubeconfig, master }: Pick<ProxyConfig, 'kubeconfig' | 'master'>,
  namespace: string,
  service: string,
): Promise<ReadonlyMap<string, PodNames>> {
  const client = new KubeClient({
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(master === undefined ? {} : { master }),
    headerTimeoutMs: TIMEOUT_MS,
  });
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const found = new Map<string, PodNames>();
  const operation = `list endpointslices of ${namespace}/${service}`;
  const path = `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`;
  const labelSelector = `kubernetes.io/service-name=${service}`;
  try {
    await readPages(
      operation,
      PAGE,
      (query) => client.open({ operation, path, query: { labelSelector, ...query }, signal, idleMs: () => TIMEOUT_MS }),
      {
        heard: () => undefined,
        item: (object) => {
          addNames(found, object);
          return Promise.resolve();
        },
      },
    );
  } finally {
    client.close();
  }
  return found;
}

function addNames(found: Map<string, PodNames>, slice: unknown): void {
  for (const value of asArray(asObject(slice)?.['endpoints'])) {
    const endpoint = asObject(value);
    const address = parseAddress(asString(asArray(endpoint?.['addresses'])[0]));
    if (address === undefined) continue;
    const target = asObject(endpoint?.['targetRef']);
    const [kind, name] = [asString(target?.['kind']), asString(target?.['name'])];
    const pod = kind === 'Pod' || name === '' ? name : `${kind}/${name}`;
    found.set(formatAddress(address), {
      pod,
      node: asString(endpoint?.['nodeName']),
      zone: asString(endpoint?.['zone']),
    });
  }
}
