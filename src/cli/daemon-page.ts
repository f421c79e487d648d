/** The daemon's own pages, as commands on its node ask for them. */
import { get } from 'node:http';
import { type BindAddress, formatBindAddress } from '../config/bind-address.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { errorMessage } from '../values/errors.js';

/** Where the daemon of this configuration shows `path` to its own node. Throws when it shows nothing. */
export function daemonUrl(config: ProxyConfig, path: string): string {
  if (config.metricsBindAddress === undefined) throw new Error('the status page is off: metricsBindAddress is empty');
  if (config.statusAccess === 'off') throw new Error('the status page is off: kubeProxyIpvs.statusAccess is off');
  return localUrl(config.metricsBindAddress, path);
}

/** By which the node itself reaches a listener. */
export function localUrl({ host, port }: BindAddress, path: string): string {
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `http://${formatBindAddress({ host: reachable, port })}${path}`;
}

/** What the daemon answers as JSON; `shown` is what an error calls the page. */
export async function fetchPage<T>(url: string, shown = url): Promise<T> {
  try {
    const { status, body } = await fetchAnswer(url, PAGE_MS);
    if (status !== 200) throw new Error(`HTTP ${status}: ${body.trim().slice(0, 200)}`);
    return JSON.parse(body) as T;
  } catch (error) {
    throw new Error(`no status from the daemon at ${shown}: ${errorMessage(error)} (${NOBODY})`, { cause: error });
  }
}

/** What to look at when nobody answers. */
export const NOBODY =
  'is it running on this node? --config names its configuration, metricsBindAddress in it the address';

const PAGE_MS = 5000;

/** Any answer, whatever its status. Rejects when none comes within `timeoutMs`. */
export function fetchAnswer(url: string, timeoutMs: number): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: timeoutMs }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (body += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
    request.on('error', reject);
  });
}
