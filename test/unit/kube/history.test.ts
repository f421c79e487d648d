/** An API server whose history went backwards (etcd restored from a backup), as a real kube-apiserver shows it. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isOlderVersion } from '../../../src/kube/resource-version.js';
import { type ReflectorRig, startReflector } from '../../fakes/api-server-rig.js';
import { type ApiObject, type Backup, type Resource } from '../../fakes/api-server-store.js';
import { testService, until } from '../../fakes/api-server-testing.js';

test('versions are compared as integers of any size; what is no integer is never older', () => {
  assert.ok(isOlderVersion('999', '1000'));
  assert.ok(!isOlderVersion('1000', '999'));
  assert.ok(!isOlderVersion('1000', '1000'));
  assert.ok(isOlderVersion('9007199254740993', '9007199254740994'), 'beyond what a double can tell');
  assert.ok(isOlderVersion('99999999999999999999', '100000000000000000000'));
  for (const odd of ['', 'v1', '-1', '1.5', '007']) {
    assert.ok(!isOlderVersion(odd, '1000'), odd);
    assert.ok(!isOlderVersion('1000', odd), odd);
  }
});

function node(name: string): ApiObject {
  return { apiVersion: 'v1', kind: 'Node', metadata: { name }, spec: {}, status: {} };
}

function slice(name: string): ApiObject {
  const metadata = { name, namespace: 'default', labels: { 'kubernetes.io/service-name': name } };
  return { kind: 'EndpointSlice', metadata, addressType: 'IPv4', endpoints: [], ports: [] };
}

const RESOURCES: readonly { resource: Resource; path: string; make: (name: string) => ApiObject; prefix: string }[] = [
  { resource: 'services', path: '/api/v1/services', make: testService, prefix: 'default/' },
  {
    resource: 'endpointslices',
    path: '/apis/discovery.k8s.io/v1/endpointslices',
    make: slice,
    prefix: 'default/',
  },
  { resource: 'nodes', path: '/api/v1/nodes', make: node, prefix: '' },
];

for (const { resource, path, make, prefix } of RESOURCES) {
  test(`${resource}: a restored etcd is noticed by the silence, and listed anew with deletes for what is gone`, async (t) => {
    const keyOfRaw = (value: object): string => prefix + (value as ApiObject).metadata.name;
    const rig = await startReflector(t, {
      objects: [make('a'), make('b')],
      reflector: { resource, path, parse: (object) => object as never, keyOf: keyOfRaw },
    });
    await rig.synced();
    const backup = rig.server.store.backup();
    for (let i = 0; i < 20; i++) rig.server.set(make('ghost'), make('a'));
    rig.server.delete(resource, `${prefix}b`);
    await until('the changes', () => rig.sink.keys.join() === [`${prefix}a`, `${prefix}ghost`].join());
    rig.server.restore(backup);
    await until('a watch from the future is accepted', () => rig.reflector.state().watches === 2);
    await nextTurn(); // the body is being read
    rig.server.set(make('new'));
    rig.server.bookmark();
    rig.clock.advance(rig.listIdleMs);
    assert.deepEqual(rig.sink.keys, [`${prefix}a`, `${prefix}ghost`], 'it stays silent, as a real one does');
    rig.clock.advance(rig.idleMs + 1);
    await until('listed anew', () => rig.sink.keys.join() === ['a', 'b', 'new'].map((name) => prefix + name).join());
    assert.equal(rig.logged.filter((line) => line.includes('history went backwards')).length, 1);
    rig.server.set(make('live'));
    await until('live again', () => rig.sink.values.has(`${prefix}live`));
    const short = rig.server.requests.filter(({ query }) => query.get('limit') === '1');
    assert.equal(short.length, 1, 'one short list told it');
  });
}

test('a silent watch of a server whose history is whole is opened again, without a list', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  await rig.synced();
  await nextTurn();
  rig.server.disturb('freeze');
  rig.clock.advance(rig.listIdleMs);
  rig.clock.advance(rig.idleMs + 1);
  await rig.watching('watch');
  assert.deepEqual(rig.requestKinds(), ['watchlist', 'list', 'watch']);
  assert.equal(rig.reflector.state().lists, 1);
  assert.ok(
    rig.clock.waits.some((ms) => ms > 2000),
    'nodes do not ask all at once',
  );
});

for (const how of ['olderBookmark', 'olderEvent'] as const) {
  test(`an ${how} in a running watch: listed anew, not taken over`, async (t) => {
    const rig = await startReflector(t, { objects: [testService('a')] });
    await rig.synced();
    const version = rig.reflector.state().resourceVersion;
    rig.server.disturb(how);
    await until('listed anew', () => rig.reflector.state().lists === 2);
    await until('current', () => rig.reflector.state().resourceVersion === version);
    assert.match(rig.logged.join(), /history went backwards, from version 101 to 7/);
  });
}

test('a server that goes backwards after every list is asked ever more slowly', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  for (let i = 0; i < 8; i++) {
    await until('a watch', () => rig.reflector.state().lists === i + 1 && rig.server.watches.size === 1);
    await until('listed', () => rig.reflector.state().resourceVersion !== undefined);
    rig.server.set(testService('a'));
    rig.server.disturb('olderBookmark');
  }
  await until('the waits', () => rig.clock.waits.length >= 8);
  assert.deepEqual(rig.clock.waits.slice(0, 8), [400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
});

/** `a` and `b` at the backup; afterwards `ghost` came and `b` went, and the reflector has seen that. */
async function beforeRestore(t: TestContext, relistMs = 0): Promise<ReflectorRig & { backup: Backup; known: number }> {
  const rig = await startReflector(t, {
    objects: [testService('a'), testService('b')],
    reflector: { relistMs },
  });
  await rig.synced();
  const backup = rig.server.store.backup();
  for (let i = 0; i < 20; i++) rig.server.set(testService('ghost'), testService('a'));
  rig.server.delete('services', 'default/b');
  await until('the changes', () => rig.sink.keys.join() === 'default/a,default/ghost');
  return { ...rig, backup, known: rig.server.store.revision };
}

const LOST_SPAN = 'default/a,default/b,default/new';

test('etcd restored under an API server that runs on: its watches end, and it is noticed by the silence', async (t) => {
  const rig = await beforeRestore(t);
  rig.server.restore(rig.backup, true);
  await until('a watch from the future is accepted', () => rig.reflector.state().watches === 2);
  await nextTurn();
  rig.server.set(testService('new'));
  rig.clock.advance(rig.idleMs + 1);
  await until('listed anew', () => rig.sink.keys.join() === LOST_SPAN);
});

test('restored, and beyond what was known when the API server began to serve: a 410, and listed anew', async (t) => {
  const rig = await beforeRestore(t);
  await rig.server.outage();
  rig.server.restore(rig.backup);
  rig.server.set(testService('new'));
  while (rig.server.store.revision <= rig.known) rig.server.set(testService('new'));
  rig.server.compact(); // what came before the API server's first list of etcd is no history to it
  await rig.server.recover();
  await until('listed anew', () => rig.sink.keys.join() === LOST_SPAN);
  assert.match(rig.logged.join(), /history gone, listing anew/);
});

test('restored and gone on beyond what was known, all while this node was cut off: only a list shows it', async (t) => {
  const relistMs = 4 * 3_600_000;
  for (const period of [0, relistMs]) {
    const rig = await beforeRestore(t, period);
    await rig.server.outage();
    rig.server.restore(rig.backup);
    rig.server.set(testService('new'));
    while (rig.server.store.revision <= rig.known) rig.server.set(testService('new'));
    await rig.server.recover();
    await until('a watch', () => rig.server.watches.size === 1 && rig.reflector.state().watches === 2);
    rig.server.set(testService('live'));
    await until('it is live', () => rig.sink.values.has('default/live'));
    assert.ok(rig.sink.values.has('default/ghost') && !rig.sink.values.has('default/b'), 'nothing of it shows');
    rig.clock.advance(relistMs - 60_000);
    rig.server.disturb('end');
    await until('another watch', () => rig.reflector.state().watches === 3 && rig.server.watches.size === 1);
    assert.equal(rig.reflector.state().lists, 1, 'not before its time');
    rig.clock.advance(relistMs / 2 + 60_001);
    rig.server.disturb('end');
    await until('one more', () => rig.reflector.state().watches === 4 && rig.server.watches.size === 1);
    const expected =
      period === 0
        ? 'default/a,default/ghost,default/live,default/new'
        : `default/a,default/b,default/live,default/new`;
    await until(`relistPeriod ${period}`, () => rig.sink.keys.join() === expected);
    assert.equal(rig.reflector.state().lists, period === 0 ? 1 : 2);
  }
});

test('lists at a version: none is the present, "0" ignores the limit, one from the future is refused', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a'), testService('b')] });
  await rig.synced();
  const { revision } = rig.server.store;
  const ask = async (query: string): Promise<{ code?: number; message?: string; items?: object[] }> =>
    (await (await fetch(`${rig.server.url}/api/v1/services?${query}`)).json()) as object;
  assert.equal((await ask('limit=1')).items?.length, 1);
  assert.equal((await ask('limit=1&resourceVersion=0')).items?.length, 2);
  assert.equal((await ask(`resourceVersion=${revision}`)).items?.length, 2);
  const refused = await ask(`resourceVersion=${revision + 1}`);
  assert.equal(refused.code, 504);
  assert.equal(refused.message, `Too large resource version: ${revision + 1}, current: ${revision}`);
});
