import { type RequestListener } from 'node:http';
import { FAMILIES } from '../values/address.js';
import { type BindAddress } from '../config/bind-address.js';
import { configz } from '../config/configz.js';
import { type Versioned } from '../config/versioned.js';
import { healthHandler } from '../serve/health.js';
import { Listener, type ListenerOptions } from '../serve/listener.js';
import { metricsHandler } from '../serve/metrics-server.js';
import { type ServiceHealth, ServiceHealthServer } from '../serve/service-health.js';
import { type DataPlane } from './data-plane.js';
import { type Environment } from './environment.js';
import { hasEarlierState } from './takeover/earlier-state.js';
import { type HealthListener } from './health-listener.js';
import { healthSource } from './answer/health-source.js';
import { inspectionSource } from './answer/inspection-source.js';
import { KernelLook } from './answer/kernel-look.js';
import { type Sources } from './cluster/sources.js';
import { drainingConnections, statusSource, versionsOf } from './answer/status-source.js';
import { Scrape } from './answer/scrape.js';

export interface ServersOptions {
  /** Configuration, Node name, log and reporter are its own. */
  readonly dataPlane: DataPlane;
  readonly sources: Sources;
  /** The configuration as the API writes it, for /configz. */
  readonly document: Versioned;
  readonly environment: Environment;
  /** Listens already; answers by what is made here from now on. */
  readonly health: HealthListener;
  /** What an operator should know besides. */
  readonly notes: () => readonly string[];
}

/** Everything that listens: health, metrics and status, and the health check node ports of Services. */
export class Servers {
  readonly #listeners: Listener[] = [];
  readonly #newPages: () => RequestListener;
  #pages: RequestListener;
  #document: Versioned;
  readonly #serviceHealth: ServiceHealthServer;
  readonly #kernelLook: KernelLook;
  readonly #scrape: Scrape;
  #lastHealthChecks = '';
  /** What the health checks follow from, as it was when they were last worked out. */
  #healthChecksBasis: readonly unknown[] | undefined;

  constructor(readonly options: ServersOptions) {
    const { document, environment, dataPlane, sources } = options;
    const { config, nodeName, reporter, log } = dataPlane.options;
    this.#document = document;
    const { metrics } = reporter;
    const health = healthSource({
      state: reporter.state,
      syncPeriodMs: () => dataPlane.config.syncPeriodMs,
      families: dataPlane.options.families,
      verificationAge: () => dataPlane.reconciler.verificationAge,
      rules: () => dataPlane.rules,
      isSynced: () => sources.isSynced,
      isNodeKnown: () => sources.node.isKnown,
      isEligible: () => sources.node.isEligible,
      hadKernelState: hasEarlierState(),
    });
    const status = statusSource({
      dataPlane,
      state: reporter.state,
      health,
      watches: () => sources.report.watches(),
      skipped: () => sources.report.skipped(),
      notes: options.notes,
      node: nodeName,
      version: environment.version,
      startedAt: new Date(environment.startedAt),
      events: reporter.events,
      versions: versionsOf(dataPlane),
    });
    reporter.events.draining = (service, real) => drainingConnections(dataPlane, service, real);
    options.health.serve(healthHandler(health, metrics));
    this.#kernelLook = new KernelLook(dataPlane.options.world.openNetlinkSocket);
    this.#scrape = new Scrape({ dataPlane, metrics, health, collect: () => sources.report.collect() });
    const pages = (): RequestListener =>
      metricsHandler({
        metrics: { contentType: metrics.contentType, text: () => this.#scrape.text() },
        status,
        inspection: inspectionSource(dataPlane, () => reporter.state.refused.messages, this.#kernelLook),
        configz: () => configz(this.#document),
        events: (sinceMs) => reporter.events.report(sinceMs),
        access: dataPlane.config.statusAccess,
      });
    this.#newPages = pages;
    this.#pages = pages();
    const answer: RequestListener = (request, response) => this.#pages(request, response);
    this.#add('metrics server', config.metricsBindAddress, answer, 'metricsBindAddress');
    this.#serviceHealth = new ServiceHealthServer({ log, isProxyHealthy: () => health.healthz().healthy });
  }

  /** The data plane runs with another configuration, of which this is what /configz shows. */
  reconfigured(document: Versioned): void {
    this.#document = document;
    this.#pages = this.#newPages();
  }

  /** On which this process listens now. */
  get ports(): ReadonlySet<number> {
    const all = [this.options.health.port, ...this.#listeners.map(({ port }) => port)];
    return new Set(all.filter((port) => port !== undefined));
  }

  async start(): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => listener.start()));
    this.options.dataPlane.options.reporter.afterSync = () => this.#updateHealthChecks();
  }

  async close(): Promise<void> {
    this.options.dataPlane.options.reporter.afterSync = () => undefined;
    this.#kernelLook.close();
    this.#scrape.close();
    await Promise.all([this.#serviceHealth.close(), ...this.#listeners.map((listener) => listener.close())]);
  }

  #add(name: string, address: BindAddress | undefined, handler: ListenerOptions['handler'], setting: string): void {
    if (address === undefined) return;
    const { config, log } = this.options.dataPlane.options;
    const fix = `end the process that uses it (kube-proxy?), or set ${setting}`;
    this.#listeners.push(new Listener({ name, ...address, handler, log, fix, hardFail: config.bindAddressHardFail }));
  }

  /** Health check node ports follow the desired state, and listen on the addresses that serve NodePorts. */
  #updateHealthChecks(): void {
    const { cluster, updater, config } = this.options.dataPlane;
    const basis = [updater.desired.healthChecksRevision, cluster.localAddresses, cluster.node, config] as const;
    if (basis.every((value, i) => value === this.#healthChecksBasis?.[i])) return;
    this.#healthChecksBasis = basis;
    const desired = new Map<number, ServiceHealth>();
    for (const key of updater.desired.healthChecks) {
      const check = updater.desired.services.get(key)?.healthCheck;
      const [namespace = '', name = ''] = key.split('/');
      if (check !== undefined) desired.set(check.port, { namespace, name, localEndpoints: check.localEndpoints });
    }
    const { nodePortAddresses } = updater.context;
    const isEverywhere = FAMILIES.every((family) => config.nodePortAddresses[family].all);
    const addresses = isEverywhere ? ('all' as const) : [...nodePortAddresses[4], ...nodePortAddresses[6]];
    const identity = JSON.stringify([[...desired], isEverywhere ? 'all' : (addresses as string[]).map(String)]);
    if (identity === this.#lastHealthChecks) return;
    this.#lastHealthChecks = identity;
    void this.#serviceHealth.update(desired, addresses);
  }
}
