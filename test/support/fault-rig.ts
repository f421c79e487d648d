/** The data plane over a fake kernel to which things happen: everything between API objects and sockets. */
import { healthSource } from '../../src/daemon/answer/health-source.js';
import { ipsetDefinitions } from '../../src/desired/ipset-definitions.js';
import { IpsetClient } from '../../src/kernel/ipset/client.js';
import { NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE } from '../../src/netlink/socket.js';
import { formatReason } from '../../src/serve/health.js';
import { type StatusHealth } from '../../src/serve/status.js';
import { FAMILIES } from '../../src/values/address.js';
import { formatIpsetEntry } from '../../src/values/ipset.js';
import { type WireMessage, splitMessages } from '../fakes/netlink-bytes.js';
import { TestKernel } from '../fakes/test-kernel.js';
import { CoreCluster, differences } from './fuzz-cluster.js';
import { Rig, VERIFY_MS } from './rig.js';

export class FaultRig extends Rig {
  readonly core: CoreCluster;
  /** Every message so far that changes something. */
  readonly written: string[] = [];
  /** How often changes were made in the middle of longer work. */
  interleaved = 0;

  /** `reader`: the interface that the whole table is read by; `minInterval`: minSyncPeriod, ms. */
  constructor(reader: 'sockopt' | 'dump' = 'sockopt', minInterval = 0) {
    const kernel = new TestKernel();
    const core = new CoreCluster([]);
    const { openOptionSocket } = kernel;
    const table = reader === 'sockopt' ? { openOptionSocket, turnMs: 0 } : { turnMs: 0 };
    super(kernel, { updater: core.updater, config: { minSyncPeriodMs: minInterval }, table });
    this.core = core;
    kernel.onSend = (datagram, protocol) => {
      for (const message of splitMessages(datagram)) {
        const what = WRITES[protocol]?.(message);
        if (what !== undefined) this.written.push(what);
      }
    };
    const { reporter } = this;
    const changesApplied = reporter.changesApplied.bind(reporter);
    reporter.changesApplied = (interleaved) => {
      if (interleaved) this.interleaved++;
      changesApplied(interleaved);
    };
  }

  /** Syncs as the daemon does after a change; true when nothing has to be tried again. */
  async sync(): Promise<boolean> {
    this.reporter.changeQueued();
    const record = await this.syncOnce();
    await this.dataPlane.rules.settled();
    return record.ok;
  }

  /** A sync in which the whole kernel state is read back. */
  async verify(): Promise<boolean> {
    await this.clock.advance(VERIFY_MS);
    return this.sync();
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
      syncPeriodMs: () => 0,
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
    for (const line of this.kernel.ipvs.dump()) {
      const [, protocol = '', server = '', rest = ''] = /^(\S+) (\S+) (.*)$/.exec(line) ?? [];
      const name = `${OPTIONS[protocol]} ${server}`;
      const [, real] = /^-> (\S+) weight=1$/.exec(rest) ?? [];
      const [, scheduler, timeout] = /^(\S+) flags=\d+ timeout=(\d+)$/.exec(rest) ?? [];
      if (real !== undefined) lines.push(`-a ${name} -r ${real}`);
      if (scheduler !== undefined) lines.push(`-A ${name} -s ${scheduler}${timeout === '0' ? '' : ` -p ${timeout}`}`);
    }
    const bound = this.kernel.links.addressesOf('kube-ipvs0');
    lines.push(...bound.map((address) => `address ${address.replace(/\/\d+$/, '')}`));
    lines.push(...this.kernel.withoutFaults(() => this.#printSets()));
    return lines.sort();
  }

  #printSets(): string[] {
    const reader = new IpsetClient(this.kernel.open);
    const lines = reader.listSets().flatMap(({ name }) => {
      const definition = FAMILIES.flatMap(ipsetDefinitions).find((one) => one.name === name);
      if (definition === undefined) return [];
      return reader.listEntries(definition).map((entry) => `add ${name} ${formatIpsetEntry(definition.type, entry)}`);
    });
    reader.close();
    return lines;
  }
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
