import { readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
// Not the package's index: that pulls in every generated API class, 60 MB of resident memory even when bundled.
import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import { type Cluster, type User } from '@kubernetes/client-node/dist/config_types.js';
import { parse as parseYaml } from 'yaml';
import { KubeError, toKubeError } from './errors.js';
import { type ExecConfig } from './exec-plugin.js';
import { proxyFromEnvironment } from './proxy-environment.js';

/** clientConnection.kubeconfig and `master` of KubeProxyConfiguration; both empty means in-cluster. */
export interface CredentialOptions {
  readonly kubeconfig?: string;
  /** Overrides the server of the kubeconfig; alone it means a server without authentication. */
  readonly master?: string;
}

/** Where the API server is, and who we are. */
export interface LoadedKubeConfig {
  readonly config: KubeConfig;
  readonly cluster: Cluster;
  /** The credential plugin of the user; `config` no longer knows of it. */
  readonly exec: ExecConfig | undefined;
}

const LOAD = 'load kubeconfig';

/** Reads the configuration and checks that it can be used at all. Throws KubeError. */
export function loadKubeConfig({ kubeconfig = '', master = '' }: CredentialOptions): LoadedKubeConfig {
  const config = new KubeConfig();
  try {
    if (kubeconfig !== '') loadFile(config, kubeconfig);
    else if (master === '') loadInCluster(config);
    else config.loadFromClusterAndUser({ name: 'master', server: master, skipTLSVerify: false }, { name: 'none' });
  } catch (error) {
    throw error instanceof KubeError ? error : toKubeError(LOAD, error);
  }
  const cluster = currentCluster(config);
  if (kubeconfig !== '' && master !== '') Object.assign(cluster, { server: master });
  if (!URL.canParse(cluster.server)) {
    throw new KubeError(LOAD, { reason: 'Config', message: `server ${JSON.stringify(cluster.server)} is not a URL` });
  }
  // client-node refuses plain HTTP without this; the operator who wrote http:// has chosen already.
  if (cluster.server.startsWith('http:')) Object.assign(cluster, { skipTLSVerify: true });
  // client-go asks the environment where the kubeconfig names no proxy.
  const proxyUrl = cluster.proxyUrl ?? proxyFromEnvironment(new URL(cluster.server), process.env);
  if (proxyUrl !== undefined) Object.assign(cluster, { proxyUrl });
  return { config, cluster, exec: takeExec(config.getCurrentUser()) };
}

/** The plugin is run by us: client-node knows no time limit and makes an error message of what a plugin prints. */
function takeExec(user: User | null): ExecConfig | undefined {
  const exec = user?.exec as ExecConfig | null | undefined;
  if (user === null || exec == null) return undefined;
  Object.assign(user, { exec: undefined });
  return exec;
}

function loadInCluster(config: KubeConfig): void {
  if (!process.env['KUBERNETES_SERVICE_HOST'] || !process.env['KUBERNETES_SERVICE_PORT']) {
    throw new KubeError(LOAD, {
      reason: 'Config',
      message:
        'not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are unset; set clientConnection.kubeconfig or --master',
    });
  }
  config.loadFromCluster();
}

function loadFile(config: KubeConfig, file: string): void {
  const text = readFileSync(file, 'utf8');
  const directory = dirname(file);
  config.loadFromString(text);
  config.makePathsAbsolute(directory);
  const document = parseYaml(text) as { users?: { name?: string; user?: { tokenFile?: string } | null }[] } | null;
  for (const { name, user } of document?.users ?? []) {
    const known = config.users.find((candidate) => candidate.name === name);
    if (known === undefined) continue;
    useTokenFile(known, user?.tokenFile, directory);
    const exec = known.exec as { command?: string } | null | undefined;
    if (exec?.command?.includes('/') === true) exec.command = absolute(directory, exec.command);
  }
  // Without a user client-node would drop the cluster's CA too.
  if (config.getCurrentCluster() !== null && !config.getCurrentUser()) {
    const cluster = config.getCurrentCluster()!;
    config.loadFromClusterAndUser(cluster, { name: 'none' });
  }
}

/**
 * client-node 1.4 does not know `tokenFile`, which is what kubeadm's kube-proxy kubeconfig uses. It wins over `token`,
 * as in client-go.
 */
function useTokenFile(user: User, tokenFile: string | undefined, directory: string): void {
  if (tokenFile === undefined || tokenFile === '') return;
  const authProvider = { name: 'tokenFile', config: { tokenFile: absolute(directory, tokenFile) } };
  Object.assign(user, { token: undefined, authProvider });
}

function absolute(directory: string, path: string): string {
  return isAbsolute(path) ? path : join(directory, path);
}

function currentCluster(config: KubeConfig): Cluster {
  const cluster = config.getCurrentCluster();
  if (cluster !== null) return cluster;
  const context = JSON.stringify(config.currentContext ?? '');
  throw new KubeError(LOAD, { reason: 'Config', message: `current-context ${context} names no known cluster` });
}
