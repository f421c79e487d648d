import { type ProxyConfig } from '../../config/proxy-config.js';
import { KubeClient } from '../../kube/client.js';
import { KubeError } from '../../kube/errors.js';
import { asArray, asObject } from '../../model/json.js';

const TIMEOUT_MS = 5000;
const LISTS = {
  services: '/api/v1/services',
  endpointslices: '/apis/discovery.k8s.io/v1/endpointslices',
} as const;

/**
 * Asks the API server for one of each that the daemon lists, and for this Node, and says what it found. Rejects with an
 * Error that names what is refused or missing, and the fix; nothing is tried where nothing says how to reach one.
 */
export async function checkApiServer(
  { kubeconfig, master }: Pick<ProxyConfig, 'kubeconfig' | 'master'>,
  nodeName: string,
): Promise<string> {
  let client: KubeClient;
  try {
    client = new KubeClient({
      ...(kubeconfig === undefined ? {} : { kubeconfig }),
      ...(master === undefined ? {} : { master }),
      headerTimeoutMs: TIMEOUT_MS,
    });
  } catch (error) {
    const isNowhere = kubeconfig === undefined && error instanceof KubeError && error.reason === 'Config';
    if (isNowhere) return `not tried: ${error.message}`;
    throw error;
  }
  try {
    for (const [resource, path] of Object.entries(LISTS)) await first(client, resource, path, {});
    const node = await first(client, 'nodes', '/api/v1/nodes', { fieldSelector: `metadata.name=${nodeName}` });
    if (node === undefined)
      throw new Error(`${client.server} knows no Node ${nodeName}: set hostnameOverride (--hostname-override)`);
    return `${client.server} lists Services, EndpointSlices and Node ${nodeName}`;
  } finally {
    client.close();
  }
}

async function first(
  client: KubeClient,
  resource: string,
  path: string,
  query: Readonly<Record<string, string>>,
): Promise<unknown> {
  const chunks: Buffer[] = [];
  const request = { operation: `list ${resource}`, path, query: { ...query, limit: '1' } };
  const body = await client.open({ ...request, signal: AbortSignal.timeout(TIMEOUT_MS), idleMs: () => TIMEOUT_MS });
  for await (const chunk of body) chunks.push(chunk);
  return asArray(asObject(JSON.parse(Buffer.concat(chunks).toString('utf8')))?.['items'])[0];
}
