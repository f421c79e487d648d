/** What `preflight` says of what the daemon finds around it: kernel, connection tables, API server. */
import { readFileSync } from 'node:fs';
import { type ProxyConfig } from '../config/proxy-config.js';
import { checkApiServer } from '../daemon/api-check.js';
import { readKernelReleaseText } from '../kernel/node/kernel-release.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { errorMessage } from '../values/errors.js';
import { type Check } from './preflight-check.js';

/** More connections than hash buckets by this factor make each packet's lookup long. */
const CROWDED = 4;
/** From this part of its limit on, conntrack is about to refuse connections. */
const NEARLY_FULL = 0.9;

/** Nothing here fails: it is what to know of this node. */
export function checkTables(
  sysctl = new Sysctl(),
  connectionBits = '/sys/module/ip_vs/parameters/conn_tab_bits',
): Check[] {
  return [
    { name: 'kernel', state: 'ok', detail: kernel() },
    { name: 'connection table', state: 'ok', detail: connectionTable(connectionBits) },
    { name: 'conntrack', state: 'ok', detail: conntrack(sysctl) },
  ];
}

function kernel(): string {
  try {
    return `Linux ${readKernelReleaseText().trim()}`;
  } catch (error) {
    return errorMessage(error);
  }
}

function connectionTable(file: string): string {
  let text: string;
  try {
    text = readFileSync(file, 'latin1').trim();
  } catch {
    return 'ip_vs is not loaded';
  }
  const buckets = 2 ** Number(text);
  return (
    `${buckets} buckets (conn_tab_bits=${text}), enough for some ${buckets * CROWDED} connections at a time; ` +
    'more: options ip_vs conn_tab_bits=N in /etc/modprobe.d, before the module is loaded'
  );
}

function conntrack(sysctl: Sysctl): string {
  const [count, max] = ['count', 'max'].map((name) => sysctl.readNumber(`net.netfilter.nf_conntrack_${name}`));
  if (count === undefined || max === undefined) return 'nf_conntrack is not loaded';
  const warning = count > max * NEARLY_FULL ? '; NEARLY FULL: new connections are about to be lost' : '';
  return `${count} of ${max} entries${warning}`;
}

/** `failed` where the API server is away, refuses us, or does not know this Node. */
export async function checkApi(config: ProxyConfig, nodeName: string): Promise<Check> {
  try {
    return { name: 'API server', state: 'ok', detail: await checkApiServer(config, nodeName) };
  } catch (error) {
    return { name: 'API server', state: 'failed', detail: errorMessage(error) };
  }
}
