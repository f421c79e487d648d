/** The data plane with its own runner over fakes: what it does without being asked, by a clock that the test moves. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pino } from 'pino';
import { type ProxyConfig } from '../../../src/config/proxy-config.js';
import { type DataPlane } from '../../../src/daemon/data-plane.js';
import { SyncReporter } from '../../../src/daemon/report/sync-reporter.js';
import { ipsetDefinitions } from '../../../src/desired/ipset-definitions.js';
import { CommandError } from '../../../src/kernel/command.js';
import { IpsetBackend } from '../../../src/kernel/ipset/backend.js';
import { IpsetClient } from '../../../src/kernel/ipset/client.js';
import { type SyncRecord } from '../../../src/reconcile/sync-record.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressPortEntry } from '../../../src/values/ipset.js';
import { addressServerKey, realServerKey } from '../../../src/values/virtual-server.js';
import { HandClock } from '../../fakes/hand-clock.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { RR } from '../../support/netlink-sessions.js';
import { web } from '../../support/reconcile-rig.js';
import { FakeIptables } from '../../support/fake-iptables.js';
import { sysctlDirectory, testDataPlane } from '../../support/test-world.js';

const PERIOD = 30_000;
const ip = (text: string) => parseAddress(text)!;
const WEB = addressServerKey('TCP', ip('10.96.0.1'), 80);
const B = realServerKey(ip('10.0.0.2'), 8080);

class Rig {
  readonly clock = new HandClock();
  readonly kernel = new TestKernel();
  readonly cluster = web();
  readonly metrics = new Metrics({ version: '0.0.0' });
  readonly reporter = new SyncReporter(this.metrics, pino({ level: 'silent' }));
  readonly records: SyncRecord[] = [];
  readonly dataPlane: DataPlane;

  constructor() {
    this.dataPlane = testDataPlane({
      openNetlinkSocket: this.kernel.open,
      clock: this.clock,
      table: {},
      config: { syncPeriodMs: PERIOD, minSyncPeriodMs: 0 },
      updater: this.cluster.updater,
      reporter: this.reporter,
    });
    const { reconciler } = this.dataPlane;
    const sync = reconciler.sync.bind(reconciler);
    reconciler.sync = async () => {
      const record = await sync();
      this.records.push(record);
      return record;
    };
  }

  /** Resolves when `count` syncs have ended, and the runner has taken note. */
  async syncs(count: number): Promise<void> {
    for (let turn = 0; this.records.length < count; turn++) {
      assert.ok(turn < 10_000, `${this.records.length} syncs instead of ${count}`);
      await nextTurn();
    }
    for (let i = 0; i < 5; i++) await nextTurn();
  }

  async started(): Promise<void> {
    this.dataPlane.start();
    await this.clock.advance(0);
    await this.syncs(1);
  }

  /** Time goes by in which no sync is due. */
  async quiet(ms: number): Promise<void> {
    const before = this.records.length;
    await this.clock.advance(ms);
    for (let i = 0; i < 20; i++) await nextTurn();
    assert.equal(this.records.length, before);
  }

  async driftMetric(labels: string): Promise<string | undefined> {
    const lines = (await this.metrics.text()).split('\n');
    return lines.find((line) => line.startsWith('kubeproxy_ipvs_drift_repaired_total{') && line.includes(labels));
  }
}

describe('without being asked', () => {
  test('the kernel is read back every syncPeriod, and no more often', async () => {
    const rig = new Rig();
    await rig.started();
    await rig.quiet(PERIOD - 1);
    await rig.clock.advance(1);
    await rig.syncs(2);
    assert.notEqual(rig.records[1]!.verified, undefined);
    await rig.quiet(PERIOD - 1);
    await rig.clock.advance(1);
    await rig.syncs(3);
  });

  test('what drains is looked at until its last connection is gone', async () => {
    const rig = new Rig();
    await rig.started();
    const { realServers } = rig.kernel.ipvs.table.get(WEB)!;
    Object.assign(realServers.get(B)!, { active: 1 });
    rig.cluster.slice('web', ['10.0.0.1']);
    await rig.clock.advance(10); // sooner it would belong to a burst
    rig.dataPlane.runner.request();
    await rig.clock.advance(0);
    await rig.syncs(2);
    assert.equal(rig.dataPlane.drains.size, 1);
    Object.assign(realServers.get(B)!, { active: 0 });
    await rig.clock.advance(1000);
    await rig.syncs(3);
    assert.equal(realServers.has(B), false);
    assert.equal(rig.records[2]!.verified, undefined);
    await rig.quiet(PERIOD - 1011);
  });

  test('kube-ipvs0 that somebody removed is restored and counted as drift of the link', async () => {
    const rig = new Rig();
    await rig.started();
    const { links } = rig.kernel;
    links.deleteLink('kube-ipvs0');
    await nextTurn();
    await rig.clock.advance(1);
    await rig.syncs(2);
    assert.deepEqual(links.addressesOf('kube-ipvs0'), ['10.96.0.1/32']);
    assert.equal(rig.records[1]!.drift.counts.get('link missing')?.count, 1);
    assert.match((await rig.driftMetric('object="link"')) ?? '', /kind="missing".* 1$/);
  });

  test('an address that somebody takes off kube-ipvs0 is back and counted once, long before the next verification', async () => {
    const rig = new Rig();
    await rig.started();
    rig.kernel.links.removeAddress('kube-ipvs0', '10.96.0.1');
    await nextTurn();
    await rig.clock.advance(1);
    await rig.syncs(2);
    assert.deepEqual(rig.kernel.links.addressesOf('kube-ipvs0'), ['10.96.0.1/32']);
    assert.match((await rig.driftMetric('object="address"')) ?? '', /kind="missing".* 1$/);
    assert.equal(rig.records[1]!.verified, undefined);
  });
});

test('events of addresses that were lost make it read everything again, and a watch that failed is begun anew', async () => {
  for (const code of ['ENOBUFS', 'EBADF']) {
    const rig = new Rig();
    await rig.started();
    await nextTurn();
    rig.kernel.faults.push({ at: 'receive', code, protocol: 0 });
    const { links } = rig.kernel;
    links.removeAddress('kube-ipvs0', '10.96.0.1');
    for (let turn = 0; turn < 20; turn++) await nextTurn();
    await rig.clock.advance(1);
    await rig.syncs(2);
    assert.notEqual(rig.records[1]!.verified, undefined, code);
    assert.deepEqual(links.addressesOf('kube-ipvs0'), ['10.96.0.1/32'], code);
    links.removeAddress('kube-ipvs0', '10.96.0.1');
    for (let turn = 0; turn < 20; turn++) await nextTurn();
    await rig.clock.advance(100); // no part of the same burst
    await rig.syncs(3);
    assert.deepEqual(links.addressesOf('kube-ipvs0'), ['10.96.0.1/32'], `${code}: it listens again`);
    await rig.dataPlane.stop();
  }
});

test('stopping ends the runner, the rules and the watch of links', async () => {
  const rig = new Rig();
  await rig.started();
  await rig.dataPlane.stop();
  assert.equal(rig.clock.pending, 0);
  assert.equal(rig.kernel.openSockets, 0);
});

describe('before the first sync', () => {
  const prepared = (config: Partial<ProxyConfig> = {}): { kernel: TestKernel; root: string; dataPlane: DataPlane } => {
    const kernel = new TestKernel();
    const root = sysctlDirectory({ 'net/ipv4/ip_forward': '0' });
    const clock = new HandClock();
    const dataPlane = testDataPlane({ openNetlinkSocket: kernel.open, clock, table: {}, sysctlRoot: root, config });
    return { kernel, root, dataPlane };
  };
  const forwarding = (root: string): string => readFileSync(`${root}/net/ipv4/ip_forward`, 'utf8').trim();

  test('sysctls are set, and IPVS timeouts only where one is configured', async () => {
    const { kernel, root, dataPlane } = prepared();
    const asked = dataPlane.clients.ipvs.counters.messagesSent;
    dataPlane.prepare();
    assert.equal(forwarding(root), '1');
    assert.deepEqual(kernel.ipvs.timeouts, { tcp: 900, tcpFin: 120, udp: 300 });
    const withoutTimeouts = dataPlane.clients.ipvs.counters.messagesSent - asked;
    const other = prepared({ ipvsUdpTimeoutMs: 60_000 });
    const before = other.dataPlane.clients.ipvs.counters.messagesSent;
    other.dataPlane.prepare();
    assert.deepEqual(other.kernel.ipvs.timeouts, { tcp: 900, tcpFin: 120, udp: 60 });
    assert.equal(other.dataPlane.clients.ipvs.counters.messagesSent - before, withoutTimeouts + 1);
    for (const one of [dataPlane, other.dataPlane]) await one.stop();
  });

  test('each of the three timeouts is set by itself', async () => {
    const set = { tcp: 7, tcpFin: 8, udp: 9 };
    for (const [field, name] of [
      ['ipvsTcpTimeoutMs', 'tcp'],
      ['ipvsTcpFinTimeoutMs', 'tcpFin'],
      ['ipvsUdpTimeoutMs', 'udp'],
    ] as const) {
      const { kernel, dataPlane } = prepared({ [field]: set[name] * 1000 });
      dataPlane.prepare();
      assert.deepEqual(kernel.ipvs.timeouts, { tcp: 900, tcpFin: 120, udp: 300, [name]: set[name] });
      await dataPlane.stop();
    }
  });

  test('timeouts that are configured anew reach the kernel, others do not', async () => {
    const { kernel, dataPlane } = prepared();
    dataPlane.prepare();
    dataPlane.reconfigure({ ...dataPlane.config, ipvsTcpTimeoutMs: 60_000 });
    assert.equal(kernel.ipvs.timeouts.tcp, 60);
    kernel.ipvs.timeouts.tcp = 61;
    dataPlane.reconfigure({ ...dataPlane.config, masqueradeAll: true });
    assert.equal(kernel.ipvs.timeouts.tcp, 61);
    await dataPlane.stop();
  });

  test('a scheduler that the kernel lacks is refused before anything is set', () => {
    const { root, dataPlane } = prepared({ scheduler: 'nosuch' });
    assert.throws(() => dataPlane.prepare(), /the kernel has no IPVS scheduler "nosuch" \(fix: modprobe ip_vs_nosuch/);
    assert.equal(forwarding(root), '0');
  });
});

test('what the other backend of rules has left goes once, when everything is in place, and not before', async () => {
  const iptables = new FakeIptables();
  const kernel = new TestKernel();
  let [finished, closed] = [0, 0];
  const handover = {
    sets: undefined,
    finish: () => Promise.resolve(void finished++),
    close: () => void closed++,
  };
  const { updater } = web();
  const world = { openNetlinkSocket: kernel.open, clock: new HandClock(), table: {}, updater, iptables, handover };
  const dataPlane = testDataPlane(world);
  const synced = async (): Promise<number> => {
    await dataPlane.sync();
    await dataPlane.rules.settled();
    for (let turn = 0; turn < 5; turn++) await nextTurn();
    return finished;
  };
  iptables.before = (command) => {
    if (command.startsWith('restore')) throw new CommandError(command, [], 4, 'no');
  };
  assert.equal(await synced(), 0, 'the rules are not written');
  iptables.before = () => undefined;
  dataPlane.rules.check();
  await dataPlane.rules.settled();
  assert.deepEqual([await synced(), await synced()], [1, 1]);
  assert.equal(closed, 0);
  await dataPlane.stop();
  assert.equal(closed, 1);
});

test('what the other backend’s sets name is ours, and goes at adoption; the rules follow, and then that backend', async () => {
  const gone = addressServerKey('TCP', ip('10.96.0.9'), 80);
  const other = new IpsetClient(new TestKernel().open);
  const set = ipsetDefinitions(4).find(({ name }) => name === 'KUBE-CLUSTER-IP')!;
  other.createSet(set);
  assert.deepEqual(other.addEntries(set, [addressPortEntry(gone)]), []);
  for (const sets of [undefined, new IpsetBackend(other)]) {
    const [iptables, kernel] = [new FakeIptables(), new TestKernel()];
    let finished = 0;
    const handover = { sets, finish: () => Promise.resolve(void finished++), close: () => undefined };
    const { updater } = web();
    const world = { openNetlinkSocket: kernel.open, clock: new HandClock(), table: {}, updater, iptables, handover };
    const dataPlane = testDataPlane(world);
    dataPlane.clients.ipvs.addVirtualServer(gone, RR);
    assert.deepEqual(dataPlane.clients.ipvs.flush(), []);
    await dataPlane.sync();
    assert.equal(kernel.ipvs.table.has(gone), sets === undefined);
    assert.ok(kernel.ipvs.table.has(WEB));
    await dataPlane.rules.settled();
    for (let turn = 0; turn < 5; turn++) await nextTurn();
    assert.deepEqual([iptables.restores, finished], [2, 1], 'once for each family');
    await dataPlane.stop();
  }
});

test('what hinders the kernel’s estimates to be switched is said once, and that it is over', async () => {
  const logged: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void logged.push((JSON.parse(line) as { msg: string }).msg) });
  const sysctlRoot = sysctlDirectory();
  const clock = new HandClock();
  const kernel = new TestKernel();
  const config = { estimation: 'off', syncPeriodMs: 1000 } as const;
  const dataPlane = testDataPlane({ openNetlinkSocket: kernel.open, clock, table: {}, sysctlRoot, config, log });
  const said = async (): Promise<string[]> => {
    await clock.advance(1000);
    await dataPlane.sync();
    return logged.filter((line) => line.startsWith('IPVS estimation'));
  };
  const cannot =
    'IPVS estimation cannot be switched off on this kernel (before 5.16): every two seconds it goes through all real servers';
  assert.deepEqual(await said(), [cannot]);
  assert.deepEqual(await said(), [cannot]);
  writeFileSync(`${sysctlRoot}/net/ipv4/vs/run_estimation`, '0\n');
  const over = await said();
  assert.equal(over.length, 2, over.join('\n'));
  assert.deepEqual(await said(), over);
  await dataPlane.stop();
});
