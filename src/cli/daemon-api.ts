/** The daemon of this node, asked over its status port. */
import { type ProxyConfig } from '../config/proxy-config.js';
import { type BackendsPage, type EndpointReport, type ServiceReport, type ServicesPage } from '../serve/inspection.js';
import { errorMessage } from '../values/errors.js';
import { NOBODY, fetchAnswer, localUrl } from './daemon-page.js';

const TIMEOUT_MS = 10_000;
/** The daemon lets expensive answers through one at a time; who waits too long is told to come again. */
const ATTEMPTS = 5;

/** No daemon, or one that does not say what is asked; the message has the address that was tried and what to do. */
export class DaemonApiError extends Error {
  override readonly name = 'DaemonApiError';
}

export class DaemonApi {
  readonly #base: string;

  /** Throws DaemonApiError where the configuration has no status page. */
  constructor({ metricsBindAddress, statusAccess }: Pick<ProxyConfig, 'metricsBindAddress' | 'statusAccess'>) {
    if (metricsBindAddress === undefined)
      throw new DaemonApiError('the daemon cannot be asked: metricsBindAddress is empty (set it, 127.0.0.1:10249 say)');
    if (statusAccess === 'off')
      throw new DaemonApiError(
        'the daemon cannot be asked: kubeProxyIpvs.statusAccess is off (set it to loopback, and restart the daemon)',
      );
    this.#base = localUrl(metricsBindAddress, '');
  }

  /**
   * The Services that `match` means (empty: all), in the order of their names. Those that come or go meanwhile may be
   * told or not.
   */
  async services(namespace: string, match: string): Promise<ServiceReport[]> {
    const services = new Map<string, ServiceReport>();
    for (let offset = 0; ;) {
      const page = (await this.#ask('/services.json', { namespace, match, offset: String(offset) })) as ServicesPage;
      for (const service of page.services) services.set(`${service.namespace}/${service.name}`, service);
      offset += page.services.length;
      if (page.services.length === 0 || offset >= page.total) return [...services.values()];
    }
  }

  /** One Service with all its endpoints; undefined when the daemon serves none of that name. */
  async backends(service: string): Promise<BackendsPage | undefined> {
    const endpoints: EndpointReport[] = [];
    for (;;) {
      const offset = String(endpoints.length);
      const page = (await this.#ask('/backends.json', { service, offset })) as BackendsPage | undefined;
      if (page === undefined) return undefined;
      endpoints.push(...page.endpoints);
      if (page.endpoints.length === 0 || endpoints.length >= page.total) return { ...page, endpoints };
    }
  }

  async #ask(path: string, query: Readonly<Record<string, string>>): Promise<unknown> {
    const url = `${this.#base}${path}?${new URLSearchParams(query).toString()}`;
    for (let attempt = 1; ; attempt++) {
      const { status, body } = await this.#get(url, path);
      if (status === 200) return this.#parse(body, path);
      if (status === 404 && body.startsWith('no such Service')) return undefined;
      if (status === 503 && attempt < ATTEMPTS) {
        await new Promise((resolve) => setTimeout(resolve, 1000));
        continue;
      }
      const fix = status === 404 ? 'is it kube-proxy, or an older version?' : body.trim().slice(0, 200);
      throw new DaemonApiError(`the daemon at ${this.#base}${path} answers HTTP ${status}: ${fix}`);
    }
  }

  #parse(body: string, path: string): unknown {
    try {
      return JSON.parse(body);
    } catch (error) {
      throw new DaemonApiError(`the answer from ${this.#base}${path} is no JSON: is something else on that port?`, {
        cause: error,
      });
    }
  }

  async #get(url: string, path: string): Promise<{ status: number; body: string }> {
    try {
      return await fetchAnswer(url, TIMEOUT_MS);
    } catch (error) {
      throw new DaemonApiError(
        `no answer from the daemon at ${this.#base}${path}: ${errorMessage(error)} (${NOBODY})`,
        { cause: error },
      );
    }
  }
}
