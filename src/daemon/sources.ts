import { type Logger } from 'pino';
import { type ProxyConfig } from '../config/proxy-config.js';
import { KubeClient } from '../kube/client.js';
import { ManifestSource } from '../kube/manifests.js';
import { type Reflector } from '../kube/reflector.js';
import { type ReflectorState } from '../kube/reflector-state.js';
import { type SkippedObject, SkippedObjects } from '../kube/skipped-objects.js';
import { watchEndpointSlices, watchNode, watchServices } from '../kube/resources.js';
import { type Metrics } from '../serve/metrics.js';
import { ClusterFeed, type Feed, type ResourceName } from './cluster-feed.js';
import { type DataPlane } from './data-plane.js';
import { type DaemonOptions } from './daemon-options.js';
import { type SyncReporter } from './sync-reporter.js';

/** How long to wait for the Node object once the caches have synced: without it there are no hints and no pod CIDRs. */
const NODE_WAIT_MS = 2000;

/** Services to gather before their desired state is worked out while the lists are still coming in. */
const PRECOMPUTE_BATCH = 200;

export interface SourceParts {
  readonly options: DaemonOptions;
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly dataPlane: DataPlane;
  readonly metrics: Metrics;
  readonly observer: SyncReporter;
  readonly log: Logger;
  /** Called once, when both caches have synced. */
  readonly onReady: () => void;
}

/** One source that can be started and closed. */
export interface Source {
  /** Rejects when the source can never work. */
  start(): void | Promise<void>;
  close(): Promise<void>;
}

/** Feeds the dataPlane from the API server or from manifests, and starts it once both caches have synced. */
export class Sources {
  readonly #sources: Source[] = [];
  readonly #reflectors = new Map<ResourceName, Pick<Reflector<unknown>, 'state'>>();
  readonly #synced = new Set<ResourceName>();
  readonly #problems = new Set<string>();
  readonly #startedAt = Date.now();
  readonly #skipped = {
    services: new SkippedObjects('services'),
    endpointslices: new SkippedObjects('endpointslices'),
    nodes: new SkippedObjects('nodes'),
  };
  readonly #collected = new Map<ResourceName, { lists: number; watches: number }>();
  #nodeTimer: NodeJS.Timeout | undefined;
  #isStarted = false;
  #isEligible = true;

  constructor(readonly parts: SourceParts) {
    const { dataPlane, nodeName } = parts;
    const feed = new ClusterFeed(dataPlane.cluster, nodeName, {
      changed: (resource) => this.#changed(resource),
      synced: (resource) => this.#markSynced(resource),
      triggered: (family, at) => parts.observer.endpointsTriggered(family, at),
      nodeChanged: (node) => {
        this.#isEligible = node?.eligible ?? true;
        // Pod CIDRs may be in the rules; before adoption the first sync writes them, when the sets exist.
        if (dataPlane.reconciler.adopted) dataPlane.rules.check();
      },
    });
    if (parts.options.manifests === undefined) this.#openApiServer(feed);
    else this.#openManifests(parts.options.manifests, feed);
  }

  /** True once Services and EndpointSlices are complete. */
  get isSynced(): boolean {
    return this.#synced.has('services') && this.#synced.has('endpointslices');
  }

  /** True once the API server has said what it knows of this Node. */
  get isNodeKnown(): boolean {
    return this.#synced.has('nodes');
  }

  /** False while this Node is being deleted or drained by the cluster autoscaler. */
  get isNodeEligible(): boolean {
    return this.#isEligible;
  }

  watches(): ReadonlyMap<ResourceName, ReflectorState> {
    return new Map([...this.#reflectors].map(([resource, reflector]) => [resource, reflector.state()]));
  }

  /** The objects that are left out now, or a part of them, because they are malformed. */
  *skipped(): Generator<SkippedObject> {
    for (const objects of Object.values(this.#skipped)) yield* objects;
  }

  /** Brings the metrics of the watches up to date; called when somebody scrapes. */
  collect(): void {
    const { metrics } = this.parts;
    for (const { resource, size } of Object.values(this.#skipped)) metrics.skippedNow(resource, size);
    for (const [resource, { lists, watches, lastContactAt, lastError }] of this.watches()) {
      const before = this.#collected.get(resource) ?? { lists: 1, watches: 1 };
      const reason = lastError === undefined ? 'ended' : 'failed';
      for (let i = before.lists; i < lists; i++) metrics.relisted(resource, reason);
      for (let i = before.watches; i < watches; i++) metrics.watchRestarted(resource, reason);
      this.#collected.set(resource, { lists: Math.max(lists, 1), watches: Math.max(watches, 1) });
      // An API server that never answered has been silent since the start: no series would be no alert.
      metrics.watchHeard(resource, lastContactAt > 0 ? lastContactAt : this.#startedAt);
    }
  }

  /** Rejects when a source can never work (no such directory); an API server that is away is waited for. */
  async start(): Promise<void> {
    await Promise.all(this.#sources.map(async (source) => source.start()));
  }

  async close(): Promise<void> {
    clearTimeout(this.#nodeTimer);
    await Promise.all(this.#sources.map((source) => source.close()));
  }

  #openApiServer(feed: ClusterFeed): void {
    const { config, metrics, nodeName, log } = this.parts;
    const client = new KubeClient({
      ...(config.kubeconfig === undefined ? {} : { kubeconfig: config.kubeconfig }),
      ...(config.master === undefined ? {} : { master: config.master }),
      onRequest: (request) => metrics.apiRequest(request),
    });
    const options = <T>(resource: ResourceName, { parse, sink }: Feed<T>) => ({
      client,
      parse,
      sink,
      log,
      onProblem: this.#onProblem(resource),
      skipped: this.#skipped[resource],
    });
    this.#watch('nodes', watchNode(nodeName, options('nodes', feed.node)));
    this.#watch('services', watchServices(options('services', feed.services)));
    this.#watch('endpointslices', watchEndpointSlices(options('endpointslices', feed.slices)));
  }

  #openManifests(directory: string, feed: ClusterFeed): void {
    const { nodeName, log } = this.parts;
    const options = <T>(resource: ResourceName, { parse, sink }: Feed<T>) => ({
      parse,
      sink,
      onProblem: this.#onProblem(resource),
      skipped: this.#skipped[resource],
    });
    this.#sources.push(
      new ManifestSource({
        directory,
        nodeName,
        log,
        services: options('services', feed.services),
        endpointSlices: options('endpointslices', feed.slices),
        node: options('nodes', feed.node),
      }),
    );
  }

  #watch<T>(resource: ResourceName, reflector: Reflector<T>): void {
    this.#reflectors.set(resource, reflector);
    this.#sources.push(reflector);
  }

  #changed(resource: ResourceName): void {
    const { observer, metrics, dataPlane } = this.parts;
    if (resource === 'services') metrics.serviceChanged();
    if (resource === 'endpointslices') metrics.endpointsChanged();
    if (!this.#isStarted) {
      if (this.#synced.has('services') && dataPlane.cluster.dirtyCount >= PRECOMPUTE_BATCH)
        dataPlane.reconciler.precompute();
      return;
    }
    observer.changeQueued();
    dataPlane.runner.request();
  }

  #markSynced(resource: ResourceName): void {
    this.#synced.add(resource);
    if (!this.isSynced || this.#isStarted) return;
    if (this.#synced.has('nodes')) this.#startDaemon();
    else this.#nodeTimer ??= setTimeout(() => this.#startWithoutNode(), NODE_WAIT_MS);
  }

  #startWithoutNode(): void {
    const { log, nodeName } = this.parts;
    log.warn({ node: nodeName }, 'no Node object of this name yet: starting without zone hints and pod CIDRs');
    this.#startDaemon();
  }

  #startDaemon(): void {
    if (this.#isStarted) return;
    clearTimeout(this.#nodeTimer);
    this.#isStarted = true;
    const { cluster } = this.parts.dataPlane;
    this.parts.log.info({ services: cluster.services.size, endpointSlices: cluster.sliceCount }, 'caches synced');
    this.parts.observer.changeQueued();
    this.parts.onReady();
  }

  /** One line and one count per object and reason, however often the object comes again. */
  #onProblem(resource: ResourceName): (key: string, problem: string) => void {
    return (key, problem) => {
      const { log, metrics } = this.parts;
      metrics.objectSkipped(resource, 'malformed');
      const identity = `${resource} ${key} ${problem}`;
      if (this.#problems.has(identity)) return;
      if (this.#problems.size > 10_000) this.#problems.clear();
      this.#problems.add(identity);
      log.warn({ resource, object: key, problem }, 'part of an object is malformed and left out');
    };
  }
}
