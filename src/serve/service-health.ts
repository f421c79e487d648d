import { type Log } from '../values/log.js';
import { type RequestListener } from 'node:http';
import { type Address, formatAddress } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { formatHostPort } from '../values/virtual-server.js';
import { Listener } from './listener.js';
import { send } from './respond.js';

/** The health check of one LoadBalancer Service with externalTrafficPolicy Local. */
export interface ServiceHealth {
  readonly namespace: string;
  readonly name: string;
  /** Ready endpoints on this node, as topology counts them. */
  readonly localEndpoints: number;
}

export interface ServiceHealthOptions {
  readonly log: Log;
  /** The proxy's own health, asked at every probe. */
  readonly isProxyHealthy: () => boolean;
  readonly retryMs?: readonly [first: number, longest: number];
}

interface Desired {
  readonly services: ReadonlyMap<number, ServiceHealth>;
  readonly addresses: readonly Address[] | 'all';
}

interface SocketAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * The healthCheckNodePort servers: 200 while the Service has endpoints on this node and the proxy is healthy, else 503,
 * with kube-proxy's JSON body and headers. A changed endpoint count touches no socket.
 */
export class ServiceHealthServer {
  readonly #options: ServiceHealthOptions;
  readonly #open = new Map<string, Listener>();
  #desired: Desired = { services: new Map(), addresses: [] };
  #isClosed = false;
  /** The updates so far, one after the other: opening and closing take turns of the event loop. */
  #updates: Promise<void> = Promise.resolve();

  constructor(options: ServiceHealthOptions) {
    this.#options = options;
  }

  /** Listening sockets by `address:port`, with the port in use (undefined while a bind is being retried). */
  get listening(): ReadonlyMap<string, number | undefined> {
    return new Map([...this.#open].map(([key, listener]) => [key, listener.port]));
  }

  /**
   * Makes exactly these ports answer on these addresses: `all` means every address of both families. Resolves, and
   * never rejects, when the update has run and every new bind was tried once; failed ones are logged and tried again
   * until the Service is gone. Of updates that come while one runs, only the last counts.
   */
  update(services: ReadonlyMap<number, ServiceHealth>, addresses: readonly Address[] | 'all'): Promise<void> {
    if (!this.#isClosed) this.#desired = { services, addresses };
    return this.#apply();
  }

  /** Closes every socket, those of clients with it; updates have no effect from now on. */
  close(): Promise<void> {
    this.#isClosed = true;
    this.#desired = { services: new Map(), addresses: [] };
    return this.#apply();
  }

  #apply(): Promise<void> {
    this.#updates = this.#updates.then(async () => {
      try {
        await this.#closeUndesired();
        // Looked up anew: other Services may be desired by now.
        const opening = [...this.#desiredSockets()].filter(([key]) => !this.#open.has(key));
        await Promise.all(opening.map(([key, socket]) => this.#listen(key, socket)));
      } catch (error) {
        this.#options.log.warn({ error: errorMessage(error) }, 'the health check node ports could not be updated');
      }
    });
    return this.#updates;
  }

  #desiredSockets(): Map<string, SocketAddress> {
    const { services, addresses } = this.#desired;
    const sockets = new Map<string, SocketAddress>();
    for (const port of services.keys()) {
      if (addresses === 'all') sockets.set(`*:${port}`, { host: '::', port });
      else
        for (const address of addresses)
          sockets.set(formatHostPort(address, port), { host: formatAddress(address), port });
    }
    return sockets;
  }

  async #closeUndesired(): Promise<void> {
    const desired = this.#desiredSockets();
    const closing = [...this.#open].filter(([key]) => !desired.has(key));
    for (const [key] of closing) this.#open.delete(key);
    await Promise.all(closing.map(([, listener]) => listener.close()));
  }

  async #listen(key: string, { host, port }: SocketAddress): Promise<void> {
    const service = this.#desired.services.get(port);
    if (service === undefined) return; // gone since; the update that said so comes next
    const listener = new Listener({
      name: `health check of Service ${service.namespace}/${service.name}`,
      host,
      port,
      handler: this.#handler(port),
      log: this.#options.log,
      fix: `a process on this node uses the Service's healthCheckNodePort ${port}`,
      ...(this.#options.retryMs && { retryMs: this.#options.retryMs }),
    });
    this.#open.set(key, listener);
    await listener.start();
  }

  /** Looks the Service up at each request: another Service may have taken the port over. */
  #handler(port: number): RequestListener {
    return (_request, response) => {
      const service = this.#desired.services.get(port);
      const { namespace = '', name = '', localEndpoints = 0 } = service ?? {};
      const serviceProxyHealthy = this.#options.isProxyHealthy();
      response.setHeader('X-Load-Balancing-Endpoint-Weight', String(localEndpoints));
      const body = JSON.stringify({ service: { namespace, name }, localEndpoints, serviceProxyHealthy }, null, '\t');
      send(response, localEndpoints > 0 && serviceProxyHealthy ? 200 : 503, 'application/json', body);
    };
  }
}
