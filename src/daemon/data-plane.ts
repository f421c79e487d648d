import { isDeepStrictEqual } from 'node:util';
import { type Logger } from 'pino';
import { type Family } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type VirtualServerKey } from '../values/virtual-server.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { ipsetDefinitions } from '../desired/ipset-definitions.js';
import { NFTABLES_TABLE } from '../values/nftables.js';
import { type RuleConfig } from '../desired/rule-config.js';
import { type KernelClients, closeKernelClients, openKernelClients, setBackendOf } from '../kernel/clients.js';
import { type IptablesTools } from '../kernel/iptables/detect.js';
import { hasScheduler } from '../kernel/ipvs/probe-scheduler.js';
import { IpvsTable } from '../kernel/ipvs/table.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { ClusterState } from '../model/cluster-state.js';
import { rotationOf } from '../plan/virtual-server-plan.js';
import { AddressApplier } from '../reconcile/address-applier.js';
import { ConntrackCleaner } from '../reconcile/conntrack-cleaner.js';
import { DeletionBudget } from '../reconcile/deletion-budget.js';
import { type DesiredSettings, DesiredUpdater } from '../reconcile/desired-updater.js';
import { DrainTracker } from '../reconcile/drain.js';
import { EstimationKeeper, type EstimationState } from '../reconcile/estimation.js';
import { IpvsApplier } from '../reconcile/ipvs-applier.js';
import { LinkMonitor } from '../reconcile/link-monitor.js';
import { type ObservedSources } from '../reconcile/observe-kernel.js';
import { StopFlag } from '../time/pacer.js';
import { Reconciler } from '../reconcile/reconciler.js';
import { type RulesKeeper } from '../reconcile/rules-keeper.js';
import { BoundedFrequencyRunner } from '../reconcile/runner.js';
import { IpsetApplier } from '../reconcile/ipset-applier.js';
import { type SyncRecord } from '../reconcile/sync-record.js';
import { SysctlKeeper } from '../reconcile/sysctl-keeper.js';
import { PreflightError } from './preflight-checks.js';
import { Uplinks } from '../kernel/node/uplinks.js';
import { type Handover } from './rules/handover.js';
import { type OtherModes, type RuleBackend, openRuleBackend } from './rules/rule-backend.js';
import { ruleConfigs } from './rules/rule-configs.js';
import { type SyncReporter } from './report/sync-reporter.js';
import { type World } from './world.js';
import { sysctlsOf } from './sysctls.js';

const RETRY_MS = 500;
const MAX_RETRY_MS = 30_000;
/** After the first verification, which ends the start, and then every ten minutes: once in so many of them. */
const RELEASE_EVERY = 20;
const FNV_OFFSET = 0x811c9dc5;

export interface DataPlaneOptions {
  readonly world: World;
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly families: readonly Family[];
  /** Why other families are not served, for the status page. */
  readonly leftOut?: readonly string[];
  /** Undefined: the rules are in nf_tables. */
  readonly iptables: IptablesTools | undefined;
  readonly log: Logger;
  readonly reporter: SyncReporter;
  /** What the other backend of rules has left, where it is to be taken over from. */
  readonly handover?: Handover | undefined;
  /** kube-proxy's nftables mode on this node. */
  readonly otherModes?: OtherModes | undefined;
  /** Made from the configuration unless it is handed in, with a cluster. */
  readonly updater?: DesiredUpdater;
}

/** The data plane: cluster state in, kernel state out. Sources and servers are joined to it in run.ts. */
export class DataPlane {
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly drains: DrainTracker;
  readonly ruleBackend: RuleBackend;
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
  #config: ProxyConfig;
  readonly #stop = new StopFlag();
  readonly #monitor: LinkMonitor;
  readonly #uplinks = new Uplinks();
  #isHandedOver = false;
  #handingOver: Promise<void> | undefined;

  /** Opens the kernel's interfaces; throws the errors of `openKernelClients`. */
  constructor(readonly options: DataPlaneOptions) {
    const { world, config, families, log } = options;
    this.#config = config;
    const { openNetlinkSocket, openOptionSocket, clock } = world;
    this.clients = openKernelClients(openNetlinkSocket, options.iptables ? undefined : NFTABLES_TABLE);
    this.table = new IpvsTable(this.clients.ipvs, world.table ?? { openOptionSocket });
    const definitions = new Map(families.flatMap(ipsetDefinitions).map((definition) => [definition.name, definition]));
    const { links } = this.clients;
    this.sources = { table: this.table, links, sets: setBackendOf(this.clients), definitions, vips: config.vips };
    this.updater = options.updater ?? newUpdater(options);
    this.ipvs = this.#newIpvsApplier();
    this.drains = this.#newDrainTracker();
    this.ruleBackend = openRuleBackend({ ...options, ruleConfigs: () => this.ruleConfigs() });
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
    this.runner = new BoundedFrequencyRunner(async () => (await this.sync()).ok, this.#runnerOptions(), clock);
    const { refusal } = this.table;
    const noSockopt = refusal === undefined ? {} : { getsockoptRefused: errorMessage(refusal) };
    log.debug(
      { families, rules: this.ruleBackend.name, iptables: options.iptables, ...noSockopt },
      'data plane opened',
    );
  }

  get rules(): RulesKeeper {
    return this.ruleBackend.keeper;
  }

  /** What the rules of each family depend on, as it is known now. */
  ruleConfigs(): RuleConfig[] {
    const { families, iptables } = this.options;
    return ruleConfigs(this.#config, families, this.cluster.node, iptables?.randomFully ?? true, this.#uplinks);
  }

  /** What it runs with now. */
  get config(): ProxyConfig {
    return this.#config;
  }

  get cluster(): ClusterState {
    return this.updater.cluster;
  }

  /** The scheduler is probed, sysctls and IPVS timeouts are set. Throws PreflightError, or NetlinkError. */
  prepare(): void {
    this.#probeScheduler(this.#config);
    this.options.reporter.sysctlsPrepared(this.sysctls.ensure('start'));
    this.rules.prefetch();
    this.#setTimeouts(this.#config);
  }

  /**
   * From now on it runs with `next`; what differs from before goes to the kernel with the next sync, and nothing else
   * does. Throws PreflightError or NetlinkError, having changed nothing, when the kernel lacks the scheduler.
   */
  reconfigure(next: ProxyConfig): void {
    const { families, world, reporter } = this.options;
    const before = this.#config;
    if (isDeepStrictEqual(before, next)) return;
    if (next.scheduler !== before.scheduler) this.#probeScheduler(next);
    if (!isDeepStrictEqual(timeoutsOf(before), timeoutsOf(next))) this.#setTimeouts(next);
    this.#config = next;
    const settings = desiredSettings(this.options, next);
    if (!isDeepStrictEqual(settings, this.updater.settings)) this.updater.changeSettings(settings);
    this.ipvs.excludeCIDRs = families.flatMap((family) => next.excludeCIDRs[family]);
    this.sysctls.desired = sysctlsOf(next, world.sysctlRoot);
    reporter.sysctlsPrepared(this.sysctls.ensure('start'));
    if (this.reconciler.adopted) this.rules.desiredChanged();
    // What is no longer excluded is looked at, and so is a period that is over by now.
    if (!isDeepStrictEqual(before.excludeCIDRs, next.excludeCIDRs)) this.reconciler.pending.verification = true;
    if (this.reconciler.adopted) this.runner.request();
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
    if (record.ok) {
      this.runner.requestWithin(this.reconciler.dueIn);
      this.#handOver();
    }
    return record;
  }

  /** Breaks the sync in flight off after its batch, and leaves the data plane in place: the next start adopts it. */
  async stop(): Promise<void> {
    this.#stop.stop();
    await Promise.all([this.runner.stop(), this.rules.stop(), this.#monitor.close(), this.#handingOver]);
    this.options.handover?.close();
    this.table.close();
    this.ruleBackend.close();
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

  /** Sets and IPVS are complete. Once the rules are, too, nothing needs the other backend's any more. */
  #handOver(): void {
    const { handover } = this.options;
    if (handover === undefined || this.#isHandedOver) return;
    this.#isHandedOver = true;
    this.#handingOver = this.rules.settled().then(() => {
      if (this.rules.lastError === undefined) return handover.finish();
      this.#isHandedOver = false; // with the next sync
      return undefined;
    });
  }

  #probeScheduler({ scheduler }: ProxyConfig): void {
    if (hasScheduler(this.clients.ipvs, scheduler)) return;
    throw new PreflightError(
      `the kernel has no IPVS scheduler "${scheduler}" (fix: modprobe ip_vs_${scheduler} on the node, or set ipvs.scheduler to one that it has)`,
    );
  }

  /** 0 leaves the kernel's value as it is. */
  #setTimeouts(config: ProxyConfig): void {
    const timeouts = timeoutsOf(config);
    if (timeouts.tcp + timeouts.tcpFin + timeouts.udp > 0) this.clients.ipvs.setTimeouts(timeouts);
  }

  #runnerOptions(): BoundedFrequencyRunner['options'] {
    const config = (): ProxyConfig => this.#config;
    return {
      get minInterval() {
        return config().minSyncPeriodMs;
      },
      retryInterval: RETRY_MS,
      get maxRetryInterval() {
        return Math.min(MAX_RETRY_MS, config().syncPeriodMs);
      },
      onError: (error) => this.options.reporter.syncCrashed(error),
    };
  }

  #newIpvsApplier(): IpvsApplier {
    const { config, families, nodeName, world } = this.options;
    const seed = rotationOf(FNV_OFFSET, nodeName as VirtualServerKey);
    const excludeCIDRs = families.flatMap((family) => config.excludeCIDRs[family]);
    const onChanged = (server: VirtualServerKey): void => this.drains.note(server);
    return new IpvsApplier(this.clients.ipvs, seed, excludeCIDRs, onChanged, new DeletionBudget(world.clock));
  }

  #newDrainTracker(): DrainTracker {
    const { world, reporter } = this.options;
    const config = (): ProxyConfig => this.#config;
    return new DrainTracker({
      applier: this.ipvs,
      clock: world.clock,
      get timeout() {
        return config().drainTimeoutMs;
      },
      onEnd: (how, count) => reporter.metrics.drainFinished(how, count),
      connectionsOf: (server, expected) => this.table.connections(server, expected),
    });
  }

  #newReconciler(): Reconciler {
    const { world, reporter } = this.options;
    const { clients, sources } = this;
    return new Reconciler({
      updater: this.updater,
      ipvs: this.ipvs,
      addresses: new AddressApplier(clients.links, () => this.cluster.localAddresses, this.#config.vips),
      sets: new IpsetApplier(sources.sets, sources.definitions),
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
      clock: world.clock,
      stop: this.#stop,
      earlier: this.options.handover?.sets,
      verifyInterval: () => this.#config.syncPeriodMs,
      minInterval: () => this.#config.minSyncPeriodMs,
      onTaken: () => reporter.changesTaken(),
      onApplied: (interleaved) => reporter.changesApplied(interleaved),
    });
  }
}

function newUpdater(options: DataPlaneOptions): DesiredUpdater {
  return new DesiredUpdater(new ClusterState(), desiredSettings(options, options.config), options.reporter);
}

function desiredSettings(
  { nodeName, families, iptables }: Pick<DataPlaneOptions, 'nodeName' | 'families' | 'iptables'>,
  { scheduler, nodePortAddresses: nodePorts, nodeIP, allowsExternalIPs }: ProxyConfig,
): DesiredSettings {
  const widestRangesOnly = iptables === undefined;
  return { nodeName, scheduler, families, nodePorts, nodeIP, allowsExternalIPs, widestRangesOnly };
}

/** In seconds, as the kernel counts them. */
function timeoutsOf(config: ProxyConfig): { tcp: number; tcpFin: number; udp: number } {
  const seconds = (ms: number): number => Math.round(ms / 1000);
  const { ipvsTcpTimeoutMs, ipvsTcpFinTimeoutMs, ipvsUdpTimeoutMs } = config;
  return { tcp: seconds(ipvsTcpTimeoutMs), tcpFin: seconds(ipvsTcpFinTimeoutMs), udp: seconds(ipvsUdpTimeoutMs) };
}
