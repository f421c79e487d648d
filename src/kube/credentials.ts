import { readFileSync } from 'node:fs';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent, type RequestOptions } from 'node:https';
import { dirname, isAbsolute, join } from 'node:path';
// Not the package's index: that pulls in every generated API class, 60 MB of resident memory even when bundled.
import { KubeConfig } from '@kubernetes/client-node/dist/config.js';
import { type Cluster, type User } from '@kubernetes/client-node/dist/config_types.js';
import { parse as parseYaml } from 'yaml';
import { errorMessage } from '../values/errors.js';
import { KubeError, toKubeError } from './errors.js';

/** clientConnection.kubeconfig and `master` of KubeProxyConfiguration; both empty means in-cluster. */
export interface CredentialOptions {
  readonly kubeconfig?: string;
  /** Overrides the server of the kubeconfig; alone it means a server without authentication. */
  readonly master?: string;
}

/** What one request needs besides its path. */
export interface Connection {
  readonly server: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly agent: HttpAgent;
  /** Which load of the configuration this came from; `refresh` takes it. */
  readonly generation: number;
}

const LOAD = 'load kubeconfig';

/**
 * Who we are to the API server: in-cluster service account, kubeconfig with certificates, tokens, token files or exec
 * plugins, a proxy. Token and certificate files are read again as they rotate. Never logs what it holds.
 */
export class Credentials {
  #config: KubeConfig;
  #generation = 0;
  #agent: { readonly identity: string; readonly agent: HttpAgent } | undefined;

  /** Throws KubeError when there is no usable configuration. */
  constructor(private readonly options: CredentialOptions) {
    this.#config = loadConfig(options);
  }

  get server(): string {
    return currentCluster(this.#config).server;
  }

  /** May run an exec plugin or read files; rejects with KubeError. */
  async connection(): Promise<Connection> {
    const generation = this.#generation;
    const options: RequestOptions = { headers: {} };
    try {
      await this.#config.applyToHTTPSOptions(options);
    } catch (error) {
      throw new KubeError('get credentials', { reason: 'Credentials', message: errorMessage(error), cause: error });
    }
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(options.headers as Record<string, unknown>)) {
      if (typeof value === 'string') headers[name] = value.trim(); // token files end in a newline
    }
    if (typeof options.auth === 'string') {
      headers['Authorization'] = `Basic ${Buffer.from(options.auth).toString('base64')}`;
    }
    return { server: new URL(this.server), headers, agent: this.#agentFor(options), generation };
  }

  /** The server refused these credentials: read everything anew, unless somebody else has since. */
  refresh(generation: number): void {
    if (generation !== this.#generation) return;
    this.#config = loadConfig(this.options);
    this.#generation++;
  }

  close(): void {
    this.#agent?.agent.destroy();
  }

  /** One agent, hence one pool of connections, as long as the TLS material stays the same. */
  #agentFor(options: RequestOptions): HttpAgent {
    const { ca, cert, key, rejectUnauthorized, servername } = options;
    const cluster = currentCluster(this.#config);
    const material = [ca, cert, key].map((part) =>
      Buffer.isBuffer(part) || typeof part === 'string' ? part.toString() : '',
    );
    const identity = JSON.stringify([...material, rejectUnauthorized, servername, cluster.server, cluster.proxyUrl]);
    if (this.#agent?.identity === identity) return this.#agent.agent;
    const agent = cluster.proxyUrl ? (options.agent as HttpAgent) : directAgent(cluster, options);
    // The previous agent is left to its running watches; its idle connections close on their own.
    this.#agent = { identity, agent };
    return agent;
  }
}

function directAgent(cluster: Cluster, options: RequestOptions): HttpAgent {
  if (cluster.server.startsWith('http:')) return new HttpAgent({ keepAlive: true });
  const { ca, cert, key, rejectUnauthorized, servername } = options;
  const given = Object.entries({ ca, cert, key, rejectUnauthorized, servername });
  const tls = Object.fromEntries(given.filter(([, value]) => value !== undefined));
  return new HttpsAgent({ keepAlive: true, ...tls });
}

function loadConfig({ kubeconfig = '', master = '' }: CredentialOptions): KubeConfig {
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
  addExecInfo(config.getCurrentUser(), cluster);
  return config;
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

/** client-node 1.4 does not know `tokenFile`, which is what kubeadm's kube-proxy kubeconfig uses. It wins over `token`, as in client-go. */
function useTokenFile(user: User, tokenFile: string | undefined, directory: string): void {
  if (tokenFile === undefined || tokenFile === '') return;
  const authProvider = { name: 'tokenFile', config: { tokenFile: absolute(directory, tokenFile) } };
  Object.assign(user, { token: undefined, authProvider });
}

function absolute(directory: string, path: string): string {
  return isAbsolute(path) ? path : join(directory, path);
}

/** The environment variable that client-go gives exec plugins (client.authentication.k8s.io); client-node leaves it out. */
function addExecInfo(user: User | null, cluster: Cluster): void {
  const exec = user?.exec as
    | { apiVersion?: string; provideClusterInfo?: boolean; env?: { name: string; value: string }[] | null }
    | null
    | undefined;
  if (exec == null) return;
  const info = {
    apiVersion: exec.apiVersion ?? 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    spec: {
      interactive: false,
      ...(exec.provideClusterInfo === true
        ? { cluster: { server: cluster.server, 'certificate-authority-data': cluster.caData } }
        : {}),
    },
  };
  exec.env = [...(exec.env ?? []), { name: 'KUBERNETES_EXEC_INFO', value: JSON.stringify(info) }];
}

function currentCluster(config: KubeConfig): Cluster {
  const cluster = config.getCurrentCluster();
  if (cluster !== null) return cluster;
  const context = JSON.stringify(config.currentContext ?? '');
  throw new KubeError(LOAD, { reason: 'Config', message: `current-context ${context} names no known cluster` });
}
