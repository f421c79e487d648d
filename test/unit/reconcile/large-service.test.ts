/** One Service with as many virtual servers as it may have: worked out with pauses, to the same result. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { EventRecorder } from '../../../src/daemon/report/event-recorder.js';
import { newTouched } from '../../../src/desired/desired-state.js';
import { TestCluster } from '../../support/desired-cluster.js';

const PORTS = Array.from({ length: 100 }, (_, i) => ({ name: `p${i}`, port: 1000 + i, protocol: 'TCP' }));
const ADDRESSES = Array.from({ length: 99 }, (_, i) => `192.0.2.${i + 1}`);
const TARGETS = PORTS.map(({ name }, i) => ({ name, port: 8000 + i, protocol: 'TCP' }));
const TOTAL = PORTS.length * (ADDRESSES.length + 1);

function large(): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('large', { externalIPs: ADDRESSES, ports: PORTS });
  const backends = Array.from({ length: 50 }, (_, i) => `10.0.0.${i + 1}`);
  cluster.slice('large', backends, { ports: TARGETS });
  return cluster;
}

test('a pause comes after some hundred of them, whatever else there is to do', async () => {
  const cluster = large();
  const pacers: number[] = [];
  const stop = {
    stop: () => undefined,
    throwIfStopped: () => undefined,
    pacer: () => ({
      get isDue(): boolean {
        pacers.push(cluster.updater.desired.virtualServers.size);
        return true;
      },
      yieldIfDue: () => nextTurn(),
    }),
  };
  await cluster.updater.updateDirty(newTouched(), stop as never);
  assert.equal(cluster.updater.desired.virtualServers.size, TOTAL);
  assert.ok(pacers.length > 60, `${pacers.length} places to pause`);
  const steps = pacers.slice(1).map((size, i) => size - pacers[i]!);
  assert.ok(Math.max(...steps) <= 500, `${Math.max(...steps)} virtual servers in one step`);
});

/** How often maps and sets were used while `work` went on, between two places to pause. */
async function usesBetweenPauses(cluster: TestCluster): Promise<number[]> {
  const uses = [0];
  const restore: (() => void)[] = [];
  for (const [prototype, names] of [
    [Map.prototype, ['get', 'set', 'has', 'delete']],
    [Set.prototype, ['add', 'has', 'delete']],
  ] as const)
    for (const name of names) {
      const original = Object.getOwnPropertyDescriptor(prototype, name)!;
      const value = function (this: unknown, ...args: unknown[]): unknown {
        uses[uses.length - 1]!++;
        return (original.value as (...args: unknown[]) => unknown).apply(this, args);
      };
      Object.defineProperty(prototype, name, { ...original, value });
      restore.push(() => Object.defineProperty(prototype, name, original));
    }
  const pacer = {
    get isDue(): boolean {
      uses.push(0);
      return false;
    },
  };
  try {
    await cluster.updater.updateDirty(newTouched(), { pacer: () => pacer } as never);
  } finally {
    for (const undo of restore) undo();
  }
  return uses;
}

test('every part of its work is in pieces: claims, exposures, sets, events; when it comes, changes and goes', async () => {
  const cluster = large();
  const recorder = new EventRecorder({ isLevelEnabled: () => false, debug: () => undefined });
  cluster.updater.events.updated = (...change) => recorder.serviceChanged(...change);
  const changes: Record<string, () => void> = {
    'it comes': () => undefined,
    'its endpoints change': () => cluster.slice('large', ['10.0.9.9'], { ports: TARGETS }),
    'its addresses change': () => cluster.service('large', { externalIPs: ADDRESSES.slice(3), ports: PORTS }),
    'another wants them all': () =>
      cluster.service(
        'other',
        { clusterIP: '10.96.0.9', externalIPs: ADDRESSES, ports: PORTS },
        { created: '2020-01-01T00:00:00Z' },
      ),
    'it goes': () => cluster.service('large', { type: 'ExternalName' }),
  };
  for (const [what, change] of Object.entries(changes)) {
    change();
    const uses = await usesBetweenPauses(cluster);
    const total = uses.reduce((sum, one) => sum + one, 0);
    assert.ok(total > 10_000, `${what}: ${total} uses of maps and sets in all`);
    assert.ok(Math.max(...uses) <= 6000, `${what}: ${Math.max(...uses)} of ${total} uses in one piece`);
  }
});

test('a change of it in the middle is not lost', async () => {
  const cluster = large();
  const update = cluster.updater.updateDirty(newTouched());
  await nextTurn();
  cluster.slice('large', ['10.0.9.9'], { ports: TARGETS });
  await update;
  await cluster.update();
  const lines = await cluster.table();
  assert.equal(lines.length, TOTAL);
  for (const line of lines) assert.match(line, /-> 10\.0\.9\.9:80\d\d$/);
});

test('whoever asks while it is worked out waits for that: verify does, while the lists are still worked out ahead', async () => {
  const cluster = large();
  const pacer = { isDue: true, yieldIfDue: () => nextTurn() };
  const ahead = cluster.updater.updateDirty(newTouched(), { pacer: () => pacer } as never);
  await nextTurn();
  assert.ok(cluster.updater.desired.virtualServers.size < TOTAL, 'in the middle of it');
  assert.equal(cluster.state.dirtyCount, 0);
  assert.equal(await cluster.updater.updateDirty(newTouched()), 0);
  assert.equal(cluster.updater.desired.virtualServers.size, TOTAL);
  assert.equal(await ahead, 1);
});

test('a call that broke off is waited for, and made good by the next', async () => {
  const cluster = large();
  const broken = { isDue: true, yieldIfDue: () => nextTurn().then(() => Promise.reject(new Error('stopped'))) };
  const ahead = cluster.updater.updateDirty(newTouched(), { pacer: () => broken } as never);
  const rejected = assert.rejects(ahead, /stopped/);
  assert.equal(await cluster.updater.updateDirty(newTouched()), 1);
  await rejected;
  assert.equal(cluster.updater.desired.virtualServers.size, TOTAL);
});
