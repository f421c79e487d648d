import { type Logger } from 'pino';
import { type Address, FAMILIES } from '../values/address.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { KubeClient } from '../kube/client.js';
import { type KubeClock, sleep, systemClock } from '../kube/clock.js';
import { ManifestSource, type SkipReason } from '../kube/manifests.js';
import { type Reflector } from '../kube/reflector.js';
import { type ReflectorState } from '../kube/reflector-state.js';
import { type SkippedObject, SkippedObjects } from '../kube/skipped-objects.js';
import { watchEndpointSlices, watchNode, watchServices } from '../kube/resources.js';
import { type NodeInfo } from '../model/node.js';
import { type Metrics } from '../serve/metrics.js';
import { ClusterFeed, type Feed, type ResourceName } from './cluster-feed.js';
import { type DataPlane } from './data-plane.js';
import { type DaemonOptions } from './daemon-options.js';
import { AddressProtection } from './protection.js';
import { type NodeNeeds, StartGate } from './start-gate.js';
import { type SyncReporter } from './sync-reporter.js';

/**
 * How long to wait for the Node object once the caches have synced, as kube-proxy does: without it there is no zone.
 */
const NODE_WAIT_MS = 30_000;
/** Longest wait for a name server before the first request: it may be a Service that this daemon has yet to serve. */
const RESOLVE_MS = 2000;
/** Longest wait for the other nodes' addresses: a VIP on one of them would be bound first and taken off then. */
const PROTECTION_MS = 10_000;

/** Services to gather before their desired state is worked out while the lists are still coming in. */
const PRECOMPUTE_BATCH = 200;

export interface SourceParts {
  readonly options: DaemonOptions;
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly dataPlane: DataPlane;
  readonly metrics: Metrics;
  readonly reporter: SyncReporter;
  readonly log: Logger;
  /** Called once, when what is known is enough to begin with. */
  readonly onReady: () => void;
  /** How long to wait for this Node's object. */
  readonly nodeWaitMs?: number;
  /**
   * How long to wait for this Node's object when the source has said that there is none; as for one not heard of
   * otherwise.
   */
  readonly absentNodeWaitMs?: number;
  /** A manifest, or an object in one, is not used. */
  readonly onSkippedManifest?: (file: string, what: string, reason: SkipReason) => void;
  readonly clock?: KubeClock;
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
  readonly #gate: StartGate;
  readonly #clock: KubeClock;
  readonly #startedAt: number;
  readonly #problems = new Set<string>();
  readonly #skipped = {
    services: new SkippedObjects('services'),
    endpointslices: new SkippedObjects('endpointslices'),
    nodes: new SkippedObjects('nodes'),
  };
  readonly #collected = new Map<ResourceName, { lists: number; watches: number }>();
  readonly #stop = new AbortController();
  #isStarted = false;
  #client: KubeClient | undefined;
  #protection: AddressProtection | undefined;

  constructor(readonly parts: SourceParts) {
    const { dataPlane, nodeName, config, options, log } = parts;
    this.#clock = parts.clock ?? systemClock;
    this.#startedAt = this.#clock.wall();
    const nodeWaitMs = parts.nodeWaitMs ?? NODE_WAIT_MS;
    this.#gate = new StartGate({
      nodeName,
      needs: nodeNeeds(config),
      nodeWaitMs,
      // A directory says at once what it holds.
      absentNodeWaitMs: options.manifests === undefined ? (parts.absentNodeWaitMs ?? nodeWaitMs) : 0,
      clock: this.#clock,
      log,
      onOpen: () => void this.#startDataPlane(),
    });
    const feed = new ClusterFeed(dataPlane.cluster, nodeName, {
      changed: (resource) => this.#changed(resource),
      synced: (resource) => this.#listed(resource),
      triggered: (family, at) => {
        // A trigger from before this process tells how old the endpoint is, not how long programming takes.
        if (at > this.#startedAt) parts.reporter.endpointsTriggered(family, at);
      },
      nodeChanged: (node) => this.#nodeChanged(node),
      nodeDeleted: () => log.warn({ node: nodeName }, 'the Node object is gone: going on with what it said last'),
      apiServers: (addresses) => this.#protection?.apiServers.sawEndpoints(addresses),
    });
    if (options.manifests === undefined) this.#openApiServer(feed);
    else this.#openManifests(options.manifests, feed);
    parts.metrics.nodeKnown(false);
  }

  /** True once Services, EndpointSlices and what the configuration needs of the Node are there: the kernel follows. */
  get isSynced(): boolean {
    return this.#gate.isOpen;
  }

  /**
   * What has to come before the data plane may begin, with the failures that keep it from coming; undefined once it is
   * there.
   */
  get waitsFor(): string | undefined {
    const { waitsFor } = this.#gate;
    if (waitsFor === undefined) return undefined;
    const failures = [...this.watches()].flatMap(([resource, { lastError, isSynced }]) =>
      isSynced || lastError === undefined || !waitsFor.includes(resource === 'nodes' ? 'Node' : resource)
        ? []
        : [lastError],
    );
    const server = this.#client === undefined ? '' : ` from ${this.#client.server}`;
    return `${waitsFor}${server}${failures.length === 0 ? '' : ` (${failures.join('; ')})`}`;
  }

  /** True once the source has said what it knows of this Node. */
  get isNodeKnown(): boolean {
    return this.#gate.isListed('nodes');
  }

  /**
   * As kube-proxy has it: false while this Node is being deleted or drained by the cluster autoscaler, and where the
   * API server knows no such Node (a wrong hostnameOverride, mostly). True while it has not said so: an outage is no
   * verdict.
   */
  get isNodeEligible(): boolean {
    const { node } = this.parts.dataPlane.cluster;
    return node?.eligible ?? !this.#isNodeMissing;
  }

  /** What an operator should know of the sources. */
  get notes(): readonly string[] {
    const { nodeName } = this.parts;
    const notes: string[] = [];
    const { waitsFor } = this;
    if (waitsFor !== undefined) notes.push(`waiting for ${waitsFor}`);
    if (this.#isNodeMissing) notes.push(missingNode(nodeName));
    return notes;
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

  /** Addresses by which this node reaches the API server, as far as they can be known before anything is asked. */
  async apiServerAddresses(): Promise<readonly Address[]> {
    return (await this.#protection?.resolve(RESOLVE_MS)) ?? [];
  }

  /** Rejects when a source can never work (no such directory); an API server that is away is waited for. */
  async start(): Promise<void> {
    this.#protection?.start();
    await Promise.all(this.#sources.map(async (source) => source.start()));
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#gate.close();
    await Promise.all([this.#protection?.close(), ...this.#sources.map((source) => source.close())]);
    this.#client?.close();
  }

  #openApiServer(feed: ClusterFeed): void {
    const { config, metrics, nodeName, log, dataPlane } = this.parts;
    const clock = this.#clock;
    const client = new KubeClient({
      ...(config.kubeconfig === undefined ? {} : { kubeconfig: config.kubeconfig }),
      ...(config.master === undefined ? {} : { master: config.master }),
      clock,
      onRequest: (request) => metrics.apiRequest(request),
      onPeer: (address) => this.#protection?.apiServers.sawPeer(address),
    });
    this.#client = client;
    const onChange = (): void => this.#changed(undefined);
    const { cluster } = dataPlane;
    this.#protection = new AddressProtection({ client, config, nodeName, cluster, clock, log, onChange });
    const options = <T>(resource: ResourceName, { parse, sink }: Feed<T>) => ({
      client,
      clock,
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
    const { nodeName, log, metrics, onSkippedManifest } = this.parts;
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
        onSkipped: (file, what, reason) => {
          metrics.objectSkipped('manifests', reason);
          onSkippedManifest?.(file, what, reason);
        },
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

  /** Something in the cluster changed; without a resource, only which addresses are protected. */
  #changed(resource: ResourceName | undefined): void {
    const { reporter, metrics, dataPlane } = this.parts;
    if (resource === 'services') metrics.serviceChanged();
    if (resource === 'endpointslices') metrics.endpointsChanged();
    if (!this.#isStarted) {
      if (this.#gate.isListed('services') && dataPlane.cluster.dirtyCount >= PRECOMPUTE_BATCH)
        dataPlane.reconciler.precompute();
      return;
    }
    reporter.changeQueued();
    dataPlane.runner.request();
  }

  #listed(resource: ResourceName): void {
    if (resource === 'nodes' && this.#isNodeAbsent) this.#reportMissingNode();
    this.#gate.listed(resource);
  }

  #nodeChanged(node: NodeInfo): void {
    const { dataPlane, metrics } = this.parts;
    metrics.nodeKnown(true);
    this.#gate.nodeSeen(node);
    // Pod CIDRs may be in the rules; before adoption the first sync writes them, when the sets exist.
    if (dataPlane.reconciler.adopted) dataPlane.rules.check();
  }

  get #isNodeAbsent(): boolean {
    return this.parts.dataPlane.cluster.node === undefined;
  }

  /** The API server has said that there is no such Node; a directory of manifests need not hold any. */
  get #isNodeMissing(): boolean {
    return this.#gate.isListed('nodes') && this.#isNodeAbsent && this.parts.options.manifests === undefined;
  }

  #reportMissingNode(): void {
    const { log, nodeName, options } = this.parts;
    if (options.manifests === undefined) log.error({ node: nodeName }, missingNode(nodeName));
  }

  async #startDataPlane(): Promise<void> {
    const { dataPlane, log, reporter, onReady } = this.parts;
    const { cluster } = dataPlane;
    log.info({ services: cluster.services.size, endpointSlices: cluster.sliceCount }, 'caches synced');
    if (this.#protection !== undefined) {
      const late = sleep(this.#clock, PROTECTION_MS, this.#stop.signal);
      await Promise.race([this.#protection.ready, late]);
    }
    if (this.#stop.signal.aborted) return;
    this.#isStarted = true;
    reporter.changeQueued();
    onReady();
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

function nodeNeeds({ nodePortAddresses, detectLocal }: ProxyConfig): NodeNeeds {
  const addresses = FAMILIES.some((family) => nodePortAddresses[family].primary && !nodePortAddresses[family].all);
  return { addresses, podCIDRs: detectLocal.mode === 'NodeCIDR' };
}

function missingNode(name: string): string {
  const fix = 'set hostnameOverride to the name by which the kubelet registered this node';
  return `the API server knows no Node ${JSON.stringify(name)}: policies "Local" and zones cannot work, /healthz answers 503 (${fix})`;
}
