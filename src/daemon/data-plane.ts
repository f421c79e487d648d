import { type Logger } from 'pino';
import { type Address, type Family, formatAddress } from '../values/address.js';
import { errorMessage } from '../values/errors.js';
import { type ProxyConfig } from '../config/proxy-config.js';
import { setDefinitions } from '../desired/set-definitions.js';
import { type RunCommand } from '../kernel/command.js';
import { Iptables } from '../kernel/iptables/iptables.js';
import { type IptablesTools } from '../kernel/iptables/detect.js';
import { type LinkEvent, LinkWatch } from '../kernel/rtnetlink/watch.js';
import { type OpenOptionSocket } from '../kernel/ipvs/sockopt.js';
import { IpvsTable } from '../kernel/ipvs/table.js';
import { type RuleFingerprints, openRuleFingerprints } from '../kernel/iptables/fingerprint.js';
import { Sysctl } from '../kernel/node/sysctl.js';
import { ClusterState } from '../model/cluster-state.js';
import { type OpenNetlinkSocket } from '../netlink/socket.js';
import { AddressApplier, DUMMY_LINK } from '../reconcile/address-applier.js';
import { systemClock } from '../reconcile/clock.js';
import { cleanConntrack } from '../reconcile/conntrack-cleaner.js';
import { DesiredUpdater } from '../reconcile/desired-updater.js';
import { DrainTracker } from '../reconcile/drain.js';
import { type Drift } from '../reconcile/drift.js';
import { IpvsApplier, type StaleUdp } from '../reconcile/ipvs-applier.js';
import { type KernelClients, closeKernelClients, openKernelClients } from '../kernel/clients.js';
import { Reconciler } from '../reconcile/reconciler.js';
import { RulesKeeper } from '../reconcile/rules-keeper.js';
import { BoundedFrequencyRunner } from '../reconcile/runner.js';
import { SetApplier } from '../reconcile/set-applier.js';
import { ensureSysctls } from '../reconcile/sysctl-keeper.js';
import { rotationOf } from '../plan/virtual-server-plan.js';
import { type VirtualServerKey, formatVirtualServer, virtualServerFamily } from '../values/virtual-server.js';
import { hasScheduler } from '../kernel/ipvs/probe-scheduler.js';
import { PreflightError } from './preflight-checks.js';
import { ruleSets } from './rule-sets.js';
import { type SyncReporter } from './sync-reporter.js';
import { sysctlsOf } from './sysctls.js';

const DRAIN_POLL_MS = 1000;
const RETRY_MS = 500;
const RULES_RETRY_MS = 5000;
const MAX_RETRY_MS = 30_000;
const FNV_OFFSET = 0x811c9dc5;

export interface DataPlaneParts {
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly families: readonly Family[];
  readonly iptables: IptablesTools;
  readonly run: RunCommand;
  readonly open: OpenNetlinkSocket;
  readonly openOptionSocket: OpenOptionSocket | undefined;
  readonly log: Logger;
  readonly observer: SyncReporter;
}

/** The data plane end of the dataPlane: cluster state in, kernel state out. Sources and servers are joined to it in run.ts. */
export class DataPlane {
  readonly cluster = new ClusterState();
  readonly updater: DesiredUpdater;
  readonly ipvs: IpvsApplier;
  readonly drains: DrainTracker;
  readonly rules: RulesKeeper;
  readonly reconciler: Reconciler;
  readonly runner: BoundedFrequencyRunner;
  readonly clients: KernelClients;
  readonly table: IpvsTable;
  readonly #addresses: AddressApplier;
  readonly #sysctl = new Sysctl();
  readonly #fingerprints: RuleFingerprints | undefined;
  #watch: LinkWatch | undefined;
  #ignoredIndex: number | undefined;
  #cancelDrainPoll: (() => void) | undefined;

  constructor(readonly parts: DataPlaneParts) {
    const { config, families, log, observer } = parts;
    this.clients = openKernelClients(parts.open);
    const { openOptionSocket } = parts;
    this.table = new IpvsTable(this.clients.ipvs, { openOptionSocket });
    const excludeCIDRs = families.flatMap((family) => config.excludeCIDRs[family]);
    const definitions = new Map(families.flatMap(setDefinitions).map((definition) => [definition.name, definition]));
    this.updater = new DesiredUpdater(
      this.cluster,
      { nodeName: parts.nodeName, scheduler: config.scheduler, families, nodePorts: config.nodePortAddresses },
      observer,
    );
    const seed = rotationOf(FNV_OFFSET, parts.nodeName as VirtualServerKey);
    this.ipvs = new IpvsApplier(this.clients.ipvs, seed, excludeCIDRs, (server) => this.drains.note(server));
    this.drains = new DrainTracker(
      this.ipvs,
      systemClock,
      config.drainTimeoutMs,
      (how, count) => observer.metrics.drainFinished(how, count),
      (server, expected) => this.table.connections(server, expected),
    );
    this.#addresses = new AddressApplier(
      this.clients.links,
      () => this.cluster.localAddresses,
      (index) => this.#watchAddresses(index),
    );
    this.#fingerprints = openRuleFingerprints(parts.iptables.backend, {
      netlink: parts.open,
      options: openOptionSocket,
    });
    this.rules = new RulesKeeper(
      new Iptables(parts.iptables, parts.run),
      () => ruleSets(config, families, this.cluster.node, parts.iptables.randomFully),
      (ms) => observer.lockWaited(ms),
      (outcome) => {
        observer.rulesChecked(outcome);
        if (outcome.error !== undefined) systemClock.after(RULES_RETRY_MS, () => this.rules.check());
      },
      (family) => this.#fingerprints?.read(family),
    );
    this.reconciler = new Reconciler({
      cluster: this.cluster,
      updater: this.updater,
      ipvs: this.ipvs,
      addresses: this.#addresses,
      sets: new SetApplier(this.clients.ipset, definitions),
      drains: this.drains,
      rules: this.rules,
      sources: { table: this.table, links: this.clients.links, ipset: this.clients.ipset, definitions },
      definitions,
      excludeCIDRs,
      clock: systemClock,
      verifyInterval: config.syncPeriodMs,
      minInterval: config.minSyncPeriodMs,
      cleanConntrack: (stale) => this.#cleanConntrack(stale),
      ensureSysctls: (drift) => this.#ensureSysctls(drift),
      onSync: (report) => observer.synced(report, this),
      onInterleaved: () => observer.interleaved(),
    });
    this.runner = new BoundedFrequencyRunner(
      () => this.#sync(),
      {
        minInterval: config.minSyncPeriodMs,
        maxInterval: config.syncPeriodMs,
        retryInterval: RETRY_MS,
        maxRetryInterval: MAX_RETRY_MS,
      },
      systemClock,
    );
    const { refusal } = this.table;
    const noSockopt = refusal === undefined ? {} : { getsockoptRefused: errorMessage(refusal) };
    log.debug({ families, iptables: parts.iptables, ...noSockopt }, 'data plane opened');
  }

  /** The scheduler is probed, sysctls and IPVS timeouts are set. Throws PreflightError, or NetlinkError. */
  prepare(): void {
    const { scheduler } = this.parts.config;
    if (!hasScheduler(this.clients.ipvs, scheduler))
      throw new PreflightError(
        `the kernel has no IPVS scheduler "${scheduler}" (fix: modprobe ip_vs_${scheduler} on the node, or set ipvs.scheduler to one that it has)`,
      );
    this.#ensureSysctls(undefined);
    this.rules.prefetch();
    const { config } = this.parts;
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

  /** Finishes the batch in flight and leaves the data plane in place. */
  async stop(): Promise<void> {
    this.#cancelDrainPoll?.();
    await Promise.all([this.runner.stop(), this.rules.stop(), this.#watch?.close()]);
    this.table.close();
    this.#fingerprints?.close();
    closeKernelClients(this.clients);
  }

  async #sync(): Promise<boolean> {
    const { observer } = this.parts;
    observer.syncStarted();
    try {
      const ok = await this.reconciler.sync();
      observer.syncEnded(ok);
      this.#planDrainPoll();
      return ok;
    } catch (error) {
      observer.syncFailed(error);
      return false;
    }
  }

  /** While real servers drain, look at them every second; no change of the cluster would. */
  #planDrainPoll(): void {
    this.#cancelDrainPoll?.();
    this.#cancelDrainPoll = undefined;
    if (this.drains.size === 0) return;
    this.#cancelDrainPoll = systemClock.after(DRAIN_POLL_MS, () => this.runner.request());
  }

  /** Listens for addresses that come and go; our own additions to the dummy link are filtered out in the kernel. */
  #watchAddresses(index: number): void {
    if (this.#watch === undefined) this.#openWatch();
    if (index === this.#ignoredIndex) return;
    this.#watch?.ignoreAddressesAddedTo(index);
    this.#ignoredIndex = index;
  }

  #openWatch(): void {
    const { log } = this.parts;
    const relist = (reason: unknown): void => {
      log.warn({ reason: errorMessage(reason) }, 'address events were lost: reading all addresses again');
      this.reconciler.wantVerification();
      this.runner.request();
    };
    this.#watch = new LinkWatch(this.parts.open, {
      onEvent: (event) => this.#onLinkEvent(event),
      onOverrun: relist,
      onError: (error) => {
        this.#watch = undefined;
        this.#ignoredIndex = undefined;
        this.reconciler.linkLost(); // the next sync looks at the link and listens anew
        relist(error);
      },
    });
    // What happened before is not told: the sync that this is part of reads the addresses.
    this.reconciler.wantAddresses();
  }

  #onLinkEvent(event: LinkEvent): void {
    const dummy = this.#addresses.index;
    if ('link' in event) {
      if (event.kind !== 'link-removed' || event.link.index !== dummy) return;
      this.parts.log.warn({ link: DUMMY_LINK }, `${DUMMY_LINK} was removed: restoring it`);
      this.reconciler.linkLost();
      this.runner.request();
      return;
    }
    const { address, index } = event.address;
    if (index !== dummy) this.reconciler.wantAddresses();
    else if (!this.reconciler.touchAddress(address, event.kind === 'address-added')) return;
    else this.#noteAddressDrift(address, event.kind === 'address-added' ? 'extra' : 'missing');
    this.runner.request();
  }

  #noteAddressDrift(address: Address, kind: 'extra' | 'missing'): void {
    this.parts.observer.driftRepaired('address', kind, formatAddress(address));
  }

  #cleanConntrack(stale: readonly StaleUdp[]): number {
    const { observer, log } = this.parts;
    const start = performance.now();
    try {
      const { deleted, failures } = cleanConntrack(this.clients.conntrack, stale);
      const families = new Set(stale.map(({ server }) => virtualServerFamily(server)));
      for (const family of families) observer.conntrackCleaned(family, performance.now() - start, deleted);
      for (const failure of failures) log.warn({ error: failure.message }, 'a conntrack entry could not be deleted');
      return deleted;
    } catch (error) {
      const servers = stale.slice(0, 5).map(({ server }) => formatVirtualServer(server));
      log.error(
        { error: errorMessage(error), servers },
        'stale conntrack entries of UDP backends could not be removed',
      );
      return 0;
    }
  }

  #ensureSysctls(drift: Drift | undefined): void {
    const { config, log } = this.parts;
    const wanted = sysctlsOf(config);
    const { changed, failures } = ensureSysctls(this.#sysctl, wanted);
    for (const name of changed) drift?.add('sysctl', 'changed', () => name);
    if (drift === undefined && changed.length > 0) log.info({ sysctls: changed }, 'sysctls set');
    for (const { wanted: sysctl, message } of failures)
      this.parts.observer.sysctlFailed(sysctl.name, message, sysctl.required);
  }
}
