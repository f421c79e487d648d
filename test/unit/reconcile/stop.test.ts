/** SIGTERM at any moment of any sync: over in two seconds whatever the size, and the next start goes on from there. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type SyncRecord } from '../../../src/reconcile/sync-record.js';
import { WorkStopped } from '../../../src/time/pacer.js';
import { TestCluster } from '../../support/desired-cluster.js';
import { TestKernel } from '../../fakes/test-kernel.js';
import { ReconcileRig } from '../../support/reconcile-rig.js';

const LIMIT_MS = 2000;

/** `services` virtual servers with two backends each. */
function clusterOf(services: number): TestCluster {
  const cluster = new TestCluster({ families: [4] });
  for (let i = 0; i < services; i++) {
    cluster.service(`web-${i}`, { clusterIP: `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}` });
    cluster.slice(`web-${i}`, ['10.0.0.1', '10.0.0.2']);
  }
  return cluster;
}

interface Stopped {
  readonly record: SyncRecord;
  readonly ms: number;
}

/** Stops once `isTime`; how long that took, and what the sync in flight came to. */
async function stopWhen(rig: ReconcileRig, isTime: () => boolean, sync = rig.sync()): Promise<Stopped> {
  let isOver = false;
  void sync.finally(() => (isOver = true));
  while (!isTime() && !isOver) await nextTurn();
  assert.equal(isOver, false, 'the sync was over before it could be stopped');
  const start = performance.now();
  await Promise.all([rig.dataPlane.stop(), sync]);
  return { record: await sync, ms: performance.now() - start };
}

async function assertResumes(kernel: TestKernel, services: number): Promise<void> {
  const rig = new ReconcileRig(clusterOf(services), kernel);
  assert.equal((await rig.sync()).error, undefined);
  assert.deepEqual(await rig.verify(), []);
  assert.equal(kernel.ipvs.table.size, services);
  for (const { realServers } of kernel.ipvs.table.values()) assert.equal(realServers.size, 2);
  assert.equal(kernel.links.addressesOf('kube-ipvs0').length, services);
}

describe('stopped', () => {
  const MIDDLE = 1500;
  const LARGE = 8000;

  test('while the first sync of a large cluster writes', async () => {
    const kernel = new TestKernel();
    const rig = new ReconcileRig(clusterOf(LARGE), kernel);
    const { record, ms } = await stopWhen(rig, () => kernel.ipvs.table.size > 100);
    assert.ok(record.error instanceof WorkStopped);
    assert.ok(ms < LIMIT_MS, `${ms} ms`);
    const written = kernel.ipvs.table.size;
    assert.ok(written < LARGE / 2, `${written} of ${LARGE} were written before it ended`);
    await nextTurn();
    assert.equal(kernel.ipvs.table.size, written, 'nothing is written afterwards');
  });

  test('while its desired state is worked out', async () => {
    const kernel = new TestKernel();
    const rig = new ReconcileRig(clusterOf(LARGE), kernel);
    const { desired } = rig.cluster.updater;
    const { record, ms } = await stopWhen(rig, () => desired.virtualServers.size > 10);
    assert.ok(record.error instanceof WorkStopped);
    assert.ok(ms < LIMIT_MS, `${ms} ms`);
    assert.ok(desired.virtualServers.size < LARGE);
    assert.equal(kernel.ipvs.table.size, 0);
  });

  for (const [what, isTime] of [
    ['adopts', (rig: ReconcileRig) => rig.kernel.handled > 50 && rig.cluster.state.dirtyCount === 0],
    ['binds addresses', (rig: ReconcileRig) => rig.kernel.links.addressesOf('kube-ipvs0').length > 20],
  ] as const)
    test(`while it ${what}`, async () => {
      const kernel = new TestKernel();
      const rig = new ReconcileRig(clusterOf(MIDDLE), kernel);
      const { ms } = await stopWhen(rig, () => isTime(rig));
      assert.ok(ms < LIMIT_MS, `${ms} ms`);
      await assertResumes(kernel, MIDDLE);
    });

  test('while it verifies', async () => {
    const kernel = new TestKernel();
    const rig = new ReconcileRig(clusterOf(MIDDLE), kernel);
    await rig.sync();
    await rig.clock.advance(30_000);
    let turns = 0;
    const { record, ms } = await stopWhen(rig, () => ++turns > 5);
    assert.ok(record.error instanceof WorkStopped);
    assert.ok(ms < LIMIT_MS, `${ms} ms`);
    await assertResumes(kernel, MIDDLE);
  });

  test('after any number of turns of the event loop: what is there is taken over, what is not is made', async () => {
    const services = 200;
    let brokenOff = 0;
    for (let turns = 1; turns < 100; turns += 7) {
      const kernel = new TestKernel();
      const rig = new ReconcileRig(clusterOf(services), kernel);
      const sync = rig.sync();
      for (let i = 0; i < turns; i++) await nextTurn();
      await Promise.all([rig.dataPlane.stop(), sync]);
      if ((await sync).error instanceof WorkStopped) brokenOff++;
      await assertResumes(kernel, services);
    }
    assert.ok(brokenOff >= 5, `${brokenOff} syncs were broken off`);
  });
});
