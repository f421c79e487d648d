/**
 * The whole reconciler over fake kernels that take real netlink bytes, with a small cluster and a clock moved by hand.
 */
import assert from 'node:assert/strict';
import { type ProxyConfig } from '../../src/config/proxy-config.js';
import { type KernelClients } from '../../src/kernel/clients.js';
import { type DrainTracker } from '../../src/reconcile/drain.js';
import { type IpvsApplier } from '../../src/reconcile/ipvs-applier.js';
import { type StaleUdp, type SyncRecord } from '../../src/reconcile/sync-record.js';
import { type Family, familyOf } from '../../src/values/address.js';
import { type Prefix, parsePrefix } from '../../src/values/prefix.js';
import { TestKernel } from '../fakes/test-kernel.js';
import { TestCluster } from './desired-cluster.js';
import { Rig, VERIFY_MS } from './rig.js';

export const DRAIN_MS = 900_000;

/** One Service with two endpoints. */
export function web(): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('web');
  cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
  return cluster;
}

export class ReconcileRig extends Rig {
  constructor(
    readonly cluster = new TestCluster({ families: [4] }),
    kernel = new TestKernel(),
    excluded: readonly string[] = [],
    sysctlRoot?: string,
    config: Partial<ProxyConfig> = {},
  ) {
    super(kernel, {
      updater: cluster.updater,
      config: { drainTimeoutMs: DRAIN_MS, excludeCIDRs: prefixes(excluded), ...config },
      ...(sysctlRoot !== undefined && { sysctlRoot }),
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

  /** What the last sync took away of UDP backends. */
  get stale(): readonly StaleUdp[] {
    return this.lastReport.staleUdp;
  }

  /** One sync; what it did. */
  async sync(): Promise<SyncRecord> {
    return this.syncOnce();
  }

  /** A sync at which verification is due; what it found, as `missing address`. */
  async verify(): Promise<string[]> {
    await this.clock.advance(VERIFY_MS);
    const { verified, drift } = await this.sync();
    assert.ok(verified !== undefined);
    return [...drift.counts.values()].map(({ kind, object, count }) => `${count} ${kind} ${object}`).sort();
  }

  /** Everything of ours in the kernel, as lines. */
  state(): string[] {
    const { ipvs, links, netfilter } = this.kernel;
    const sets = [...netfilter.ipset!.sets].flatMap(([name, { elements }]) =>
      [...elements.keys()].map((element) => `${name} ${element}`),
    );
    return [...ipvs.dump(), ...links.addressesOf('kube-ipvs0'), ...links.routes.list(), ...sets.sort()];
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
