/** `verify`, `plan` and `explain` compare with what the running daemon has in mind, however it came by it. */
import { existsSync } from 'node:fs';
import { type BindAddress } from '../config/bind-address.js';
import { loadConfigDocument, loadConfigFile } from '../config/load.js';
import { type DaemonOptions } from '../daemon/daemon-options.js';
import { fetchAnswer, localUrl } from './daemon-page.js';
import { type Surroundings, hasFlags, usualFile, withNodeDefaults } from './node-defaults.js';

/** kube-proxy's default. */
const DEFAULT_ADDRESS: BindAddress = { host: '127.0.0.1', port: 10249 };

/** A daemon that does not say so soon is stuck, and its file is the next best thing. */
const TIMEOUT_MS = 3000;

/**
 * Without --config, and without flags that make a configuration, takes the one that the daemon of this node runs with,
 * and says so. The daemon is asked where the configuration in its usual place says, else on kube-proxy's address.
 * Without a daemon (before a switch, or with another version) as `withNodeDefaults`.
 */
export async function withDaemonConfig<T extends DaemonOptions>(options: T, around: Surroundings): Promise<T> {
  if (options.configFile !== undefined || hasFlags(options)) return withNodeDefaults(options, around);
  for (const url of await urls(around)) {
    const document = await askDaemon(url);
    if (document === undefined) continue;
    around.err(`configuration: that of the running daemon, ${url} (--config chooses another)\n`);
    return { ...options, document };
  }
  const found = withNodeDefaults(options, around);
  if (found.configFile === undefined)
    around.err("configuration: kube-proxy's defaults, for no daemon answers and no file is in the usual place\n");
  return found;
}

/** Where a daemon of this node may be asked. */
async function urls(around: Surroundings): Promise<Iterable<string>> {
  const usual = localUrl(DEFAULT_ADDRESS, '/configz');
  const file = usualFile(around.variables, around.exists ?? existsSync);
  if (file === undefined) return [usual];
  try {
    const { metricsBindAddress } = (await loadConfigFile(file)).config;
    // The file may have changed, and be refused, since the daemon began to listen.
    return new Set([...(metricsBindAddress === undefined ? [] : [localUrl(metricsBindAddress, '/configz')]), usual]);
  } catch {
    return [usual];
  }
}

/** The document of our own daemon; undefined when nobody answers, or somebody else: kube-proxy has a /configz, too. */
async function askDaemon(url: string): Promise<Record<string, unknown> | undefined> {
  try {
    const { status, body } = await fetchAnswer(url, TIMEOUT_MS);
    if (status !== 200) return undefined;
    const { 'kubeproxy.config.k8s.io': kubeProxy, kubeProxyIpvs } = JSON.parse(body) as Record<string, object>;
    if (kubeProxy === undefined || kubeProxyIpvs === undefined) return undefined;
    const document = { ...kubeProxy, kubeProxyIpvs };
    // Refused here, it is of a version that this one does not understand.
    loadConfigDocument(document, url);
    return document;
  } catch {
    return undefined;
  }
}
