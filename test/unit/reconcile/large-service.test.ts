/** One Service with as many virtual servers as it may have: worked out with pauses, to the same result. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { newTouched } from '../../../src/desired/desired-state.js';
import { TestCluster } from '../../support/desired-cluster.js';

const PORTS = Array.from({ length: 100 }, (_, i) => ({ name: `p${i}`, port: 1000 + i, protocol: 'TCP' }));
const ADDRESSES = Array.from({ length: 99 }, (_, i) => `192.0.2.${i + 1}`);
const TOTAL = PORTS.length * (ADDRESSES.length + 1);

function large(): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  cluster.service('large', { externalIPs: ADDRESSES, ports: PORTS });
  const backends = Array.from({ length: 50 }, (_, i) => `10.0.0.${i + 1}`);
  cluster.slice('large', backends, { ports: PORTS.map(({ name }) => ({ name, port: 8080, protocol: 'TCP' })) });
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

test('a change of it in the middle is not lost', async () => {
  const cluster = large();
  const update = cluster.updater.updateDirty(newTouched());
  await nextTurn();
  cluster.slice('large', ['10.0.9.9'], { ports: PORTS.map(({ name }) => ({ name, port: 8080, protocol: 'TCP' })) });
  await update;
  await cluster.update();
  const lines = await cluster.table();
  assert.equal(lines.length, TOTAL);
  for (const line of lines) assert.match(line, /-> 10\.0\.9\.9:8080$/);
});
