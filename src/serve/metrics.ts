import { type ApiRequest } from '../values/api-request.js';
import { Registry } from 'prom-client';
import { FAMILIES, type Family } from '../values/address.js';
import {
  DRAIN_ENDS,
  DRIFT_KINDS,
  DRIFT_OBJECTS,
  type DrainEnd,
  type DriftKind,
  type DriftObject,
} from '../values/drift.js';
import { REASON_CATEGORIES, type ReasonCategory } from './health.js';
import { type Instruments, createInstruments } from './metrics-definitions.js';
import { ProcessMetrics } from './process-metrics.js';
import { ServiceMetrics, type ServicePortTraffic } from './service-metrics.js';

const RESOURCES = ['services', 'endpointslices', 'nodes'] as const;

export type TrafficPolicy = 'internal' | 'external';

export interface BuildInfo {
  /** `0.1.0` */
  readonly version: string;
  /** Known to bundles made in a git checkout; labels that are not known are left out. */
  readonly commit?: string | undefined;
  readonly date?: string | undefined;
}

/**
 * Everything that /metrics shows, as plain methods; nobody else touches the Prometheus library. Times are Unix
 * milliseconds, durations seconds. No method throws, blocks or does I/O.
 */
export class Metrics {
  readonly #register = new Registry();
  readonly #instruments: Instruments = createInstruments(this.#register);
  readonly #process = new ProcessMetrics(this.#register);
  #services: ServiceMetrics | undefined;

  constructor(build: BuildInfo) {
    const { version, commit, date } = build;
    this.#instruments.buildInfo.set(
      {
        version,
        ...(commit !== undefined && { git_commit: commit }),
        ...(date !== undefined && { build_date: date }),
        node_version: process.version,
        platform: `${process.platform}/${process.arch}`,
      },
      1,
    );
    this.#showZeroes();
  }

  /**
   * Series that kube-proxy shows before anything happened, and all of ours whose labels are known: rates need the zero.
   */
  #showZeroes(): void {
    this.#showOwnZeroes();
    const { syncDuration, lastSync, lastQueued, noLocalEndpoints, conntrackDuration, conntrackDeleted } =
      this.#instruments;
    for (const family of FAMILIES) {
      const labels = byFamily(family);
      for (const histogram of [syncDuration, conntrackDuration]) histogram.zero(labels);
      for (const gauge of [lastSync, lastQueued]) gauge.set(labels, 0);
      conntrackDeleted.inc(labels, 0);
      for (const traffic_policy of ['internal', 'external']) noLocalEndpoints.set({ ...labels, traffic_policy }, 0);
    }
  }

  #showOwnZeroes(): void {
    const { driftRepaired, lastRepair, drainsFinished, syncFailures, skippedObjects, skippedNow } = this.#instruments;
    for (const object of DRIFT_OBJECTS) lastRepair.set({ object }, 0);
    for (const object of DRIFT_OBJECTS) for (const kind of DRIFT_KINDS) driftRepaired.inc({ object, kind }, 0);
    for (const reason of DRAIN_ENDS) drainsFinished.inc({ reason }, 0);
    for (const stage of ['sync', 'kernel', 'rules']) syncFailures.inc({ stage }, 0);
    for (const resource of RESOURCES) {
      skippedObjects.inc({ resource, reason: 'malformed' }, 0);
      skippedNow.set({ resource }, 0);
    }
  }

  get contentType(): string {
    return this.#register.contentType;
  }

  /** The exposition text. */
  async text(): Promise<string> {
    return this.#register.metrics();
  }

  /** Names of all metrics, whether they have samples or not; for tests over dashboards and alerts. */
  names(): string[] {
    return this.#register.getMetricsAsArray().map((metric) => metric.name);
  }

  /** Stops the event loop's watch; the registry stays readable. */
  close(): void {
    this.#process.close();
  }

  // What a sync does

  /** A sync begins (true) or has ended: stalls of the event loop are looked out for only while there is work. */
  syncRunning(isRunning: boolean): void {
    this.#process.watchStalls(isRunning);
  }

  serviceChanged(): void {
    this.#instruments.serviceChanges.inc();
    this.#instruments.serviceChangesPending.inc();
  }

  endpointsChanged(): void {
    this.#instruments.endpointChanges.inc();
    this.#instruments.endpointChangesPending.inc();
  }

  /** A sync took over all changes seen so far. */
  changesTaken(): void {
    this.#instruments.serviceChangesPending.set(0);
    this.#instruments.endpointChangesPending.set(0);
  }

  syncQueued(at: number): void {
    for (const family of FAMILIES) this.#instruments.lastQueued.set(byFamily(family), at / 1000);
  }

  /** A sync that left nothing to retry. */
  synced(family: Family, seconds: number, at: number): void {
    this.#instruments.syncDuration.observe(byFamily(family), seconds);
    this.#instruments.lastSync.set(byFamily(family), at / 1000);
  }

  /** `stage` names what failed: sync (the kernel could not be read), kernel (it refused changes), rules. */
  syncFailed(stage: string): void {
    this.#instruments.syncFailures.inc({ stage });
  }

  /** Time from the annotation endpoints.kubernetes.io/last-change-trigger-time to the kernel. */
  networkProgrammed(family: Family, seconds: number): void {
    this.#instruments.programmingDuration.observe(byFamily(family), seconds);
  }

  /** Time from the arrival of a change's bytes from the API server to the kernel's answer that it is made. */
  changeApplied(seconds: number): void {
    this.#instruments.changeDuration.observe(seconds);
  }

  noLocalEndpoints(family: Family, policy: TrafficPolicy, servicePorts: number): void {
    this.#instruments.noLocalEndpoints.set({ ...byFamily(family), traffic_policy: policy }, servicePorts);
  }

  tableSize(family: Family, virtualServers: number, realServers: number, boundAddresses: number): void {
    this.#instruments.virtualServers.set(byFamily(family), virtualServers);
    this.#instruments.realServers.set(byFamily(family), realServers);
    this.#instruments.boundAddresses.set(byFamily(family), boundAddresses);
  }

  /** Whether the kernel estimates rates for virtual and real servers. */
  estimating(isRunning: boolean): void {
    this.#instruments.estimation.set(isRunning ? 1 : 0);
  }

  /** How full the kernel's tables of connections are; what it does not say is left as it was. */
  tableFill(fill: {
    readonly connections: number;
    readonly connectionBuckets: number | undefined;
    readonly conntrackEntries: number | undefined;
    readonly conntrackLimit: number | undefined;
  }): void {
    const { connections, connectionBuckets, conntrackEntries, conntrackLimit } = this.#instruments;
    connections.set(fill.connections);
    if (fill.connectionBuckets !== undefined) connectionBuckets.set(fill.connectionBuckets);
    if (fill.conntrackEntries !== undefined) conntrackEntries.set(fill.conntrackEntries);
    if (fill.conntrackLimit !== undefined) conntrackLimit.set(fill.conntrackLimit);
  }

  /** `seenBy`: process, port or rules. */
  kubeProxyRunning(seenBy: string, isSeen: boolean): void {
    this.#instruments.kubeProxyRunning.set({ seen_by: seenBy }, isSeen ? 1 : 0);
  }

  /** `unserved`: Services that have a cluster IP of a family that is not served; 0 for one that is. */
  familyServed(family: Family, isServed: boolean, unserved: number): void {
    this.#instruments.familyServed.set(byFamily(family), isServed ? 1 : 0);
    this.#instruments.unservedServices.set(byFamily(family), unserved);
  }

  /** Objects of a sort that the kernel keeps refusing, now. */
  refusedObjects(object: string, count: number): void {
    this.#instruments.refusedObjects.set({ object }, count);
  }

  claimConflicts(servicePorts: number): void {
    this.#instruments.claimConflicts.set(servicePorts);
  }

  /** Whether the Node object of this node's name has been seen. */
  nodeKnown(isKnown: boolean): void {
    this.#instruments.nodeKnown.set(isKnown ? 1 : 0);
  }

  /** Whether the configuration file holds something that cannot be used, while the one before runs on. */
  configRefused(isRefused: boolean): void {
    this.#instruments.configRefused.set(isRefused ? 1 : 0);
  }

  /** `resource` is services, endpointslices or nodes; `reason` one of a fixed set of words, never an object's name. */
  objectSkipped(resource: string, reason: string): void {
    this.#instruments.skippedObjects.inc({ resource, reason });
  }

  /** Objects of `resource` that are left out at present, whole or in part. */
  skippedNow(resource: string, objects: number): void {
    this.#instruments.skippedNow.set({ resource }, objects);
  }

  // The kernel

  netlinkSent(operation: string, messages: number): void {
    this.#instruments.netlinkMessages.inc({ operation }, messages);
  }

  /** `errno` by name: EBUSY. */
  netlinkFailed(operation: string, errno: string): void {
    this.#instruments.netlinkFailures.inc({ operation, errno });
  }

  processSpawned(command: string): void {
    this.#instruments.processes.inc({ command });
  }

  iptablesRestoreFailed(family: Family): void {
    this.#instruments.restoreFailures.inc(byFamily(family));
  }

  xtablesLockWaited(seconds: number): void {
    this.#instruments.xtablesLockWait.observe(seconds);
  }

  conntrackCleaned(family: Family, seconds: number, deletedEntries: number): void {
    this.#instruments.conntrackDuration.observe(byFamily(family), seconds);
    this.#instruments.conntrackDeleted.inc(byFamily(family), deletedEntries);
  }

  // Verification and drain

  driftRepaired(object: DriftObject, kind: DriftKind, count: number): void {
    if (count <= 0) return;
    this.#instruments.driftRepaired.inc({ object, kind }, count);
    this.#instruments.lastRepair.set({ object }, Date.now() / 1000);
  }

  /** `reason` is one of a few words. */
  packetsRefused(family: Family, reason: string, packets: number): void {
    this.#instruments.refusedPackets.inc({ ...byFamily(family), reason }, packets);
  }

  /** What IPVS counts by Service, in place of what it counted before. */
  serviceTraffic(ports: readonly ServicePortTraffic[], cut: number): void {
    this.#services ??= new ServiceMetrics(this.#register);
    this.#services.show(ports, cut);
  }

  verified(seconds: number, at: number): void {
    this.#instruments.verificationDuration.observe(seconds);
    this.#instruments.lastVerification.set(at / 1000);
  }

  draining(realServers: number): void {
    this.#instruments.draining.set(realServers);
  }

  drainFinished(reason: DrainEnd, count = 1): void {
    this.#instruments.drainsFinished.inc({ reason }, count);
  }

  // The API server

  apiRequest({ verb, method, host, code, seconds }: ApiRequest): void {
    this.#instruments.clientDuration.observe({ host, verb }, seconds);
    this.#instruments.clientRequests.inc({ code, host, method });
  }

  watchRestarted(resource: string, reason: string): void {
    this.#instruments.watchRestarts.inc({ resource, reason });
  }

  relisted(resource: string, reason: string): void {
    this.#instruments.relists.inc({ resource, reason });
  }

  watchHeard(resource: string, at: number): void {
    this.#instruments.lastContact.set({ resource }, at / 1000);
  }

  // Our own health server

  /** Which categories make /healthz red at this moment; the others become 0. */
  unhealthy(categories: ReadonlySet<ReasonCategory>): void {
    for (const category of REASON_CATEGORIES)
      this.#instruments.unhealthy.set({ category }, categories.has(category) ? 1 : 0);
  }

  healthzAnswered(code: number): void {
    this.#instruments.healthz.inc({ code: String(code) });
  }

  livezAnswered(code: number): void {
    this.#instruments.livez.inc({ code: String(code) });
  }
}

function byFamily(family: Family): { ip_family: 'IPv4' | 'IPv6' } {
  return { ip_family: family === 4 ? 'IPv4' : 'IPv6' };
}
