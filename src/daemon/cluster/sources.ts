import { type Address, FAMILIES } from '../../values/address.js';
import { type ProxyConfig } from '../../config/proxy-config.js';
import { type WallClock, systemClock } from '../../time/clock.js';
import { ManifestSource, type SkipReason } from '../../kube/manifests.js';
import { type NodeInfo } from '../../model/node.js';
import { ApiServerSource } from './api-server-source.js';
import { ClusterFeed, type ResourceName } from './cluster-feed.js';
import { type DataPlane } from '../data-plane.js';
import { OwnNode } from './own-node.js';
import { SourceReport } from './source-report.js';
import { type NodeNeeds, StartGate } from './start-gate.js';

/**
 * How long to wait for the Node object once the caches have synced, as kube-proxy does: without it there is no zone.
 */
const NODE_WAIT_MS = 30_000;

/** Services to gather before their desired state is worked out while the lists are still coming in. */
const PRECOMPUTE_BATCH = 200;

/** What is fed; configuration, Node name, log and reporter are its own. */
export type FedDataPlane = Pick<DataPlane, 'cluster' | 'reconciler' | 'rules' | 'runner'> & {
  readonly options: Pick<DataPlane['options'], 'config' | 'nodeName' | 'log' | 'reporter'>;
};

export interface SourcesOptions {
  /** A directory of manifests instead of an API server. */
  readonly manifests: string | undefined;
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
  readonly clock?: WallClock;
}

interface Source {
  /** Rejects when the source can never work. */
  start(): void | Promise<void>;
  close(): Promise<void>;
}

/** Feeds the data plane from the API server or from manifests, and says when it may begin. */
export class Sources {
  readonly report: SourceReport;
  readonly node: OwnNode;
  readonly #gate: StartGate;
  readonly #startedAt: number;
  readonly #stop = new AbortController();
  #apiServer: ApiServerSource | undefined;
  readonly #source: Source;
  #isStarted = false;

  constructor(
    readonly dataPlane: FedDataPlane,
    readonly options: SourcesOptions,
  ) {
    const { cluster } = dataPlane;
    const { nodeName, log, reporter } = dataPlane.options;
    const { manifests, clock = systemClock } = options;
    this.#startedAt = clock.wall();
    this.#gate = this.#newGate(clock);
    this.node = new OwnNode({ name: nodeName, cluster, isFromApiServer: manifests === undefined, log });
    this.report = new SourceReport(reporter.metrics, log, this.#startedAt);
    const feed = this.#newFeed();
    if (manifests === undefined) this.#source = this.#apiServer = this.#newApiServer(feed, clock);
    else this.#source = this.#newManifests(manifests, feed);
    reporter.metrics.nodeKnown(false);
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
    const failures = this.report.failures((resource) => waitsFor.includes(resource === 'nodes' ? 'Node' : resource));
    const server = this.#apiServer === undefined ? '' : ` from ${this.#apiServer.server}`;
    return `${waitsFor}${server}${failures.length === 0 ? '' : ` (${failures.join('; ')})`}`;
  }

  /** What an operator should know of the sources. */
  get notes(): readonly string[] {
    const { waitsFor } = this;
    return [...(waitsFor === undefined ? [] : [`waiting for ${waitsFor}`]), ...this.node.notes];
  }

  /** Addresses by which this node reaches the API server, as far as they can be known before anything is asked. */
  async apiServerAddresses(): Promise<readonly Address[]> {
    return (await this.#apiServer?.resolve()) ?? [];
  }

  /** Rejects when the source can never work (no such directory); an API server that is away is waited for. */
  async start(): Promise<void> {
    await this.#source.start();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#gate.close();
    await this.#source.close();
  }

  #newGate(clock: WallClock): StartGate {
    const { nodeName, config, log } = this.dataPlane.options;
    const { manifests, nodeWaitMs = NODE_WAIT_MS, absentNodeWaitMs = nodeWaitMs } = this.options;
    return new StartGate({
      nodeName,
      needs: nodeNeeds(config),
      nodeWaitMs,
      // A directory says at once what it holds.
      absentNodeWaitMs: manifests === undefined ? absentNodeWaitMs : 0,
      clock,
      log,
      onOpen: () => void this.#open(),
    });
  }

  #newFeed(): ClusterFeed {
    const { nodeName, log, reporter } = this.dataPlane.options;
    return new ClusterFeed(this.dataPlane.cluster, nodeName, {
      changed: (resource) => this.#changed(resource),
      synced: (resource) => this.#listed(resource),
      triggered: (family, at) => {
        // A trigger from before this process tells how old the endpoint is, not how long programming takes.
        if (at > this.#startedAt) reporter.endpointsTriggered(family, at);
      },
      nodeChanged: (node) => this.#nodeChanged(node),
      nodeDeleted: () => log.warn({ node: nodeName }, 'the Node object is gone: going on with what it said last'),
      apiServers: (addresses) => this.#apiServer?.sawEndpoints(addresses),
    });
  }

  #newApiServer(feed: ClusterFeed, clock: WallClock): ApiServerSource {
    const { cluster } = this.dataPlane;
    const { config, nodeName, log, reporter } = this.dataPlane.options;
    const { metrics } = reporter;
    const onProtectionChange = (): void => this.#changed(undefined);
    const said = { config, nodeName, log, clock, metrics };
    return new ApiServerSource({ ...said, cluster, feed, report: this.report, onProtectionChange });
  }

  #newManifests(directory: string, { services, slices, node }: ClusterFeed): Source {
    const { nodeName, log, reporter } = this.dataPlane.options;
    return new ManifestSource({
      directory,
      nodeName,
      log,
      onSkipped: (file, what, reason) => {
        reporter.metrics.objectSkipped('manifests', reason);
        this.options.onSkippedManifest?.(file, what, reason);
      },
      services: { ...services, ...this.report.problemsOf('services') },
      endpointSlices: { ...slices, ...this.report.problemsOf('endpointslices') },
      node: { ...node, ...this.report.problemsOf('nodes') },
    });
  }

  /** Something in the cluster changed; without a resource, only which addresses are protected. */
  #changed(resource: ResourceName | undefined): void {
    const { cluster, reconciler, runner, options } = this.dataPlane;
    const { reporter } = options;
    if (resource === 'services') reporter.metrics.serviceChanged();
    if (resource === 'endpointslices') reporter.metrics.endpointsChanged();
    if (!this.#isStarted) {
      if (this.#gate.isListed('services') && cluster.dirtyCount >= PRECOMPUTE_BATCH) reconciler.precompute();
      return;
    }
    reporter.changeQueued(resource && this.report.heardAt(resource));
    runner.request();
  }

  #listed(resource: ResourceName): void {
    if (resource === 'nodes') this.node.listed();
    this.#gate.listed(resource);
  }

  #nodeChanged(node: NodeInfo): void {
    const { reconciler, rules, options } = this.dataPlane;
    options.reporter.metrics.nodeKnown(true);
    this.#gate.nodeSeen(node);
    // Pod CIDRs may be in the rules; before adoption the first sync writes them, when the sets exist.
    if (reconciler.adopted) rules.check();
  }

  async #open(): Promise<void> {
    const { cluster, options } = this.dataPlane;
    options.log.info({ services: cluster.services.size, endpointSlices: cluster.sliceCount }, 'caches synced');
    await this.#apiServer?.protectionKnown(this.#stop.signal);
    if (this.#stop.signal.aborted) return;
    this.#isStarted = true;
    options.reporter.changeQueued();
    this.options.onReady();
  }
}

function nodeNeeds({ nodePortAddresses, detectLocal }: ProxyConfig): NodeNeeds {
  const addresses = FAMILIES.some((family) => nodePortAddresses[family].primary && !nodePortAddresses[family].all);
  return { addresses, podCIDRs: detectLocal.mode === 'NodeCIDR' };
}
