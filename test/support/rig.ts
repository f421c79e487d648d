/** The real data plane with its real clients over a fake kernel that takes real netlink bytes; no time of its own. */
import { pino } from 'pino';
import { type ProxyConfig } from '../../src/config/proxy-config.js';
import { type DataPlane } from '../../src/daemon/data-plane.js';
import { SyncReporter } from '../../src/daemon/report/sync-reporter.js';
import { type IpvsTableOptions } from '../../src/kernel/ipvs/table.js';
import { messagesSent } from '../../src/kernel/clients.js';
import { type DesiredUpdater } from '../../src/reconcile/desired-updater.js';
import { type Reconciler } from '../../src/reconcile/reconciler.js';
import { type SyncRecord } from '../../src/reconcile/sync-record.js';
import { Metrics } from '../../src/serve/metrics.js';
import { HandClock } from '../fakes/hand-clock.js';
import { type TestKernel } from '../fakes/test-kernel.js';
import { FakeIptables } from './fake-iptables.js';
import { stoppedClock, testDataPlane } from './test-world.js';

/** syncPeriod */
export const VERIFY_MS = 30_000;

export interface RigOptions {
  readonly updater: DesiredUpdater;
  readonly config?: Partial<ProxyConfig>;
  readonly sysctlRoot?: string;
  /** How the IPVS table is read. */
  readonly table?: IpvsTableOptions;
}

export class Rig {
  readonly clock = new HandClock();
  readonly iptables = new FakeIptables();
  readonly metrics = new Metrics({ version: '0.0.0' });
  readonly reporter = new SyncReporter(this.metrics, pino({ level: 'silent' }));
  readonly dataPlane: DataPlane;
  /** What the syncs so far did. */
  readonly reports: SyncRecord[] = [];

  constructor(
    readonly kernel: TestKernel,
    { updater, config, sysctlRoot, table }: RigOptions,
  ) {
    this.dataPlane = testDataPlane({
      openNetlinkSocket: kernel.open,
      openOptionSocket: kernel.openOptionSocket,
      clock: stoppedClock(() => this.clock.now()),
      iptables: this.iptables,
      config: { syncPeriodMs: VERIFY_MS, minSyncPeriodMs: 0, ...config },
      updater,
      reporter: this.reporter,
      ...(sysctlRoot !== undefined && { sysctlRoot }),
      ...(table && { table }),
    });
  }

  get reconciler(): Reconciler {
    return this.dataPlane.reconciler;
  }

  get lastReport(): SyncRecord {
    return this.reports.at(-1)!;
  }

  /** Netlink messages of all clients so far. */
  get messages(): number {
    return Object.values(messagesSent(this.dataPlane.clients)).reduce((sum, count) => sum + count, 0);
  }

  /** One sync, by hand; what it did. */
  protected async syncOnce(): Promise<SyncRecord> {
    const record = await this.dataPlane.sync();
    this.reports.push(record);
    return record;
  }
}
