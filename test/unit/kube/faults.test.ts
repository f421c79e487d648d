import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Disturbance, type Fault } from '../../fakes/api-server-faults.js';
import { startReflector } from '../../fakes/api-server-rig.js';
import { testService, until } from '../../fakes/api-server-testing.js';

const abc = [testService('a'), testService('b'), testService('c')];

for (const how of ['reset', 'cutMidLine', 'garbage', 'error500'] as const satisfies readonly Disturbance[]) {
  test(`a running watch: ${how}; goes on from the last version and loses nothing`, async (t) => {
    const rig = await startReflector(t, { objects: abc });
    await rig.synced();
    rig.sink.take();
    assert.equal(rig.server.disturb(how), 1);
    rig.server.delete('services', 'default/a');
    rig.server.set(testService('d'));
    await until('both changes', () => rig.sink.keys.join() === 'default/b,default/c,default/d');
    const state = rig.reflector.state();
    assert.equal(state.failures, 1);
    assert.equal(state.consecutiveFailures, 0, 'recovered');
    assert.equal(state.lists, 1, 'no new list');
    assert.equal(state.malformed, how === 'garbage' ? 1 : 0);
    assert.deepEqual(rig.clock.waits, [400], 'one jittered wait');
    assert.deepEqual(rig.sink.take(), ['delete default/a', 'upsert default/d'], 'every change once');
    assert.equal(rig.logged.filter((line) => line.includes('answers again')).length, 1);
  });
}

test('half-open: a silent watch is given up after the idle time, not before', async (t) => {
  const rig = await startReflector(t, { objects: abc });
  await rig.synced();
  rig.server.disturb('freeze');
  rig.server.set(testService('d'));
  rig.clock.advance(rig.listIdleMs); // the first look happens after the time allowed for lists
  rig.clock.advance(rig.idleMs + 1);
  await until('d after a reconnect', () => rig.sink.values.has('default/d'));
  assert.match(rig.logged[0]!, /no data for 400 s/);
  assert.equal(rig.reflector.state().failures, 1);
});

for (const hours of [-1, 1]) {
  test(`the wall clock is set by ${hours} h: a live watch is left alone, a dead one is noticed all the same`, async (t) => {
    const rig = await startReflector(t, { objects: abc });
    await rig.synced();
    rig.clock.wallOffset = hours * 3_600_000;
    rig.clock.advance(rig.listIdleMs - 100_000);
    rig.server.bookmark();
    await until('bookmark heard', () => rig.reflector.state().silentMs === 0);
    rig.clock.advance(100_000);
    assert.equal(rig.reflector.state().silentMs, 100_000);
    assert.equal(rig.reflector.state().failures, 0);
    rig.server.disturb('freeze');
    rig.server.set(testService('d'));
    rig.clock.advance(rig.idleMs);
    await until('d after a reconnect', () => rig.sink.values.has('default/d'));
  });
}

test('bookmarks keep a quiet watch alive', async (t) => {
  const rig = await startReflector(t, { objects: abc, reflector: { idleMs: 4_000_000 } });
  await rig.synced();
  for (let i = 0; i < 30; i++) {
    const before = rig.reflector.state().lastContactAt;
    rig.clock.advance(400_000);
    rig.server.bookmark();
    await until('bookmark heard', () => rig.reflector.state().lastContactAt > before);
  }
  assert.equal(rig.reflector.state().failures, 0);
  assert.deepEqual(rig.requestKinds(), ['watchlist']);
});

const LIST_FAULTS: readonly Fault[] = [
  { kind: 'status', code: 500 },
  { kind: 'status', code: 429, retryAfter: '7' },
  { kind: 'status', code: 503, retryAfter: new Date(1_700_000_020_000).toUTCString() },
  { kind: 'drop' },
  { kind: 'garbage' },
  { kind: 'cut', bytes: 700 },
];
const LIST_WAITS = [400, 7400, 20_400, 400, 400, 400];

for (const streaming of [true, false]) {
  for (const [i, fault] of LIST_FAULTS.entries()) {
    const name = `${fault.kind} ${fault.kind === 'status' ? fault.code : ''}`.trim();
    test(`${streaming ? 'streaming' : 'paged'} list meets ${name}: waits, lists again, misses nothing`, async (t) => {
      const requests = [streaming ? 'watchlist' : 'list'] as const;
      const rig = await startReflector(t, {
        objects: abc,
        faults: [{ requests, times: 1, fault }],
        reflector: { streaming },
      });
      await rig.synced();
      assert.deepEqual(rig.sink.keys, ['default/a', 'default/b', 'default/c']);
      assert.deepEqual(rig.clock.waits.slice(0, 1), [LIST_WAITS[i]]);
      const state = rig.reflector.state();
      assert.equal(state.failures, 1);
      assert.equal(state.lists, 2);
      assert.equal(state.malformed, fault.kind === 'garbage' ? 1 : 0);
      assert.equal(rig.sink.take().filter((call) => call.startsWith('delete')).length, 0);
    });
  }
}

test('a list that breaks off half-way deletes nothing, the next complete one does', async (t) => {
  const objects = Array.from({ length: 30 }, (_, i) => testService(`s${String(i).padStart(2, '0')}`));
  const rig = await startReflector(t, { objects, reflector: { streaming: false, pageSize: 10 } });
  await rig.watching();
  rig.server.set(testService('z'));
  await until('z', () => rig.sink.values.has('default/z'));
  rig.sink.take();
  await rig.server.outage();
  rig.server.delete('services', 'default/s29');
  rig.server.compact();
  for (let i = 0; i < 3; i++) rig.server.fault({ requests: ['list'], times: 1, fault: { kind: 'cut', bytes: 2000 } });
  await rig.server.recover();
  await until('relisted', () => !rig.sink.values.has('default/s29'));
  const deletes = rig.sink.take().filter((call) => call.startsWith('delete'));
  assert.deepEqual(deletes, ['delete default/s29']);
  assert.equal(rig.sink.values.size, 30);
  assert.equal(rig.server.faults.injected.get('cut'), 3);
});

test('bytes that drip in one by one make the same objects', async (t) => {
  const objects = [testService('ünïcödé-☃', { labels: { emoji: '😀' } }), ...abc];
  const rig = await startReflector(t, { objects, faults: [{ fault: { kind: 'drip', bytes: 7 } }] });
  await rig.synced();
  assert.deepEqual(rig.sink.keys, ['default/a', 'default/b', 'default/c', 'default/ünïcödé-☃']);
});

test('an outage: back-off with growing waits, then everything that changed meanwhile', async (t) => {
  const rig = await startReflector(t, { objects: abc });
  await rig.synced();
  await rig.server.outage();
  await until('several attempts', () => rig.reflector.state().consecutiveFailures >= 8);
  assert.deepEqual(rig.clock.waits.slice(0, 8), [400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
  assert.match(rig.reflector.state().lastError!, /ECONNREFUSED/);
  rig.server.delete('services', 'default/b');
  rig.server.set(testService('e'));
  await rig.server.recover();
  await until('caught up', () => rig.sink.keys.join() === 'default/a,default/c,default/e');
  assert.equal(rig.reflector.state().consecutiveFailures, 0);
  assert.equal(rig.reflector.state().lists, 1, 'history was there: no new list');
  assert.ok(rig.logged.length < 8, 'the same failure is not logged at every attempt');
});

test('garbage at the same version twice: a list goes around it', async (t) => {
  const rig = await startReflector(t, { objects: abc });
  await rig.synced();
  rig.server.fault({ requests: ['watch'], times: 1, fault: { kind: 'garbage' } });
  rig.server.disturb('garbage');
  await until('relisted', () => rig.reflector.state().lists === 2 && rig.server.watches.size === 1);
  assert.equal(rig.reflector.state().malformed, 2);
});

test('objects that make no sense are reported and skipped, the others go on', async (t) => {
  const bad = { ...testService('bad'), spec: null };
  const rig = await startReflector(t, { objects: [testService('a'), bad, testService('z')] });
  await rig.synced();
  assert.deepEqual(rig.sink.keys, ['default/a', 'default/z']);
  rig.server.disturb('badObject');
  rig.server.set({ ...testService('a'), spec: { clusterIP: 'None' } });
  await until('a is headless now', () => !rig.sink.values.has('default/a'));
  assert.deepEqual(rig.problems, ['default/bad: spec is missing', '(unnamed): metadata.name is missing']);
  assert.equal(rig.reflector.state().failures, 0);
});

test('a parser that throws costs one object', async (t) => {
  const rig = await startReflector(t, {
    objects: abc,
    reflector: {
      keyOf: (service) => service.key,
      parse: (object) => {
        const { metadata } = object as { metadata: { name: string } };
        if (metadata.name === 'b') throw new TypeError('surprise');
        return { key: `default/${metadata.name}` } as never;
      },
    },
  });
  await rig.synced();
  assert.deepEqual(rig.sink.keys, ['default/a', 'default/c']);
  assert.deepEqual(rig.problems, ['default/b: cannot be parsed: surprise']);
});

test('forbidden: the message names the rule that is missing; it recovers when it is granted', async (t) => {
  const fault: Fault = { kind: 'status', code: 403, reason: 'Forbidden' };
  const rig = await startReflector(t, { objects: abc, faults: [{ times: 4, fault }] });
  await rig.synced();
  const message = rig.logged.find((line) => line.includes('403'));
  assert.match(
    message!,
    /^list services: 403 Forbidden: add a rule \{apiGroups: \[""\], resources: \["services"\], verbs: \["list", "watch"\]\}/,
  );
  assert.equal(rig.reflector.state().failures, 3, 'the refused streaming list counts as no failure');
});

test('every request is recorded for the metrics, failed ones as <error>', async (t) => {
  const rig = await startReflector(t, {
    objects: abc,
    faults: [
      { times: 1, fault: { kind: 'drop' } },
      { times: 1, fault: { kind: 'status', code: 500 } },
    ],
    reflector: { streaming: false },
  });
  // The server sees the watch before the client has its answer.
  await until('four requests', () => rig.records.length >= 4);
  assert.deepEqual(
    rig.records.map(({ code }) => code),
    ['<error>', '500', '200', '200'],
  );
  assert.ok(
    rig.records.every(({ verb, method, host }) => verb === 'GET' && method === 'GET' && host.startsWith('127.0.0.1:')),
  );
});

test('2,000 changes while connections break 30 times: the sink ends equal to the server', async (t) => {
  const rig = await startReflector(t, { objects: abc, server: { realObjects: true } });
  await rig.synced();
  const breaks: readonly Disturbance[] = ['reset', 'cutMidLine', 'garbage', 'end', 'error500', 'error410'];
  for (let i = 0; i < 2000; i++) {
    const name = `n${(i * 7919) % 300}`;
    if (i % 3 === 0) rig.server.delete('services', `default/${name}`);
    else rig.server.set(testService(name, { clusterIP: `10.96.${i >> 8}.${i & 255 || 1}` }));
    if (i % 66 === 0) {
      await until('connected', () => rig.server.watches.size === 1);
      rig.server.disturb(breaks[(i / 66) % breaks.length]!);
    }
    if (i % 500 === 250) rig.server.compact();
  }
  const expected = [...rig.server.store.collection('services').objects.keys()].sort();
  await until('equal', () => rig.sink.keys.join() === expected.join());
  await until('newest values', () => {
    const last = rig.reflector.state().resourceVersion;
    return last !== undefined && Number(last) === rig.server.store.revision;
  });
  assert.equal(
    [...rig.server.faults.injected.values()].reduce((sum, count) => sum + count, 0),
    31,
  );
});
