/** What the reporter makes of the syncs: bounded whatever comes, and never in the way of the next sync. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pino } from 'pino';
import { ClusterFeed } from '../../../src/daemon/cluster/cluster-feed.js';
import { type RulesProgress, healthSource } from '../../../src/daemon/answer/health-source.js';
import { SyncLog } from '../../../src/daemon/report/sync-log.js';
import { SyncReporter } from '../../../src/daemon/report/sync-reporter.js';
import { SyncRecord } from '../../../src/reconcile/sync-record.js';
import { ClusterState } from '../../../src/model/cluster-state.js';
import { type HealthSource } from '../../../src/serve/health.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { parseAddress } from '../../../src/values/address.js';
import { scaleCluster } from '../../fakes/cluster-generator.js';
import { HandClock } from '../../fakes/hand-clock.js';
import { FaultRig } from '../../support/fault-rig.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { web } from '../../support/reconcile-rig.js';
import { testDataPlane } from '../../support/test-world.js';

/** What is said of a node that has a sync period of 30 s and has been told everything. */
function healthOf(
  reporter: SyncReporter,
  now: () => number,
  rules: RulesProgress = { waitingSince: undefined, checkingSince: undefined },
): HealthSource {
  const { state } = reporter;
  const yes = { isSynced: () => true, isNodeKnown: () => true, isEligible: () => true, hadKernelState: true };
  const verificationAge = (): undefined => undefined;
  return healthSource({
    ...{ state, families: [4], rules: () => rules, now, ...yes, verificationAge, syncPeriodMs: () => 30_000 },
  });
}

const PROGRAMMED = 'kubeproxy_network_programming_duration_seconds_count';

test('300,000 slice events between two syncs, and between syncs that fail, stop nothing', async () => {
  const rig = new FaultRig();
  for (const object of scaleCluster({ services: 3, endpointsPerService: 2 })) rig.core.set(object);
  await rig.sync();
  const storm = (): void => {
    for (let i = 0; i < 300_000; i++) rig.reporter.endpointsTriggered(4, Date.now());
  };
  storm();
  assert.equal(await rig.sync(), true);
  for (let i = 0; i < 3; i++) {
    storm();
    rig.kernel.permitted = false;
    await rig.verify();
  }
  rig.kernel.permitted = true;
  storm();
  assert.equal(await rig.sync(), true);
  const counted = await rig.metric(PROGRAMMED, 'IPv4');
  assert.ok(counted > 0 && counted <= 50_000, `${counted} measured`);
});

test('a list that brings known slices again measures nothing', async () => {
  const metrics = new Metrics({ version: 'test' });
  const reporter = new SyncReporter(metrics, pino({ level: 'silent' }));
  reporter.state.lastSuccess = new Date();
  const feed = new ClusterFeed(new ClusterState(), 'node-0', {
    changed: () => undefined,
    synced: () => undefined,
    triggered: (family, at) => reporter.endpointsTriggered(family, at),
    nodeChanged: () => undefined,
    nodeDeleted: () => undefined,
    apiServers: () => undefined,
  });
  const put = (at: number, ip = '10.0.0.1'): void => {
    const object = {
      metadata: {
        namespace: 'default',
        name: 'web-1',
        labels: { 'kubernetes.io/service-name': 'web' },
        annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': new Date(at).toISOString() },
      },
      addressType: 'IPv4',
      ports: [{ name: '', port: 80, protocol: 'TCP' }],
      endpoints: [{ addresses: [ip] }],
    };
    feed.slices.sink.upsert('default/web-1', feed.slices.parse(object, assert.fail)!);
  };
  const measured = async (): Promise<number> => {
    reporter.changesTaken();
    reporter.changesApplied(true);
    const line = (await metrics.text()).split('\n').find((one) => one.startsWith(`${PROGRAMMED}{ip_family="IPv4"`));
    return Number(line?.split(' ').at(-1) ?? 0);
  };
  const now = Math.floor(Date.now() / 1000) * 1000 + 1000;
  put(now);
  assert.equal(await measured(), 1);
  put(now);
  put(now);
  assert.equal(await measured(), 1, 'the same slice, listed again');
  put(now + 1000, '10.0.0.2');
  assert.equal(await measured(), 2);
  metrics.close();
});

test('a sync that breaks off by a fault of this program is logged, tried again, and ends in a red /livez', async () => {
  const lines: { msg: string; error?: string }[] = [];
  const log = pino(
    { level: 'info' },
    { write: (line: string) => void lines.push(JSON.parse(line) as { msg: string }) },
  );
  const reporter = new SyncReporter(new Metrics({ version: 'test' }), log);
  const clock = new HandClock();
  const kernel = new TestKernel();
  const dataPlane = testDataPlane({
    openNetlinkSocket: kernel.open,
    clock,
    table: {},
    updater: web().updater,
    reporter,
  });
  reporter.syncStarted = () => {
    throw new RangeError('Maximum call stack size exceeded');
  };
  let later = 0;
  const health = healthOf(reporter, () => performance.now() + later, dataPlane.rules);
  dataPlane.start();
  for (let i = 0; i < 12; i++) {
    await clock.advance(30_000);
    for (let turn = 0; turn < 5; turn++) await nextTurn();
  }
  assert.ok(lines.filter(({ msg }) => msg.startsWith('sync failed')).length >= 5);
  assert.match(lines[0]!.error!, /Maximum call stack/);
  assert.equal(health.livez().healthy, true, 'not at once');
  later = 6 * 60_000;
  assert.equal(health.livez().healthy, false);
  assert.match(
    health
      .livez()
      .reasons.map(({ summary }) => summary)
      .join(),
    /no sync has come to its end/,
  );
  assert.equal(health.healthz().healthy, false);
});

test('a change that no sync takes up makes /healthz red after two sync periods', () => {
  const reporter = new SyncReporter(new Metrics({ version: 'test' }), pino({ level: 'silent' }));
  let later = 61_000;
  const health = healthOf(reporter, () => performance.now() + later);
  assert.equal(health.healthz().healthy, true, 'nothing waits');
  reporter.changeQueued();
  later = 59_000;
  assert.equal(health.healthz().healthy, true);
  later = 61_000;
  assert.match(health.healthz().reasons[0]!.summary, /changes have waited for 61 s to reach the kernel/);
});

test('conflicts, refusals and waits for the lock are logged, counted, and events for who asks', async () => {
  const logged: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => void logged.push((JSON.parse(line) as { msg: string }).msg) });
  const metrics = new Metrics({ version: 'test' });
  const reporter = new SyncReporter(metrics, log);
  const clusterIP = parseAddress('10.96.0.9')!;
  const pair = (i: number) => ({ winner: 'shop/early', loser: `shop/late-${i}`, example: { clusterIP } });
  reporter.conflicts(Array.from({ length: 101 }, (_, i) => pair(i)));
  reporter.refused('shop/vip', { reason: 'protected', text: 'external IP 192.0.2.1 is left out' });
  reporter.lockWaited(1500);
  assert.deepEqual(
    [...new Set(logged)],
    [
      'two Services claim the same address: only one can have it',
      'more Services claim addresses of others',
      'part of an object is refused and left out',
      'another process holds the xtables lock: rules wait, IPVS goes on',
    ],
  );
  const text = await metrics.text();
  assert.match(text, /^kubeproxy_ipvs_skipped_objects_total\{resource="services",reason="protected"\} 1$/m);
  assert.match(text, /^kubeproxy_ipvs_xtables_lock_wait_seconds_sum 1\.5$/m);
  const events = reporter.events.report().events.map(({ text: said }) => said);
  assert.ok(
    events.some((line) => line.includes('shop/late-0')),
    events.join('\n'),
  );
  assert.ok(
    events.some((line) => line.includes('shop/vip')),
    events.join('\n'),
  );
  metrics.close();
});

test('a kernel parameter that cannot be set is said once, louder where traffic needs it, and that it is right again', () => {
  const logged: string[] = [];
  const write = (line: string): void => {
    const { level, sysctl, msg } = JSON.parse(line) as { level: number; sysctl: string; msg: string };
    logged.push(`${level} ${sysctl}: ${msg}`);
  };
  const reporter = new SyncReporter(new Metrics({ version: 'test' }), pino({ level: 'info' }, { write }));
  const desired = (name: string, required: boolean) => ({ name, value: 1, required });
  const checked = (...failed: readonly (readonly [string, boolean])[]): string[] => {
    const failures = failed.map(([name, required]) => ({ desired: desired(name, required), message: `${name} is 0` }));
    logged.length = 0;
    reporter.sysctlsPrepared({ changed: [], failures });
    return [...logged];
  };
  const both = [
    ['net.a', true],
    ['net.b', false],
  ] as const;
  assert.deepEqual(checked(...both), ['50 net.a: net.a is 0', '40 net.b: net.b is 0']);
  assert.deepEqual(checked(...both), []);
  assert.deepEqual(checked(both[1]), ['30 net.a: the sysctl is right again']);
  logged.length = 0;
  const afterSync = new SyncLog(pino({ level: 'info' }, { write }));
  afterSync.syncEnded(new SyncRecord(), {
    failed: [{ name: 'net.c', message: 'net.c is 0', required: true }],
    rightAgain: [],
  });
  afterSync.syncEnded(new SyncRecord(), undefined);
  assert.deepEqual(logged, ['50 net.c: net.c is 0']);
});
