import { type Logger } from 'pino';
import { type Address } from '../../values/address.js';
import { type ProxyConfig } from '../../config/proxy-config.js';
import { KubeClient } from '../../kube/client.js';
import { type WallClock, sleep } from '../../time/clock.js';
import { type Reflector } from '../../kube/reflector.js';
import { watchEndpointSlices, watchNode, watchServices } from '../../kube/resources.js';
import { type ClusterState } from '../../model/cluster-state.js';
import { type Metrics } from '../../serve/metrics.js';
import { type ClusterFeed, type Feed, type ResourceName } from './cluster-feed.js';
import { AddressProtection } from './protection.js';
import { type SourceReport } from './source-report.js';

/** Longest wait for a name server before the first request: it may be a Service that this daemon has yet to serve. */
const RESOLVE_MS = 2000;
/** Longest wait for the other nodes' addresses: a VIP on one of them would be bound first and taken off then. */
const PROTECTION_MS = 10_000;

export interface ApiServerSourceOptions {
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly cluster: ClusterState;
  readonly feed: ClusterFeed;
  readonly report: SourceReport;
  readonly metrics: Metrics;
  readonly clock: WallClock;
  readonly log: Logger;
  /** Services name an address that became protected, or is no longer. */
  readonly onProtectionChange: () => void;
}

/** The watches of an API server, and what it says of addresses that no Service may take. */
export class ApiServerSource {
  readonly #client: KubeClient;
  readonly #protection: AddressProtection;
  readonly #reflectors: Pick<Reflector<unknown>, 'start' | 'close'>[] = [];
  readonly #options: ApiServerSourceOptions;

  constructor(options: ApiServerSourceOptions) {
    this.#options = options;
    const { config, nodeName, cluster, feed, clock, log, metrics, onProtectionChange: onChange } = options;
    const client = new KubeClient({
      ...(config.kubeconfig === undefined ? {} : { kubeconfig: config.kubeconfig }),
      ...(config.master === undefined ? {} : { master: config.master }),
      clock,
      onRequest: (request) => metrics.apiRequest(request),
      onPeer: (address) => this.#protection.apiServers.sawPeer(address),
    });
    this.#client = client;
    this.#protection = new AddressProtection({ client, config, nodeName, cluster, clock, log, onChange });
    this.#add('nodes', watchNode(nodeName, this.#watchOptions('nodes', feed.node)));
    this.#add('services', watchServices(this.#watchOptions('services', feed.services)));
    this.#add('endpointslices', watchEndpointSlices(this.#watchOptions('endpointslices', feed.slices)));
  }

  /** The URL of the API server that is asked. */
  get server(): string {
    return this.#client.server;
  }

  /** The endpoints of the Service `kubernetes` are API servers. */
  sawEndpoints(addresses: readonly Address[]): void {
    this.#protection.apiServers.sawEndpoints(addresses);
  }

  /** What the API server's name means now; empty when no name server says so in time. */
  async resolve(): Promise<readonly Address[]> {
    return this.#protection.resolve(RESOLVE_MS);
  }

  /** Resolves once the protected addresses are known as far as they are going to be, or that has taken too long. */
  async protectionKnown(stop: AbortSignal): Promise<void> {
    await Promise.race([this.#protection.ready, sleep(this.#options.clock, PROTECTION_MS, stop)]);
  }

  start(): void {
    this.#protection.start();
    for (const reflector of this.#reflectors) reflector.start();
  }

  async close(): Promise<void> {
    await Promise.all([this.#protection.close(), ...this.#reflectors.map((reflector) => reflector.close())]);
    this.#client.close();
  }

  #add<T>(resource: ResourceName, reflector: Reflector<T>): void {
    this.#options.report.addWatch(resource, reflector);
    this.#reflectors.push(reflector);
  }

  #watchOptions<T>(resource: ResourceName, feed: Feed<T>) {
    const { clock, log, report, config } = this.#options;
    const relistMs = config.relistPeriodMs;
    return { client: this.#client, clock, log, relistMs, ...feed, ...report.problemsOf(resource) };
  }
}
