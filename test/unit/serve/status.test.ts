/** The status page's contents from the daemon's own books: notes by name and bounded, wanted and written told apart. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { pino } from 'pino';
import { statusNotes } from '../../../src/daemon/answer/status-notes.js';
import { syncSentence } from '../../../src/daemon/report/sync-report.js';
import { SyncReporter } from '../../../src/daemon/report/sync-reporter.js';
import { Claims } from '../../../src/desired/claims.js';
import { lastOf } from '../../../src/desired/steps.js';
import { ObjectFeed } from '../../../src/kube/object-feed.js';
import { type ReflectorState } from '../../../src/kube/reflector-state.js';
import { SkippedObjects } from '../../../src/kube/skipped-objects.js';
import { SyncRecord } from '../../../src/reconcile/sync-record.js';
import { Metrics } from '../../../src/serve/metrics.js';
import { parseAddress } from '../../../src/values/address.js';
import { addressServerKey } from '../../../src/values/virtual-server.js';

function newState() {
  const metrics = new Metrics({ version: '0.1.0' });
  metrics.close();
  return new SyncReporter(metrics, pino({ enabled: false })).state;
}

const NOTHING = { watches: () => new Map(), skipped: () => [], claims: new Claims(), refusals: new Map() };

describe('notes of the status page', () => {
  it('names contested addresses with who serves them, up to a bound', () => {
    const claims = new Claims();
    for (let i = 0; i < 30; i++) {
      const address = parseAddress(`192.0.2.${i}`)!;
      const server = addressServerKey('TCP', address, 80);
      const port = { name: '', protocol: 'TCP', port: 80, nodePort: 0 } as const;
      const exposed = [{ port, family: 4, exposures: [{ kind: 'externalIP', address, server }] }] as const;
      lastOf(claims.update(`shop/young-${i}`, 2000, exposed, new Set()));
      lastOf(claims.update(`shop/old-${i}`, 1000, exposed, new Set()));
    }
    const notes = statusNotes({ ...NOTHING, state: newState(), claims });
    assert.equal(notes.length, 21);
    assert.equal(notes[7], 'claimed more than once: TCP 192.0.2.7:80 serves shop/old-7, not shop/young-7');
    assert.equal(notes[20], 'and 10 more of the same sort');
  });

  it('names objects that are left out now, and no longer when they are mended or gone', () => {
    const skipped = new SkippedObjects('services');
    const counted: string[] = [];
    const feed = new ObjectFeed<string>({
      parse: (object, report) => {
        const { value } = object as { value: string };
        if (value === 'broken') throw new Error('no such thing');
        if (value === 'partly') report('one port is left out');
        return value;
      },
      sink: {
        ...{ replaceStart: () => undefined, replaceEnd: () => undefined, synced: () => undefined },
        ...{ upsert: () => undefined, delete: () => undefined },
      },
      onProblem: (key) => void counted.push(key),
      skipped,
    });
    const object = (name: string, value: string) => ({ metadata: { namespace: 'shop', name }, value });
    const now = (): string[] => [...skipped].map(({ resource, key, problem }) => `${resource} ${key}: ${problem}`);
    feed.beginList();
    feed.put(object('a', 'partly'));
    feed.put(object('b', 'broken'));
    feed.put(object('c', 'fine'));
    feed.endList();
    const broken = 'services shop/b: cannot be parsed: no such thing';
    assert.deepEqual(now(), ['services shop/a: one port is left out', broken]);
    feed.put(object('a', 'fine'));
    assert.deepEqual(now(), [broken]);
    feed.put(object('b', 'broken'));
    feed.remove(object('b', 'broken'));
    assert.deepEqual(now(), []);
    feed.put(object('a', 'partly'));
    feed.put(object('c', 'partly'));
    feed.beginList();
    feed.keep('shop/c');
    feed.endList();
    assert.deepEqual(now(), ['services shop/c: one port is left out'], 'what the list has not is gone');
    assert.deepEqual(counted, ['shop/a', 'shop/b', 'shop/b', 'shop/a', 'shop/c'], 'each time counts');
    const notes = statusNotes({ ...NOTHING, state: newState(), skipped: () => skipped });
    assert.deepEqual(notes, ['left out of services shop/c: one port is left out']);
  });

  it('says that a watch is silent, or that the API server never answered: there, not in /healthz', () => {
    const watch = {
      silentMs: 300_000,
      lastContactAt: Date.now() - 300_000,
      lastError: 'ECONNREFUSED',
      consecutiveFailures: 3,
    };
    const notes = (state: Partial<ReflectorState>): string[] =>
      statusNotes({
        ...NOTHING,
        state: newState(),
        watches: () => new Map([['services', { ...watch, ...state } as ReflectorState]]),
      });
    assert.match(notes({})[0]!, /^the watch of services has heard nothing since 2.*ECONNREFUSED.*goes on being served/);
    assert.match(notes({ silentMs: undefined })[0]!, /has not answered for services since the start \(ECONNREFUSED\)/);
    assert.deepEqual(notes({ silentMs: 1000, lastContactAt: 0 }), []);
    assert.deepEqual(notes({ silentMs: undefined, consecutiveFailures: 0 }), []);
  });

  it('names what of Services is refused, the first reason of each, up to a bound', () => {
    const refusals = new Map(
      Array.from({ length: 22 }, (_, i) => [
        `shop/s${i}`,
        i === 0 ? [{ text: 'a' }, { text: 'b' }, { text: 'c' }] : [{ text: 'x' }],
      ]),
    ) as unknown as Parameters<typeof statusNotes>[0]['refusals'];
    const notes = statusNotes({ ...NOTHING, state: newState(), refusals });
    assert.deepEqual(
      [notes.length, notes[0], notes[1], notes[20]],
      [21, 'Service shop/s0: a (and 2 more)', 'Service shop/s1: x', 'and 2 more of the same sort'],
    );
  });

  it('has the failures that are retried and the sysctls that could not be set', () => {
    const state = newState();
    state.lastFailure = 'add-address 10.96.0.1: EACCES';
    state.rulesFailure = 'line 3 failed';
    state.failedSysctls.set('net.ipv4.ip_forward', { message: 'cannot set it', required: true });
    assert.deepEqual(statusNotes({ ...NOTHING, state }), [
      'cannot set it',
      'being retried: add-address 10.96.0.1: EACCES',
      'iptables rules: line 3 failed',
    ]);
  });
});

describe('the last sync', () => {
  it('is a sentence', () => {
    const record = new SyncRecord();
    record.adopted = true;
    assert.equal(syncSentence(record), 'took over the kernel state: nothing changed');
    record.adopted = false;
    record.servicesChanged = 1;
    record.ipvs.virtualServersAdded = 2;
    record.ipvs.realServersDeleted = 1;
    assert.equal(syncSentence(record), '1 Service, 2 virtual servers added, 1 real server deleted');
  });
});
