/** The daemon's own pages, as commands on its node ask for them. */
import { get } from 'node:http';
import { formatBindAddress } from '../config/bind-address.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { errorMessage } from '../values/errors.js';

/** Where the daemon of this configuration shows `path` to its own node. Throws when it shows nothing. */
export function daemonUrl(config: ProxyConfig, path: string): string {
  if (config.metricsBindAddress === undefined) throw new Error('the status page is off: metricsBindAddress is empty');
  if (config.statusAccess === 'off') throw new Error('the status page is off: kubeProxyIpvs.statusAccess is off');
  const { host, port } = config.metricsBindAddress;
  const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `http://${formatBindAddress({ host: reachable, port })}${path}`;
}

/** What the daemon answers as JSON; `shown` is what an error calls the page. */
export async function fetchPage<T>(url: string, shown = url): Promise<T> {
  try {
    return JSON.parse(await fetchText(url)) as T;
  } catch (error) {
    throw new Error(`no status from the daemon at ${shown}: ${errorMessage(error)} (is it running on this node?)`, {
      cause: error,
    });
  }
}

function fetchText(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: 5000 }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (text += chunk));
      response.on('end', () => {
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`HTTP ${response.statusCode}: ${text.trim().slice(0, 200)}`));
      });
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 5 s')));
    request.on('error', reject);
  });
}
