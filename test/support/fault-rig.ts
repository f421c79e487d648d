/**
 * The real reconciler with its real clients over a fake kernel that speaks real bytes: everything between API objects
 * and sockets.
 */
import { pino } from 'pino';
import { type DataPlane } from '../../src/daemon/data-plane.js';
import { healthSource } from '../../src/daemon/health-source.js';
import { SyncReporter } from '../../src/daemon/sync-reporter.js';
import { ipsetDefinitions } from '../../src/desired/ipset-definitions.js';
import { messagesSent } from '../../src/kernel/clients.js';
import { IpsetClient } from '../../src/kernel/ipset/client.js';
import { type IpvsTableOptions } from '../../src/kernel/ipvs/table.js';
import { NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, type OpenNetlinkSocket } from '../../src/netlink/socket.js';
import { type Reconciler } from '../../src/reconcile/reconciler.js';
import { type SyncRecord } from '../../src/reconcile/sync-record.js';
import { formatReason } from '../../src/serve/health.js';
import { type StatusHealth } from '../../src/serve/status.js';
import { Metrics } from '../../src/serve/metrics.js';
import { formatIpsetEntry } from '../../src/values/ipset.js';
import { FakeIpvs } from '../fakes/fake-kernel-ipvs.js';
import { FakeLinks } from '../fakes/fake-kernel-links.js';
import { FakeKernel } from '../fakes/fake-kernel.js';
import { fakeOptionSocket } from '../fakes/fake-option-socket.js';
import { FakeNetfilter } from '../fakes/fake-nfnetlink.js';
import { type WireMessage, splitMessages } from '../fakes/fake-nfnetlink-wire.js';
import { CoreCluster, differences } from './fuzz-cluster.js';
import { FakeIptables } from './fault-iptables.js';
import { stoppedClock, testDataPlane } from './test-world.js';

const FAMILIES = [4, 6] as const;
export const SYNC_PERIOD = 30_000;

export class FaultRig {
  readonly kernel = new FakeKernel();
  readonly table = new FakeIpvs(this.kernel);
  readonly links = new FakeLinks(this.kernel);
  readonly netfilter = new FakeNetfilter();
  readonly iptables = new FakeIptables();
  readonly core = new CoreCluster([]);
  readonly reports: SyncRecord[] = [];
  /** Every message so far that changes something. */
  readonly written: string[] = [];
  /** How often changes were made while the kernel was read back. */
  interleaved = 0;
  readonly metrics = new Metrics({ version: '0.0.0' });
  readonly reporter = new SyncReporter(this.metrics, pino({ level: 'silent' }));
  readonly dataPlane: DataPlane;
  #now = 0;

  /** `reader`: the interface that the whole table is read by; `minInterval`: minSyncPeriod, ms. */
  constructor(reader: 'sockopt' | 'dump' = 'sockopt', minInterval = 0) {
    this.links.addLink('eth0');
    this.links.addAddress('eth0', '10.200.0.2', 24);
    this.links.addAddress('eth0', 'fd00:200::2', 64);
    const { reporter } = this;
    const table = this.#tableOptions(reader);
    this.dataPlane = testDataPlane({
      openNetlinkSocket: this.#open,
      openOptionSocket: table.openOptionSocket,
      table,
      clock: stoppedClock(() => this.#now),
      iptables: this.iptables,
      config: { syncPeriodMs: SYNC_PERIOD, minSyncPeriodMs: minInterval },
      updater: this.core.updater,
      reporter,
    });
    const interleaved = reporter.interleaved.bind(reporter);
    reporter.interleaved = () => {
      this.interleaved++;
      interleaved();
    };
  }

  get reconciler(): Reconciler {
    return this.dataPlane.reconciler;
  }

  /** Syncs as the daemon does after a change; true when nothing has to be tried again. */
  async sync(): Promise<boolean> {
    this.reporter.changeQueued();
    const record = await this.dataPlane.sync();
    this.reports.push(record);
    await this.dataPlane.rules.settled();
    return record.ok;
  }

  /** A sync in which the whole kernel state is read back. */
  async verify(): Promise<boolean> {
    this.#now += SYNC_PERIOD;
    return this.sync();
  }

  get lastReport(): SyncRecord {
    return this.reports.at(-1)!;
  }

  /** Whether the last sync read the whole kernel state back. */
  get hasVerified(): boolean {
    return this.lastReport.verified !== undefined;
  }

  /** How many differences the last sync found; undefined when it did not read the whole kernel state back. */
  get verifiedDrift(): number | undefined {
    return this.hasVerified ? this.lastReport.drift.total : undefined;
  }

  /** /healthz with a syncPeriod of 0, every reason with its details. */
  health(): StatusHealth {
    const report = healthSource({
      state: this.reporter.state,
      syncPeriodMs: 0,
      families: [4, 6],
      verificationAge: () => this.dataPlane.reconciler.verificationAge,
      rules: () => this.dataPlane.rules,
      isSynced: () => true,
      isNodeKnown: () => true,
      isEligible: () => true,
      hadKernelState: false,
    }).healthz();
    return { ...report, reasons: report.reasons.map(formatReason) };
  }

  /** Messages sent so far, all subsystems together. */
  get messages(): number {
    return Object.values(messagesSent(this.dataPlane.clients)).reduce((sum, count) => sum + count, 0);
  }

  /** The sum of one metric over all labels that the text of `labels` is part of. */
  async metric(name: string, labels = ''): Promise<number> {
    const lines = (await this.metrics.text()).split('\n');
    const found = lines.filter((line) => line.startsWith(name) && line.includes(labels));
    return found.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  /** How the fake kernel differs from what is desired; weight 0 counts as absent. */
  drift(): string[] {
    return differences(this.#print(), this.core.print());
  }

  #print(): string[] {
    const lines: string[] = [];
    for (const line of this.table.dump()) {
      const [, protocol = '', server = '', rest = ''] = /^(\S+) (\S+) (.*)$/.exec(line) ?? [];
      const name = `${OPTIONS[protocol]} ${server}`;
      const [, real] = /^-> (\S+) weight=1$/.exec(rest) ?? [];
      const [, scheduler, timeout] = /^(\S+) flags=\d+ timeout=(\d+)$/.exec(rest) ?? [];
      if (real !== undefined) lines.push(`-a ${name} -r ${real}`);
      if (scheduler !== undefined) lines.push(`-A ${name} -s ${scheduler}${timeout === '0' ? '' : ` -p ${timeout}`}`);
    }
    const bound = this.links.addressesOf('kube-ipvs0');
    lines.push(...bound.map((address) => `address ${address.replace(/\/\d+$/, '')}`));
    const reader = new IpsetClient(this.netfilter.open);
    for (const set of reader.listSets()) {
      const definition = FAMILIES.flatMap(ipsetDefinitions).find(({ name }) => name === set.name);
      if (definition === undefined) continue;
      const elements = reader.listEntries(definition);
      lines.push(...elements.map((entry) => `add ${set.name} ${formatIpsetEntry(definition.type, entry)}`));
    }
    reader.close();
    return lines.sort();
  }

  #tableOptions(reader: 'sockopt' | 'dump'): IpvsTableOptions {
    const { table } = this;
    if (reader === 'sockopt') return { openOptionSocket: fakeOptionSocket(table), turnMs: 0 };
    return { turnMs: 0 };
  }

  readonly #open: OpenNetlinkSocket = (protocol, groups) => {
    const socket =
      protocol === NETLINK_NETFILTER ? this.netfilter.open(protocol, groups) : this.kernel.open(protocol, groups);
    const send = socket.send.bind(socket);
    socket.send = (buffer, length) => {
      for (const message of splitMessages(Buffer.from(buffer.subarray(0, length)))) {
        const what = WRITES[protocol]?.(message);
        if (what !== undefined) this.written.push(what);
      }
      return send(buffer, length);
    };
    return socket;
  };
}

/** By netlink family: what a message changes in the kernel; undefined for one that only reads. */
const WRITES: Readonly<Record<number, (message: WireMessage) => string | undefined>> = {
  [NETLINK_GENERIC]: ({ type, body }) =>
    type === 16
      ? undefined
      : { 1: 'add', 2: 'set', 3: 'delete', 5: 'add', 6: 'set', 7: 'delete', 12: 'config' }[body[0]!],
  [NETLINK_ROUTE]: ({ type }) => ({ 16: 'link', 17: 'link', 19: 'link', 20: 'address', 21: 'address' })[type],
  [NETLINK_NETFILTER]: ({ type }) => {
    const [subsystem, command] = [type >> 8, type & 255];
    if (subsystem === 1) return command === 2 ? 'conntrack' : undefined;
    return [2, 3, 4, 5, 6, 9, 10].includes(command) ? `ipset ${command}` : undefined;
  },
};

const OPTIONS: Readonly<Record<string, string>> = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' };
