/** What the daemon writes down of changes: which, with which words, how many, and at which cost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventRecorder } from '../../../src/daemon/report/event-recorder.js';
import { RepairLog } from '../../../src/daemon/report/repair-log.js';
import { Drift } from '../../../src/reconcile/drift.js';
import { SyncRecord } from '../../../src/reconcile/sync-record.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressServerKey } from '../../../src/values/virtual-server.js';
import { TestCluster, type TestEndpoint } from '../../support/desired-cluster.js';

class Log {
  level = 'info';
  readonly lines: unknown[][] = [];
  isLevelEnabled = (level: string): boolean => level === this.level;
  debug = (...line: unknown[]): void => void this.lines.push(line);
}

/** A cluster whose updates go to a recorder, as SyncReporter hands them on. */
function recorded(): { cluster: TestCluster; recorder: EventRecorder; log: Log; clock: { now: number } } {
  const log = new Log();
  const clock = { now: 1_000_000 };
  const recorder = new EventRecorder(log as never, () => clock.now);
  const cluster = new TestCluster();
  cluster.updater.events.updated = (...change) => recorder.serviceChanged(...change);
  return { cluster, recorder, log, clock };
}

const texts = (recorder: EventRecorder): string[] => recorder.report().events.map(({ text }) => text);

test('a Service comes, gains and loses endpoints for reasons that are told, and goes', async () => {
  const { cluster, recorder } = recorded();
  const set = async (...endpoints: (string | TestEndpoint)[]): Promise<void> => {
    cluster.slice('web', endpoints);
    await cluster.update();
  };
  cluster.service('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] });
  cluster.slice('web', ['10.0.0.1']);
  await cluster.update();
  await set('10.0.0.1', '10.0.0.2');
  await set('10.0.0.1', { ip: '10.0.0.2', ready: false });
  await set('10.0.0.2');
  await set({ ip: '10.0.0.2', ready: false, serving: false, terminating: true }, '10.0.0.3');
  cluster.service('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30081 }] });
  await cluster.update();
  cluster.state.deleteService('default/web');
  await cluster.update();
  assert.deepEqual(texts(recorder), [
    'Service default/web added: 2 virtual servers',
    'default/web gained 10.0.0.2:8080',
    'default/web lost 10.0.0.2:8080: not ready',
    'default/web gained 10.0.0.2:8080; lost 10.0.0.1:8080: removed',
    'default/web gained 10.0.0.3:8080; lost 10.0.0.2:8080: terminating',
    'Service default/web changed: 1 virtual server added, 1 removed',
    'Service default/web removed: 2 virtual servers',
  ]);
  assert.deepEqual(recorder.report().events[1]?.service, 'default/web');
});

test('an update that changes nothing is no event; a ready endpoint that is not chosen is left out', async () => {
  const { cluster, recorder } = recorded();
  cluster.service('web');
  cluster.slice('web', ['10.0.0.1', { ip: '10.0.0.2', node: 'node-0' }]);
  await cluster.update();
  cluster.state.markDirty('default/web');
  await cluster.update();
  assert.equal(recorder.ring.total, 1);
  cluster.service('web', { internalTrafficPolicy: 'Local' });
  await cluster.update();
  assert.equal(texts(recorder)[1], 'default/web lost 10.0.0.1:8080: left out here by policy, hints or port');
});

test('two ports that lose all that they had are two losses, though both are left with the same', async () => {
  const { cluster, recorder } = recorded();
  const ports = [8080, 9090].map((port) => ({ name: `p${port}`, port }));
  cluster.service('web', { ports: ports.map(({ name, port }) => ({ name, port: port - 8000 })) });
  cluster.slice('web', ['10.0.0.1'], { ports });
  await cluster.update();
  cluster.slice('web', [{ ip: '10.0.0.1', ready: false }], { ports });
  await cluster.update();
  cluster.slice('web', ['10.0.0.1'], { ports });
  await cluster.update();
  const [, lost, gained] = texts(recorder);
  assert.equal(lost, 'default/web lost 10.0.0.1:8080: not ready, 10.0.0.1:9090: not ready');
  assert.equal(gained, 'default/web gained 10.0.0.1:8080, 10.0.0.1:9090');
});

test('a Service that never had anything to serve comes and goes without an event', async () => {
  const { cluster, recorder } = recorded();
  cluster.service('web', { ports: [] });
  cluster.slice('web', ['10.0.0.1']);
  await cluster.update();
  cluster.state.deleteService('default/web');
  await cluster.update();
  assert.equal(recorder.ring.total, 0);
});

test('words are made when somebody asks: then connections that still drain are counted, and the log has them at debug only', async () => {
  const { cluster, recorder, log } = recorded();
  cluster.service('web');
  cluster.slice('web', ['10.0.0.1', '10.0.0.2']);
  await cluster.update();
  let asked = 0;
  recorder.draining = () => (asked++, 3);
  cluster.slice('web', ['10.0.0.1']);
  await cluster.update();
  assert.deepEqual([asked, log.lines.length], [0, 0], 'nobody has asked');
  assert.equal(texts(recorder)[1], 'default/web lost 10.0.0.2:8080: removed; 3 connections drain');
  log.level = 'debug';
  cluster.slice('web', ['10.0.0.2']);
  await cluster.update();
  const text = 'default/web gained 10.0.0.2:8080; lost 10.0.0.1:8080: removed';
  assert.deepEqual(log.lines, [[{ event: 'endpoints', service: 'default/web' }, text]]);
});

test('ten endpoints of each sort are named, the others counted', async () => {
  const { cluster, recorder } = recorded();
  const ips = (from: number, to: number): string[] =>
    Array.from({ length: to - from }, (_, i) => `10.0.${(from + i) >> 8}.${(from + i) & 255}`);
  cluster.service('web');
  cluster.slice('web', ips(1, 3));
  await cluster.update();
  cluster.slice('web', ips(2, 503));
  await cluster.update();
  const [, text] = texts(recorder);
  assert.match(
    text!,
    /^default\/web gained 10\.0\.0\.3:8080, .*, 10\.0\.0\.12:8080 and 490 more; lost 10\.0\.0\.1:8080: removed$/,
  );
});

test('the ring holds so many and forgets the oldest; since leaves out what is older', () => {
  const { recorder, clock } = recorded();
  for (let i = 1; i <= 2500; i++) {
    clock.now += 1000;
    recorder.add({ kind: 'service-added', service: `shop/web-${i}`, virtualServers: 1 });
  }
  const { total, events } = recorder.report();
  assert.deepEqual([total, events.length, events[0]?.sequence, events.at(-1)?.sequence], [2500, 1000, 1501, 2500]);
  assert.deepEqual(
    recorder.report(10_000).events.map(({ sequence }) => sequence),
    [2490, 2491, 2492, 2493, 2494, 2495, 2496, 2497, 2498, 2499, 2500],
  );
});

test('repairs are an event and counted by object for an hour; the same failure again is no second event', () => {
  const { recorder, clock } = recorded();
  const drift = new Drift();
  for (let i = 0; i < 3; i++) drift.add('virtual_server', 'missing', () => `TCP 10.96.0.${i}:80`);
  drift.add('rule', 'changed', () => 'nat KUBE-SERVICES');
  recorder.repaired(drift);
  recorder.repaired(new Drift());
  for (const message of ['no', 'no', 'never']) recorder.failed([message]);
  recorder.succeeded();
  recorder.failed(['never']);
  assert.deepEqual(texts(recorder), [
    'repaired: 3 missing virtual_server (TCP 10.96.0.0:80, TCP 10.96.0.1:80, TCP 10.96.0.2:80); 1 changed rule (nat KUBE-SERVICES)',
    'failed and tried again: no',
    'failed and tried again: never',
    'failed and tried again: never',
  ]);
  assert.deepEqual(recorder.repairs.lastHour(clock.now), { virtual_server: 3, rule: 1 });
});

test('an hour later repairs are forgotten, and so are those of a clock that was set back', () => {
  const log = new RepairLog();
  const start = 100 * 3_600_000;
  for (let minute = 0; minute < 500; minute++) log.add({ object: 'address', count: 2 }, start + minute * 60_000);
  assert.deepEqual(log.lastHour(start + 499 * 60_000), { address: 120 });
  assert.deepEqual(log.lastHour(start + 600 * 60_000), {});
  log.add({ object: 'rule', count: 1 }, start);
  assert.deepEqual(log.lastHour(start - 3_600_000), {});
});

test('every kind of event has its words', () => {
  const { recorder } = recorded();
  const clusterIP = parseAddress('10.96.0.9')!;
  const server = addressServerKey('TCP', clusterIP, 80);
  const pair = { winner: 'shop/early', loser: 'shop/late' };
  recorder.conflicts([
    { ...pair, example: { clusterIP } },
    { ...pair, example: { server } },
  ]);
  recorder.add({ kind: 'refused', service: 'shop/vip', text: 'externalIP 192.0.2.1 is left out' });
  const record = Object.assign(new SyncRecord(), { adopted: true });
  record.newlySkipped.push('a', 'b', 'c', 'd', 'e', 'f', 'g');
  recorder.syncEnded(record, 1);
  recorder.syncBrokeOff(new Error('no answer'));
  assert.deepEqual(texts(recorder), [
    'conflict: shop/late does not get 10.96.0.9, which shop/early has',
    'conflict: shop/late does not get TCP 10.96.0.9:80, which shop/early has',
    'refused of shop/vip: externalIP 192.0.2.1 is left out',
    'the kernel keeps refusing, skipped: a, b, c, d, e and 2 more',
    'took over the kernel state: 1 virtual server',
    'failed and tried again: no answer',
  ]);
  recorder.conflicts(Array.from({ length: 50 }, () => ({ ...pair, example: { clusterIP } })));
  assert.equal(texts(recorder).filter((text) => text.startsWith('conflict: ')).length, 22);
});
