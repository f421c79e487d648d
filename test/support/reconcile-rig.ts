/**
 * The whole reconciler over fake kernels that take real netlink bytes, with a small cluster and a clock moved by hand.
 */
import assert from 'node:assert/strict';
import { type ProxyConfig } from '../../src/config/proxy-config.js';
import { type DataPlane } from '../../src/daemon/data-plane.js';
import { type KernelClients, messagesSent } from '../../src/kernel/clients.js';
import { type NetlinkSocket, NETLINK_NETFILTER, type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { type DrainTracker } from '../../src/reconcile/drain.js';
import { type IpvsApplier } from '../../src/reconcile/ipvs-applier.js';
import { type Reconciler } from '../../src/reconcile/reconciler.js';
import { type StaleUdp, type SyncRecord } from '../../src/reconcile/sync-record.js';
import { type Family, familyOf } from '../../src/values/address.js';
import { type Prefix, parsePrefix } from '../../src/values/prefix.js';
import { FakeIpvs } from '../fakes/fake-kernel-ipvs.js';
import { FakeLinks } from '../fakes/fake-kernel-links.js';
import { FakeKernel } from '../fakes/fake-kernel.js';
import { FakeNetfilter } from '../fakes/fake-nfnetlink.js';
import { fakeOptionSocket } from '../fakes/fake-option-socket.js';
import { HandClock } from '../fakes/hand-clock.js';
import { TestCluster } from './desired-cluster.js';
import { stoppedClock, testDataPlane } from './test-world.js';

export const VERIFY_MS = 30_000;
export const DRAIN_MS = 900_000;

/** One Service with two endpoints. */
export function web(): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web');
  cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
  return cluster;
}

/** The kernel alone, so that one reconciler can follow another on it, as after a restart. */
export class TestKernel {
  readonly netlink = new FakeKernel();
  readonly ipvs = new FakeIpvs(this.netlink);
  readonly links = new FakeLinks(this.netlink);
  readonly netfilter = new FakeNetfilter();

  constructor() {
    this.links.addLink('eth0');
    this.links.addAddress('eth0', '10.200.0.2', 24);
    this.links.addAddress('eth0', 'fd00:200::2', 64);
  }

  readonly open: OpenNetlinkSocket = (protocol, groups): NetlinkSocket =>
    protocol === NETLINK_NETFILTER ? this.netfilter.open(protocol) : this.netlink.open(protocol, groups);
}

export class ReconcileRig {
  readonly clock = new HandClock();
  readonly dataPlane: DataPlane;
  readonly reports: SyncRecord[] = [];

  constructor(
    readonly cluster = new TestCluster({ families: [4] }),
    readonly kernel = new TestKernel(),
    excluded: readonly string[] = [],
    sysctlRoot?: string,
    config: Partial<ProxyConfig> = {},
  ) {
    const sameRights = {
      get permitted() {
        return kernel.netlink.permitted;
      },
    };
    this.dataPlane = testDataPlane({
      openNetlinkSocket: kernel.open,
      openOptionSocket: fakeOptionSocket(kernel.ipvs, sameRights),
      clock: stoppedClock(() => this.clock.now()),
      config: {
        syncPeriodMs: VERIFY_MS,
        minSyncPeriodMs: 0,
        drainTimeoutMs: DRAIN_MS,
        excludeCIDRs: prefixes(excluded),
        ...config,
      },
      updater: cluster.updater,
      ...(sysctlRoot === undefined ? {} : { sysctlRoot }),
    });
  }

  get clients(): KernelClients {
    return this.dataPlane.clients;
  }

  get ipvs(): IpvsApplier {
    return this.dataPlane.ipvs;
  }

  get drains(): DrainTracker {
    return this.dataPlane.drains;
  }

  get reconciler(): Reconciler {
    return this.dataPlane.reconciler;
  }

  /** What the last sync took away of UDP backends. */
  get stale(): readonly StaleUdp[] {
    return this.reports.at(-1)!.staleUdp;
  }

  /** One sync; what it did. */
  async sync(): Promise<SyncRecord> {
    const record = await this.dataPlane.sync();
    this.reports.push(record);
    return record;
  }

  /** A sync at which verification is due; what it found, as `missing address`. */
  async verify(): Promise<string[]> {
    await this.clock.advance(VERIFY_MS);
    const { verified, drift } = await this.sync();
    assert.ok(verified !== undefined);
    return [...drift.counts.values()].map(({ kind, object, count }) => `${count} ${kind} ${object}`).sort();
  }

  /** Netlink messages of all clients so far. */
  get messages(): number {
    return Object.values(messagesSent(this.clients)).reduce((sum, count) => sum + count, 0);
  }

  /** Everything of ours in the kernel, as lines. */
  state(): string[] {
    const { ipvs, links, netfilter } = this.kernel;
    const sets = [...netfilter.ipset!.sets].flatMap(([name, { elements }]) =>
      [...elements.keys()].map((element) => `${name} ${element}`),
    );
    return [...ipvs.dump(), ...links.addressesOf('kube-ipvs0'), ...sets.sort()];
  }

  /** The virtual server's real servers with their weights: `10.0.0.1:8080=1 10.0.0.2:8080=0`. */
  weights(server: string): string {
    const lines = this.kernel.ipvs.dump().filter((line) => line.startsWith(`${server} -> `));
    return lines.map((line) => line.replace(/.* -> (\S+) weight=/, '$1=')).join(' ');
  }
}

function prefixes(texts: readonly string[]): Record<Family, Prefix[]> {
  const parsed = texts.map((text) => parsePrefix(text)!);
  const of = (family: Family): Prefix[] => parsed.filter(({ address }) => familyOf(address) === family);
  return { 4: of(4), 6: of(6) };
}
