import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent, type RequestOptions } from 'node:https';
import { type Cluster } from '@kubernetes/client-node/dist/config_types.js';
import { errorMessage } from '../values/errors.js';
import { type WallClock } from '../time/clock.js';
import { KubeError } from './errors.js';
import { type ExecCredential, ExecPlugin } from './exec-plugin.js';
import { type CredentialOptions, type LoadedKubeConfig, loadKubeConfig } from './kubeconfig.js';

/** What one request needs besides its path. */
export interface Connection {
  readonly server: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly agent: HttpAgent;
  /** Which load of the configuration this came from; `refresh` takes it. */
  readonly generation: number;
}

/** Longest wait for whatever client-node does to authenticate (files, legacy providers); plugins have their own. */
const TIMEOUT_MS = 35_000;

/**
 * Who we are to the API server: in-cluster service account, kubeconfig with certificates, tokens, token files or exec
 * plugins, a proxy. Token and certificate files are read again as they rotate. Never logs what it holds.
 */
export class Credentials {
  #loaded: LoadedKubeConfig;
  #plugin: ExecPlugin | undefined;
  #generation = 0;
  #agent: { readonly identity: string; readonly agent: HttpAgent } | undefined;

  readonly #options: CredentialOptions;
  readonly #clock: WallClock;

  /** Throws KubeError when there is no usable configuration. */
  constructor(options: CredentialOptions, clock: WallClock) {
    this.#options = options;
    this.#clock = clock;
    this.#loaded = loadKubeConfig(options);
    this.#plugin = this.#makePlugin();
  }

  get server(): string {
    return this.#loaded.cluster.server;
  }

  /** Names or addresses that connections go to: the API server's, and a proxy's before it. */
  get hosts(): readonly string[] {
    const { server, proxyUrl } = this.#loaded.cluster;
    const urls = [server, proxyUrl ?? ''].filter((url) => URL.canParse(url)).map((url) => new URL(url));
    return urls.map(({ hostname }) => hostname.replace(/^\[|\]$/g, ''));
  }

  /** May run an exec plugin or read files; rejects with KubeError, at once when `signal` aborts. */
  async connection(signal: AbortSignal): Promise<Connection> {
    const generation = this.#generation;
    const options: RequestOptions = { headers: {} };
    try {
      await this.#limited(this.#authenticate(options), signal);
    } catch (error) {
      if (error instanceof KubeError) throw error;
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
    this.#loaded = loadKubeConfig(this.#options);
    this.#plugin?.close();
    this.#plugin = this.#makePlugin();
    this.#generation++;
  }

  close(): void {
    this.#plugin?.close();
    this.#agent?.agent.destroy();
  }

  #makePlugin(): ExecPlugin | undefined {
    const { exec, cluster } = this.#loaded;
    return exec === undefined ? undefined : new ExecPlugin(exec, cluster, this.#clock);
  }

  async #authenticate(options: RequestOptions): Promise<void> {
    const { config } = this.#loaded;
    const credential = await this.#plugin?.credential();
    if (credential !== undefined) Object.assign(config.getCurrentUser() ?? {}, asUser(credential));
    await config.applyToHTTPSOptions(options);
  }

  async #limited(work: Promise<void>, signal: AbortSignal): Promise<void> {
    let cancel = (): void => undefined;
    const stopped = new Promise<never>((_resolve, reject) => {
      const fail = (reason: string, message: string): void =>
        reject(new KubeError('get credentials', { reason, message }));
      const onAbort = (): void => fail('Aborted', 'stopped');
      const timer = setTimeout(() => fail('Credentials', `nothing within ${TIMEOUT_MS / 1000} s`), TIMEOUT_MS);
      cancel = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
      };
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort);
    });
    try {
      await Promise.race([work, stopped]);
    } finally {
      cancel();
    }
  }

  /** One agent, hence one pool of connections, as long as the TLS material stays the same. */
  #agentFor(options: RequestOptions): HttpAgent {
    const { ca, cert, key, rejectUnauthorized, servername } = options;
    const { cluster } = this.#loaded;
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

/** What a plugin gave, as the fields of a kubeconfig's user. */
function asUser({ token, cert, key }: ExecCredential): object {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const certificate = cert === '' ? {} : { certData: base64(cert), keyData: base64(key) };
  return token === '' ? certificate : { token, ...certificate };
}
