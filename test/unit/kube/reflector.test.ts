import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FaultRule } from '../../fakes/api-server-faults.js';
import { testService, until } from '../../fakes/api-server-testing.js';
import { startReflector } from '../../fakes/api-server-rig.js';

test('streaming list, then live changes on the same connection', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a'), testService('b')] });
  await rig.synced();
  assert.deepEqual(rig.sink.take(), ['replaceStart', 'upsert default/a', 'upsert default/b', 'replaceEnd']);
  rig.server.set(testService('c'));
  rig.server.delete('services', 'default/a');
  await until('delete seen', () => rig.sink.keys.join() === 'default/b,default/c');
  assert.deepEqual(rig.sink.take(), ['upsert default/c', 'delete default/a']);
  assert.deepEqual(rig.requestKinds(), ['watchlist']);
  assert.equal(rig.sink.syncs, 1);
});

test('paged list when told to, then a watch from its version', async (t) => {
  const objects = Array.from({ length: 25 }, (_, i) => testService(`s${String(i).padStart(2, '0')}`));
  const rig = await startReflector(t, { objects, reflector: { streaming: false, pageSize: 10 } });
  await rig.watching();
  assert.equal(rig.sink.values.size, 25);
  assert.deepEqual(rig.requestKinds(), ['list', 'list', 'list', 'watch']);
  assert.equal(rig.server.requests[3]!.query.get('resourceVersion'), String(rig.server.store.revision));
  assert.equal(rig.server.requests[0]!.query.get('limit'), '10');
});

for (const [name, fault, requests] of [
  ['refuses with 422', { kind: 'status', code: 422 }, ['watchlist', 'list', 'watch']],
  ['refuses with 400', { kind: 'status', code: 400 }, ['watchlist', 'list', 'watch']],
  ['ignores sendInitialEvents', { kind: 'ignoreInitialEvents' }, ['watchlist', 'list', 'watch']],
] as const) {
  test(`a server that ${name} gets paged lists, for good`, async (t) => {
    const faults: FaultRule[] = [{ requests: ['watchlist'], fault }];
    const rig = await startReflector(t, { objects: [testService('a')], faults });
    await until('watchlist sent', () => rig.server.requests.length >= 1);
    if (name.startsWith('ignores')) {
      await until('object came', () => rig.sink.values.size === 1);
      rig.server.bookmark(); // an ordinary bookmark where only the annotated one may come
    }
    await rig.watching('watch');
    assert.deepEqual(rig.requestKinds(), requests);
    rig.server.compact();
    rig.server.set(testService('b'));
    rig.server.disturb('error410');
    await until('relisted', () => rig.server.requests.length === 5);
    assert.deepEqual(rig.requestKinds().slice(3), ['list', 'watch']);
  });
}

test('a streaming list that stalls is replaced by pages this once', async (t) => {
  const faults: FaultRule[] = [{ requests: ['watchlist'], times: 1, fault: { kind: 'freeze', bytes: 300 } }];
  const rig = await startReflector(t, { objects: [testService('a'), testService('b')], faults });
  await until('stream open', () => rig.reflector.state().watches === 1);
  rig.clock.advance(rig.listIdleMs + 1);
  await rig.watching('watch');
  assert.deepEqual(rig.requestKinds(), ['watchlist', 'list', 'watch']);
  assert.equal(rig.reflector.state().failures, 0, 'at once, without a back-off');
  assert.deepEqual(rig.sink.keys, ['default/a', 'default/b']);
});

test('the selector keeps foreign Services out, and a label change deletes and brings back', async (t) => {
  const foreign = { 'service.kubernetes.io/service-proxy-name': 'other' };
  const rig = await startReflector(t, {
    objects: [testService('a'), testService('b', { labels: foreign }), testService('none', { clusterIP: 'None' })],
  });
  await rig.synced();
  assert.deepEqual(rig.sink.keys, ['default/a']);
  rig.sink.take();
  rig.server.set(testService('a', { labels: foreign }));
  await until('deleted', () => rig.sink.values.size === 0);
  rig.server.set(testService('a'));
  await until('back', () => rig.sink.values.size === 1);
  assert.deepEqual(rig.sink.take(), ['delete default/a', 'upsert default/a']);
});

test('a clean end of the watch goes on from the last version, losing nothing', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  await rig.synced();
  rig.clock.advance(300_000);
  rig.server.disturb('end');
  rig.server.set(testService('b'));
  await until('b came', () => rig.sink.values.has('default/b'));
  assert.deepEqual(rig.requestKinds(), ['watchlist', 'watch']);
  assert.deepEqual(rig.clock.waits, [], 'no back-off after a long watch');
  assert.equal(rig.reflector.state().failures, 0);
  const asked = rig.server.requests.map(({ query }) => query.get('timeoutSeconds'));
  assert.deepEqual(asked, ['450', '450'], 'five to ten minutes, as client-go asks for; the clock’s chance is a half');
});

test('a server that ends every watch at once is asked ever more slowly', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  await rig.synced();
  rig.server.fault({ requests: ['watch'], times: 8, fault: { kind: 'end' } });
  rig.server.disturb('end');
  await until('nine rewatches', () => rig.requestKinds().filter((kind) => kind === 'watch').length === 9);
  assert.deepEqual(rig.clock.waits.slice(0, 9), [400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000, 15_000]);
  assert.equal(rig.reflector.state().lists, 1);
});

test('bookmarks move the version on', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  await rig.synced();
  rig.server.set({ kind: 'Node', metadata: { name: 'n' } });
  const version = String(rig.server.store.revision);
  rig.server.bookmark();
  await until('bookmark', () => rig.reflector.state().resourceVersion === version);
  rig.server.compact();
  rig.server.disturb('end');
  await rig.watching('watch');
  await until('rewatch', () => rig.server.watches.size === 1);
  assert.deepEqual(rig.requestKinds(), ['watchlist', 'watch'], 'the compacted history was not needed');
});

for (const how of ['in-stream', 'HTTP'] as const) {
  test(`${how} 410: a new list, with deletes for what is gone`, async (t) => {
    const rig = await startReflector(t, { objects: [testService('a'), testService('b'), testService('c')] });
    await rig.synced();
    rig.server.bookmark();
    rig.server.set(testService('d'));
    await until('d', () => rig.sink.values.has('default/d'));
    rig.sink.take();
    await rig.server.outage();
    rig.server.delete('services', 'default/a');
    rig.server.set(testService('e'));
    rig.server.compact();
    if (how === 'HTTP') {
      rig.server.fault({ requests: ['watch'], times: 1, fault: { kind: 'status', code: 410, reason: 'Expired' } });
    }
    await rig.server.recover();
    await until('e', () => rig.sink.values.has('default/e') && !rig.sink.values.has('default/a'));
    assert.deepEqual(rig.sink.keys, ['default/b', 'default/c', 'default/d', 'default/e']);
    const calls = rig.sink.take();
    assert.deepEqual(calls.slice(-2), ['delete default/a', 'replaceEnd']);
    assert.equal(calls.filter((call) => call.startsWith('delete')).length, 1);
    assert.equal(rig.sink.syncs, 1, 'synced is said once');
  });
}

test('410 on every watch does not become a loop of lists', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  await rig.synced();
  rig.server.fault({ requests: ['watch'], times: 6, fault: { kind: 'status', code: 410, reason: 'Expired' } });
  rig.server.fault({ requests: ['watchlist'], fault: { kind: 'status', code: 422 } });
  rig.server.disturb('end');
  const lists = (): number => rig.requestKinds().filter((kind) => kind === 'list').length;
  await until('the faults are used up', () => lists() >= 6 && rig.server.watches.size === 1);
  assert.equal(lists(), 6);
  assert.ok(rig.clock.waits.filter((ms) => ms > 0).length >= 6, 'each round waited');
});

test('a continue token that expires half-way: the list is taken again in one piece', async (t) => {
  const objects = Array.from({ length: 30 }, (_, i) => testService(`s${i}`));
  const rig = await startReflector(t, {
    objects,
    reflector: { streaming: false, pageSize: 10 },
    beforeStart: (server) => {
      const original = server.requests.push.bind(server.requests);
      server.requests.push = (...items) => {
        const count = original(...items);
        if (count === 2) server.expireContinueTokens();
        return count;
      };
    },
  });
  await rig.watching();
  assert.equal(rig.sink.values.size, 30);
  const lists = rig.server.requests.filter(({ kind }) => kind === 'list');
  assert.deepEqual(
    lists.map(({ status, query }) => `${status} ${query.get('limit') ?? 'all'}`),
    ['200 10', '200 10', '410 10', '200 all'],
  );
  assert.equal(rig.reflector.state().failures, 0);
});

test('close ends a running watch, a back-off and a hanging request at once', async (t) => {
  const rig = await startReflector(t, { objects: [testService('a')] });
  await rig.synced();
  await rig.reflector.close();
  rig.server.set(testService('b'));
  assert.deepEqual(rig.sink.keys, ['default/a']);
  const hanging = await startReflector(t, { objects: [], faults: [{ fault: { kind: 'hang' } }] });
  await until('connected', () => hanging.server.faults.injected.get('hang') === 1);
  await hanging.reflector.close();
  assert.equal(hanging.reflector.state().failures, 0, 'a wanted end is no failure');
});
