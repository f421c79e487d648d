import { type OpenOptionSocket } from '../kernel/option-socket.js';
import { type Logger } from 'pino';
import { type Family } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { ipsetDefinitions } from '../desired/ipset-definitions.js';
import { type KernelClients, closeKernelClients, openKernelClients } from '../kernel/clients.js';
import { type RunCommand } from '../kernel/command.js';
import { type IptablesTools } from '../kernel/iptables/detect.js';
import { type RuleFingerprints, openRuleFingerprints } from '../kernel/iptables/fingerprint.js';
import { Iptables } from '../kernel/iptables/iptables.js';
import { hasScheduler } from '../kernel/ipvs/probe-scheduler.js';
import { IpvsTable, type IpvsTableOptions } from '../kernel/ipvs/table.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { ClusterState } from '../model/cluster-state.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';
import { rotationOf } from '../plan/virtual-server-plan.js';
import { AddressApplier } from '../reconcile/address-applier.js';
import { type Clock } from '../time/clock.js';
import { ConntrackCleaner } from '../reconcile/conntrack-cleaner.js';
import { DeletionBudget } from '../reconcile/deletion-budget.js';
import { DesiredUpdater } from '../reconcile/desired-updater.js';
import { DrainTracker } from '../reconcile/drain.js';
import { EstimationKeeper, type EstimationState } from '../reconcile/estimation.js';
import { IpvsApplier } from '../reconcile/ipvs-applier.js';
import { LinkMonitor } from '../reconcile/link-monitor.js';
import { type ObservedSources } from '../reconcile/observe-kernel.js';
import { StopFlag } from '../reconcile/pacer.js';
import { Reconciler } from '../reconcile/reconciler.js';
import { IptablesKeeper } from '../reconcile/iptables-keeper.js';
import { BoundedFrequencyRunner } from '../reconcile/runner.js';
import { IpsetApplier } from '../reconcile/ipset-applier.js';
import { type SyncRecord } from '../reconcile/sync-record.js';
import { SysctlKeeper } from '../reconcile/sysctl-keeper.js';
import { PreflightError } from './preflight-checks.js';
import { Uplinks } from '../kernel/node/uplinks.js';
import { ruleSets } from './iptables-rule-sets.js';
import { type SyncReporter } from './sync-reporter.js';
import { sysctlsOf } from './sysctls.js';

const RETRY_MS = 500;
const MAX_RETRY_MS = 30_000;
/** After the first verification, which ends the start, and then every ten minutes: once in so many of them. */
const RELEASE_EVERY = 20;
const FNV_OFFSET = 0x811c9dc5;

/** The outside world, so that tests can put another in its place. */
export interface World {
  readonly openNetlinkSocket: OpenNetlinkSocket;
  /** Without it the IPVS table is read through netlink, at three times the cost. */
  readonly openOptionSocket: OpenOptionSocket | undefined;
  readonly runCommand: RunCommand;
  readonly clock: Clock;
  /** Gives freed memory back to the kernel. */
  readonly releaseFreedMemory?: (() => void) | undefined;
  /** `/proc/sys` */
  readonly sysctlRoot: string;
  /** How the IPVS table is read; by `openOptionSocket` unless it is said. */
  readonly table?: IpvsTableOptions;
}

export interface DataPlaneOptions {
  readonly world: World;
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly families: readonly Family[];
  /** Why other families are not served, for the status page. */
  readonly leftOut?: readonly string[];
  readonly iptables: IptablesTools;
  readonly log: Logger;
  readonly reporter: SyncReporter;
  /** Made from the configuration unless it is handed in, with a cluster. */
  readonly updater?: DesiredUpdater;
}

/** The data plane: cluster state in, kernel state out. Sources and servers are joined to it in run.ts. */
export class DataPlane {
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly drains: DrainTracker;
  readonly iptables: Iptables;
  readonly rules: IptablesKeeper;
  readonly sysctls: SysctlKeeper;
  readonly reconciler: Reconciler;
  readonly runner: BoundedFrequencyRunner;
  readonly clients: KernelClients;
  readonly table: IpvsTable;
  /** What the kernel is read by. */
  readonly sources: ObservedSources;
  readonly #estimation: EstimationKeeper;
  #verifications = 0;
  #estimationState: EstimationState = { isRunning: undefined, note: undefined };
  readonly #stop = new StopFlag();
  readonly #monitor: LinkMonitor;
  readonly #fingerprints: RuleFingerprints | undefined;

  /** Opens the kernel's interfaces; throws the errors of `openKernelClients`. */
  constructor(readonly options: DataPlaneOptions) {
    const { world, config, families, log } = options;
    const { openNetlinkSocket, openOptionSocket, clock } = world;
    this.clients = openKernelClients(openNetlinkSocket);
    this.table = new IpvsTable(this.clients.ipvs, world.table ?? { openOptionSocket });
    const definitions = new Map(families.flatMap(ipsetDefinitions).map((definition) => [definition.name, definition]));
    const { links, ipset } = this.clients;
    this.sources = { table: this.table, links, ipset, definitions, vips: config.vips };
    this.updater = options.updater ?? newUpdater(options);
    this.ipvs = this.#newIpvsApplier();
    this.drains = this.#newDrainTracker();
    this.iptables = new Iptables(options.iptables, world.runCommand);
    this.#fingerprints = openRuleFingerprints(options.iptables.backend, {
      netlink: openNetlinkSocket,
      options: openOptionSocket,
    });
    this.rules = this.#newRulesKeeper();
    const sysctl = new Sysctl(world.sysctlRoot);
    this.sysctls = new SysctlKeeper(sysctl, sysctlsOf(config, world.sysctlRoot));
    this.#estimation = new EstimationKeeper(sysctl, config.estimation);
    this.#monitor = new LinkMonitor(
      openNetlinkSocket,
      () => this.reconciler.pending.drift,
      () => this.runner.request(),
      config.vips,
    );
    this.reconciler = this.#newReconciler();
    this.runner = new BoundedFrequencyRunner(async () => (await this.sync()).ok, runnerOptions(options), clock);
    const { refusal } = this.table;
    const noSockopt = refusal === undefined ? {} : { getsockoptRefused: errorMessage(refusal) };
    log.debug({ families, iptables: options.iptables, ...noSockopt }, 'data plane opened');
  }

  get cluster(): ClusterState {
    return this.updater.cluster;
  }

  /** The scheduler is probed, sysctls and IPVS timeouts are set. Throws PreflightError, or NetlinkError. */
  prepare(): void {
    const { config, reporter } = this.options;
    const { scheduler } = config;
    if (!hasScheduler(this.clients.ipvs, scheduler))
      throw new PreflightError(
        `the kernel has no IPVS scheduler "${scheduler}" (fix: modprobe ip_vs_${scheduler} on the node, or set ipvs.scheduler to one that it has)`,
      );
    reporter.sysctlsPrepared(this.sysctls.ensure('start'));
    this.rules.prefetch();
    const seconds = (ms: number): number => Math.round(ms / 1000);
    const timeouts = {
      tcp: seconds(config.ipvsTcpTimeoutMs),
      tcpFin: seconds(config.ipvsTcpFinTimeoutMs),
      udp: seconds(config.ipvsUdpTimeoutMs),
    };
    if (timeouts.tcp + timeouts.tcpFin + timeouts.udp > 0) this.clients.ipvs.setTimeouts(timeouts);
  }

  /** Both caches have synced: from now on the kernel follows. */
  start(): void {
    this.runner.request();
  }

  /** One sync, reported; the runner's, unless a test wants one by hand. Rejects for errors of this program alone. */
  async sync(): Promise<SyncRecord> {
    const { reporter, world } = this.options;
    reporter.syncStarted();
    const record = await this.reconciler.sync();
    reporter.syncEnded(record, this);
    if (record.adopted || record.verified !== undefined) this.#estimate();
    if (record.verified !== undefined && this.#verifications++ % RELEASE_EVERY === 0) world.releaseFreedMemory?.();
    // After a failure the runner's own retry comes first.
    if (record.ok) this.runner.requestWithin(this.reconciler.dueIn);
    return record;
  }

  /** Breaks the sync in flight off after its batch, and leaves the data plane in place: the next start adopts it. */
  async stop(): Promise<void> {
    this.#stop.stop();
    await Promise.all([this.runner.stop(), this.rules.stop(), this.#monitor.close()]);
    this.table.close();
    this.#fingerprints?.close();
    closeKernelClients(this.clients);
  }

  /** Whether the kernel estimates rates, as of the last verification. */
  get estimation(): EstimationState {
    return this.#estimationState;
  }

  #estimate(): void {
    const { log } = this.options;
    const before = this.#estimationState.note;
    const state = (this.#estimationState = this.#estimation.ensure(this.table.counts.realServers));
    if (state.note !== undefined && state.note !== before) log.info(state.note);
    else if (state.note === undefined && before !== undefined) log.info('IPVS estimation is on again');
  }

  #newIpvsApplier(): IpvsApplier {
    const { config, families, nodeName, world } = this.options;
    const seed = rotationOf(FNV_OFFSET, nodeName as VirtualServerKey);
    const excludeCIDRs = families.flatMap((family) => config.excludeCIDRs[family]);
    const onChanged = (server: VirtualServerKey): void => this.drains.note(server);
    return new IpvsApplier(this.clients.ipvs, seed, excludeCIDRs, onChanged, new DeletionBudget(world.clock));
  }

  #newDrainTracker(): DrainTracker {
    const { config, world, reporter } = this.options;
    return new DrainTracker({
      applier: this.ipvs,
      clock: world.clock,
      timeout: config.drainTimeoutMs,
      onEnd: (how, count) => reporter.metrics.drainFinished(how, count),
      connectionsOf: (server, expected) => this.table.connections(server, expected),
    });
  }

  #newRulesKeeper(): IptablesKeeper {
    const { config, families, iptables, world, reporter } = this.options;
    const uplinks = new Uplinks();
    return new IptablesKeeper({
      iptables: this.iptables,
      ruleSets: () => ruleSets(config, families, this.cluster.node, iptables.randomFully, uplinks),
      clock: world.clock,
      onLockWait: (ms) => reporter.lockWaited(ms),
      onOutcome: (outcome) => reporter.rulesChecked(outcome),
      fingerprint: (family) => this.#fingerprints?.read(family),
    });
  }

  #newReconciler(): Reconciler {
    const { config, world, reporter } = this.options;
    const { clients, sources } = this;
    return new Reconciler({
      updater: this.updater,
      ipvs: this.ipvs,
      addresses: new AddressApplier(clients.links, () => this.cluster.localAddresses, config.vips),
      sets: new IpsetApplier(clients.ipset, sources.definitions),
      drains: this.drains,
      rules: this.rules,
      sysctls: this.sysctls,
      conntrack: new ConntrackCleaner({
        conntrack: clients.conntrack,
        clock: world.clock,
        applied: this.ipvs.applied,
      }),
      sources,
      watchLink: (index, listener) => this.#monitor.watch(index, listener),
      excludeCIDRs: this.ipvs.excludeCIDRs,
      clock: world.clock,
      stop: this.#stop,
      verifyInterval: config.syncPeriodMs,
      minInterval: config.minSyncPeriodMs,
      onTaken: () => reporter.changesTaken(),
      onApplied: (interleaved) => reporter.changesApplied(interleaved),
    });
  }
}

function newUpdater({ config, nodeName, families, reporter }: DataPlaneOptions): DesiredUpdater {
  const { scheduler, nodePortAddresses: nodePorts, nodeIP, allowsExternalIPs } = config;
  const settings = { nodeName, scheduler, families, nodePorts, nodeIP, allowsExternalIPs };
  return new DesiredUpdater(new ClusterState(), settings, reporter);
}

function runnerOptions({ config, reporter }: DataPlaneOptions): BoundedFrequencyRunner['options'] {
  return {
    minInterval: config.minSyncPeriodMs,
    retryInterval: RETRY_MS,
    maxRetryInterval: Math.min(MAX_RETRY_MS, config.syncPeriodMs),
    onError: (error) => reporter.syncCrashed(error),
  };
}
